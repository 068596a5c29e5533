"""TLSOptions: how connections are secured, whichever way they take."""

from __future__ import annotations

import ssl
from asyncio import constants
from typing import NamedTuple


class TLSOptions(NamedTuple):
    """What the functions that open and secure connections are given as ssl=…, server_hostname=…
    and the rest."""

    context: ssl.SSLContext
    # The name that a client verifies; None on a server, or for no name.
    server_hostname: str | None = None
    handshake_timeout: float | None = None
    shutdown_timeout: float | None = None
    # A session to resume, which a client has from an earlier connection. No loop's transport takes
    # one.
    session: ssl.SSLSession | None = None

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds for the handshake and for the shutdown: asyncio's where none are given."""
        handshake, shutdown = self.handshake_timeout, self.shutdown_timeout
        return (
            constants.SSL_HANDSHAKE_TIMEOUT if handshake is None else handshake,
            constants.SSL_SHUTDOWN_TIMEOUT if shutdown is None else shutdown,
        )


def is_standard(context: object) -> bool:
    """Tell whether *context* is one of the ssl module's: TLS of any other is the loop's."""
    return isinstance(context, ssl.SSLContext)
