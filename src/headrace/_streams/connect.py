"""open_connection() and open_unix_connection(): a reader and a writer for a new connection.

The loop connects wherever it can. headrace resolves and connects itself for what a loop lacks
(uvloop has no happy_eyeballs_delay, interleave or all_errors; asyncio's own loop has all_errors
from 3.12) and for what asyncio's race between addresses gets wrong, and then hands the connected
socket to the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from headrace._streams.arguments import (
    check_address,
    check_path,
    check_port,
    checked_limit,
    client_tls,
)
from headrace._streams.factory import make
from headrace._streams.race import connected_socket
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.backend import for_loop
from headrace._transport.base import Backend, ByLoop, Way
from headrace._transport.loops import is_asyncio
from headrace._transport.portable import given
from headrace._transport.tls_options import TLSOptions


async def open_connection(
    host: str | bytes | None = None,
    port: int | str | None = None,
    *,
    limit: int | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    sock: socket.socket | None = None,
    local_addr: tuple[str | None, int | str] | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    happy_eyeballs_delay: float | None = None,
    interleave: int | None = None,
    all_errors: bool = False,
    ssl_session: ssl_module.SSLSession | None = None,
    way: Way | None = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect to *host* and *port* over TCP, and TLS where *ssl* is given; return the reader and
    the writer.

    Args:
        limit: the reader's buffer limit in bytes; None for 64 KiB, asyncio's default.
        ssl: a context, or True for the default one. *server_hostname* (default: *host*) is the name
            to verify; "" for none.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds; None for asyncio's 60 and 30.
        ssl_session: the session of an earlier connection to the same server and with the same
            context, to be resumed if the server likes: its
            ``get_extra_info("ssl_object").session``, in TLS 1.3 once something was read. (Ask for
            that once and keep it: each time, CPython up to 3.13 loses 6 KB.) On the portable way it
            is not used.
        family, proto, flags: passed to getaddrinfo().
        sock: a connected socket to use instead of *host* and *port*. It belongs to the writer from
            then on.
        local_addr: (host, port) to connect from.
        happy_eyeballs_delay: seconds after which the next address is tried while the last one has
            not answered (RFC 8305 recommends 0.25); None tries one after the other. interleave: how
            many addresses of the first family come before the families alternate; default 1 with a
            delay, else 0.
        all_errors: raise what went wrong with every address, as an ExceptionGroup of OSErrors.
        way: "native" or "portable" to insist on one way to the socket; None for the best that there
            is, or for what the environment variable HEADRACE_WAY says. `headrace doctor` explains
            the choice.

    Raises: OSError where no address can be reached (the errors in one message where they differ);
    ssl.SSLError or ConnectionError where the handshake fails, also when it times out; ValueError
    for arguments that contradict each other.
    Cancellation: safe; the socket is closed.
    """
    loop = asyncio.get_running_loop()
    limit = checked_limit(limit)
    tls = client_tls(
        ssl,
        server_hostname,
        ssl_handshake_timeout,
        ssl_shutdown_timeout,
        ssl_session,
        host,
        "You must set server_hostname when using ssl without a host",
    )
    check_address(host, port, sock, "host and port was not specified and no sock specified")
    check_port(port, "connect")
    if isinstance(local_addr, tuple) and len(local_addr) == 2:
        check_port(local_addr[1], "bind")

    where = given(
        family=family or None, proto=proto or None, flags=flags or None, local_addr=local_addr
    )

    def by_loop(factory: Any, **options: Any) -> Awaitable[Any]:
        # typeshed: a host may be bytes too, and a port the name of a service.
        return loop.create_connection(factory, host, port, **where, **options)  # type: ignore[arg-type]

    loop_can = (
        happy_eyeballs_delay is None
        and not interleave
        and not all_errors
        and (local_addr is None or is_asyncio(loop))
    )
    hints = {"family": family, "type": socket.SOCK_STREAM, "proto": proto, "flags": flags}
    connected = partial(
        connected_socket,
        loop,
        host,
        port,
        hints,
        local_addr,
        happy_eyeballs_delay,
        interleave,
        all_errors,
    )
    backend = await for_loop(loop, limit, tls=tls, sock=sock, way=way)
    return await _open(backend, tls, sock, connected, by_loop if loop_can else None, unix=False)


async def open_unix_connection(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
    *,
    limit: int | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    sock: socket.socket | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    ssl_session: ssl_module.SSLSession | None = None,
    way: Way | None = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect to the Unix socket at *path*, or take the connected *sock*; return the reader and the
    writer.

    A path that begins with a NUL is an abstract socket of Linux. The other arguments are as for
    open_connection(); with *ssl* the *server_hostname* has to be given.

    Raises: as for open_connection(). Cancellation: safe; the socket is closed.
    """
    loop = asyncio.get_running_loop()
    limit = checked_limit(limit)
    tls = client_tls(
        ssl,
        server_hostname,
        ssl_handshake_timeout,
        ssl_shutdown_timeout,
        ssl_session,
        None,
        "you have to pass server_hostname when using ssl",
    )
    check_path(path, sock, "no path and sock were specified")

    def by_loop(factory: Any, **options: Any) -> Awaitable[Any]:
        # A path, as there is no socket.
        return loop.create_unix_connection(factory, os.fspath(path), **options)  # type: ignore[arg-type]

    # libuv takes a path for a C string, and so knows no abstract sockets.
    loop_can = is_asyncio(loop)
    connected = partial(connected_unix_socket, loop, path)
    backend = await for_loop(loop, limit, tls=tls, sock=sock, way=way)
    return await _open(backend, tls, sock, connected, by_loop if loop_can else None, unix=True)


async def connected_unix_socket(loop: asyncio.AbstractEventLoop, path: Any) -> socket.socket:
    """Return a socket that is connected to *path*. Raises: OSError. Cancellation: safe; no socket
    is left."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


async def _open(
    backend: Backend,
    tls: TLSOptions | None,
    sock: socket.socket | None,
    connected: Callable[[], Awaitable[socket.socket]],
    by_loop: ByLoop | None,
    unix: bool,
) -> tuple[StreamReader, StreamWriter]:
    """Return the streams over *sock*, or over a new connection: see Backend.connect()."""
    reader, protocol = make(backend)
    if sock is not None:
        transport = await backend.adopt(sock, protocol, tls, unix)
    else:
        transport = await backend.connect(connected, by_loop, protocol, tls, unix)
    return reader, StreamWriter(transport, protocol, reader, backend.loop)
