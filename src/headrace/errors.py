"""The errors of headrace. Where asyncio has a class, it is asyncio's own: callers catch it already.

EOFError
    IncompleteReadError   (asyncio) EOF before the read was satisfied; ``partial`` and ``expected``
Exception
    LimitOverrunError     (asyncio) the separator is further away than the limit; ``consumed``
                          bytes are safe to skip
ssl.SSLError
    UpgradeError          start_tls() on a client that holds bytes which came in plain text
"""

from __future__ import annotations

import ssl
from asyncio import IncompleteReadError, LimitOverrunError

__all__ = ("IncompleteReadError", "LimitOverrunError", "UpgradeError")


class UpgradeError(ssl.SSLError):
    """start_tls() found bytes that arrived before TLS and would later be read as if they had come
    through it.

    ``plaintext_bytes`` says how many. The connection is aborted: whoever sent them may not be the
    peer.
    """

    def __init__(self, plaintext_bytes: int) -> None:
        super().__init__(
            ssl.SSL_ERROR_SSL,
            f"{plaintext_bytes} bytes arrived in plain text before start_tls(): the peer, or "
            "somebody between, sent more than "
            "the answer to the upgrade request. Read everything that belongs before TLS first; "
            "what is left is refused.",
        )
        self.plaintext_bytes = plaintext_bytes

    def __reduce__(self) -> tuple[type[UpgradeError], tuple[int]]:
        return UpgradeError, (self.plaintext_bytes,)
