"""What Python code may use of one side of a TLS session inside another."""

from headrace._transport.native.tls_engine import TLS

class InnerTLS(TLS): ...
