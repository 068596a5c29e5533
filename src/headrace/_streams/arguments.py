"""What connecting and listening check before they ask the loop, so that every loop raises what
asyncio raises."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
import sys
from typing import Any

# asyncio's default limit of a reader, which its documentation prints as None.
DEFAULT_LIMIT = 2**16


def checked_limit(limit: int | None) -> int:
    """Return *limit* in bytes, the default for None. Raises: ValueError where it is not
    positive."""
    if limit is None:
        return DEFAULT_LIMIT
    if limit <= 0:
        raise ValueError("Limit cannot be <= 0")
    # More than there can be in memory, math.inf included, is no limit; and whoever writes 1e6 means
    # an integer.
    return max(1, int(limit)) if limit < sys.maxsize else sys.maxsize


def given(**options: Any) -> dict[str, Any]:
    """Return the *options* that are not None: a loop is asked only for what the caller asked
    for."""
    return {name: value for name, value in options.items() if value is not None}


def check_timeouts(ssl: object, handshake: float | None, shutdown: float | None) -> None:
    """Raise ValueError where a timeout of TLS is given without TLS."""
    if ssl:
        return
    if handshake is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


def check_server_context(ssl: object) -> None:
    """Raise TypeError or ValueError where *ssl* is not what a server of TLS needs: a context of its
    side."""
    if ssl is None:
        return
    if not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError(f"ssl argument must be an SSLContext or None, not {type(ssl).__name__!r}")
    if ssl.protocol is ssl_module.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl is a client's context: a server needs ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)"
        )


def check_context(ssl: object, expected: str) -> None:
    """Raise TypeError where *ssl* is surely nothing that TLS can be made with; *expected* says what
    would be.

    Objects that stand in for a context are the loop's to judge.
    """
    if ssl is not True and isinstance(ssl, (str, bytes, os.PathLike, tuple, list, int)) and ssl:
        raise TypeError(
            f"ssl argument must be an SSLContext{expected} or None, not {type(ssl).__name__!r}"
        )


def check_session(
    ssl: ssl_module.SSLContext | bool | None, session: ssl_module.SSLSession | None
) -> None:
    """Raise ValueError where there is a *session* to resume without TLS, or without the context
    that it belongs to."""
    if session is not None and (not ssl or ssl is True):
        raise ValueError(
            "ssl_session is only meaningful with the ssl context of the connection it comes from"
        )


def check_port(port: object, call: str) -> None:
    """Raise OverflowError where *port* is a number that is none of a port, in the words of a
    socket's *call*.

    The system's resolver takes it modulo 65536 and says nothing; the name of a service is left to
    it.
    """
    try:
        number = int(port or 0)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return
    if not 0 <= number <= 65535:
        raise OverflowError(f"{call}(): port must be 0-65535.")


def check_stream_socket(sock: socket.socket) -> None:
    """Raise TypeError for a socket of the ssl module, ValueError for one that is not a byte
    stream."""
    if isinstance(sock, ssl_module.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")


def check_unix_socket(sock: socket.socket) -> None:
    """Raise ValueError where *sock* is not a byte stream between processes of this machine."""
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
