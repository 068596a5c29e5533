"""What connecting and listening check before they ask the loop, so that every loop raises what
asyncio raises."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
import sys

from headrace._transport.tls_options import TLSOptions

# asyncio's default limit of a reader, which its documentation prints as None.
DEFAULT_LIMIT = 2**16

# What Linux takes: MAX_TCP_KEEPIDLE (net/tcp.h), and an int of milliseconds (TCP_USER_TIMEOUT).
MOST_KEEPALIVE_SECONDS = 32767
MOST_USER_TIMEOUT_SECONDS = (2**31 - 1) / 1000


def check_option(seconds: float | None, name: str, most: float) -> None:
    """Raise ValueError where *seconds* is nothing that the system takes for the option *name*, nor
    None; TypeError where it is no number."""
    if isinstance(seconds, (str, bytes)):
        raise TypeError(f"{name} takes a number of seconds, not {type(seconds).__name__!r}")
    if seconds is not None and not 0 < seconds <= most:
        raise ValueError(
            f"{name} must be a number of seconds above 0, at most {int(most):,}, or None, "
            f"not {seconds!r}"
        )


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


def client_tls(
    ssl: ssl_module.SSLContext | bool | None,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
    session: ssl_module.SSLSession | None,
    host: str | bytes | None,
    nameless: str,
) -> TLSOptions | None:
    """Return how a client's connection is secured, None where it is not.

    Args:
        host: the name to verify where *server_hostname* is None.
        nameless: what the error says where there is neither.

    Raises: ValueError and TypeError for what contradicts each other or cannot be.
    """
    if server_hostname is not None and not ssl:
        raise ValueError("server_hostname is only meaningful with ssl")
    if ssl and server_hostname is None and not host:
        raise ValueError(nameless)
    _check_timeouts(ssl, handshake_timeout, shutdown_timeout)
    _check_session(ssl, session)
    _check_context(ssl, ", True")
    if ssl and server_hostname is None:
        server_hostname = host  # type: ignore[assignment]  # bytes are refused by the ssl module
    context = _context_for(ssl, server_hostname)
    if context is None:
        return None
    return TLSOptions(context, server_hostname, handshake_timeout, shutdown_timeout, session)


def server_tls(
    ssl: ssl_module.SSLContext | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> TLSOptions | None:
    """Return how a server's connections are secured, None where they are not. Raises: TypeError and
    ValueError."""
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    _check_context(ssl, "")
    _check_timeouts(ssl, handshake_timeout, shutdown_timeout)
    if ssl is None:
        return None
    return TLSOptions(ssl, None, handshake_timeout, shutdown_timeout)


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


def check_address(host: object, port: object, sock: socket.socket | None, neither: str) -> None:
    """Raise ValueError or TypeError unless there is either a *host* or a *port*, or else a *sock*
    of a byte stream; *neither* says that there is nothing of it."""
    named = host is not None or port is not None
    if sock is None:
        if not named:
            raise ValueError(neither)
        return
    if named:
        raise ValueError("host/port and sock can not be specified at the same time")
    check_stream_socket(sock)


def check_path(path: object, sock: socket.socket | None, neither: str) -> None:
    """The same for the *path* of a Unix socket."""
    if sock is None:
        if path is None:
            raise ValueError(neither)
        return
    if path is not None:
        raise ValueError("path and sock can not be specified at the same time")
    _check_unix_socket(sock)


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


def _check_unix_socket(sock: socket.socket) -> None:
    """Raise ValueError where *sock* is not a byte stream between processes of this machine."""
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def _check_timeouts(ssl: object, handshake: float | None, shutdown: float | None) -> None:
    """Raise ValueError where a timeout of TLS is given without TLS."""
    if ssl:
        return
    if handshake is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


def _check_context(ssl: object, expected: str) -> None:
    """Raise TypeError where *ssl* is surely nothing that TLS can be made with; *expected* says what
    would be.

    Objects that stand in for a context are the loop's to judge.
    """
    if ssl is not True and isinstance(ssl, (str, bytes, os.PathLike, tuple, list, int)) and ssl:
        raise TypeError(
            f"ssl argument must be an SSLContext{expected} or None, not {type(ssl).__name__!r}"
        )


def _check_session(
    ssl: ssl_module.SSLContext | bool | None, session: ssl_module.SSLSession | None
) -> None:
    """Raise ValueError where there is a *session* to resume without TLS, or without the context
    that it belongs to."""
    if session is not None and (not ssl or ssl is True):
        raise ValueError(
            "ssl_session is only meaningful with the ssl context of the connection it comes from"
        )


def _context_for(
    ssl: ssl_module.SSLContext | bool | None, server_hostname: str | None
) -> ssl_module.SSLContext | None:
    """Return the context that *ssl* stands for: True is the default one, which checks names where
    there is one to check."""
    if ssl is not True:
        return ssl or None
    context = ssl_module.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context
