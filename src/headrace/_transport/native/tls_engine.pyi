"""What Python code may use of one side of a TLS session."""

import ssl

class TLS:
    def __init__(
        self,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        resume: ssl.SSLSession | None,
    ) -> None: ...
    @property
    def context(self) -> ssl.SSLContext: ...
    @property
    def ssl_object(self) -> ssl.SSLObject: ...
