"""start_server() and start_unix_server(): a callback for every connection that comes in."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl as ssl_module
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from headrace._streams.arguments import (
    check_address,
    check_path,
    check_port,
    checked_limit,
    server_tls,
)
from headrace._streams.asyncio_server import Server
from headrace._streams.binding import bound_sockets
from headrace._streams.factory import ClientConnected
from headrace._streams.resolve import unique_hosts
from headrace._streams.socketfile import Path, SocketFile, bound_socket
from headrace._transport.backend import for_loop
from headrace._transport.base import Backend, ByLoop, Way
from headrace._transport.loops import is_asyncio
from headrace._transport.portable import given
from headrace._transport.tls_options import TLSOptions


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    limit: int | None = None,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: ssl_module.SSLContext | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    way: Way | None = None,
) -> Server:
    """Listen on *host* and *port* over TCP, with TLS where *ssl* is given; return the Server.

    Args:
        client_connected_cb: called with (reader, writer) for every connection; what it returns runs
            as a task if it is a coroutine. An exception goes to the loop's exception handler, and
            the connection is closed.
        host: a name or an address, or several; None or "" for all interfaces. Each address is bound
            once.
        port: 0 or None for one that is free, a different one for each address.
        limit: the readers' buffer limit in bytes; None for 64 KiB, asyncio's default.
        family, flags: passed to getaddrinfo().
        sock: a bound socket to listen on instead of *host* and *port*. It belongs to the server
            from then on.
        backlog: how many connections the system keeps that are not yet accepted.
        reuse_address: SO_REUSEADDR, by default set where the system is a Unix; reuse_port:
            SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE for every connection.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds; None for asyncio's 60 and 30.
        start_serving: False to accept nothing until Server.start_serving() or serve_forever().
        way: as for open_connection().

    Raises: OSError where an address cannot be bound; ValueError and TypeError for arguments that
    contradict each other.
    Cancellation: safe; nothing is left listening.
    """
    loop = asyncio.get_running_loop()
    limit = checked_limit(limit)
    tls = server_tls(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    check_address(host, port, sock, "Neither host/port nor sock were specified")

    async def bound() -> list[socket.socket]:
        if sock is not None:
            return [sock]
        return await bound_sockets(loop, host, port, family, flags, reuse_address, reuse_port)

    async def by_loop(factory: Any, **options: Any) -> Any:
        if sock is not None:
            return await loop.create_server(factory, sock=sock, **options)
        check_port(port, "bind")
        hosts: Any = host
        if not is_asyncio(loop) and not isinstance(host, str) and isinstance(host, Iterable):
            hosts = await unique_hosts(loop, host, port, family, flags)
        options |= given(host=hosts, port=port, reuse_address=reuse_address, reuse_port=reuse_port)
        return await loop.create_server(factory, family=family, flags=flags, **options)

    backend = await for_loop(loop, limit, tls=tls, sock=sock, way=way)
    server = await _listening(backend, client_connected_cb, bound, by_loop, tls, backlog)
    return await _begin(server, start_serving, keep_alive)


async def start_unix_server(
    client_connected_cb: ClientConnected,
    path: Path | None = None,
    *,
    limit: int | None = None,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: ssl_module.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    cleanup_socket: bool | None = None,
    way: Way | None = None,
) -> Server:
    """Listen on the Unix socket at *path*, or on the bound *sock*; return the Server.

    A socket file that is there already is replaced: a server that still listens on it is not found
    any more. A path that begins with a NUL is an abstract socket of Linux. With *cleanup_socket*
    true, closing the server removes the file, if nobody has replaced it; false leaves it. None is
    true for *path*; for *sock*, whose file somebody else has made, it is what asyncio does: true
    from Python 3.13 on, false before. The other arguments are as for start_server().

    Raises: OSError where the path cannot be bound; ValueError and TypeError for arguments that
    contradict each other.
    Cancellation: safe; nothing is left listening.
    """
    loop = asyncio.get_running_loop()
    limit = checked_limit(limit)
    tls = server_tls(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    check_path(path, sock, "path was not specified, and no sock specified")

    if cleanup_socket is None:
        cleanup_socket = sock is None or sys.version_info >= (3, 13)
    backend = await for_loop(loop, limit, tls=tls, sock=sock, way=way)
    listener = bound_socket(path) if sock is None else sock  # type: ignore[arg-type]  # not None

    async def bound() -> list[socket.socket]:
        return [listener]

    def by_loop(factory: Any, **options: Any) -> Awaitable[Any]:
        if _cleans_up(loop):
            options["cleanup_socket"] = False
        return loop.create_unix_server(factory, sock=listener, **options)

    file: SocketFile | None = None
    try:
        file = SocketFile(listener) if cleanup_socket else None
        server = await _listening(backend, client_connected_cb, bound, by_loop, tls, backlog, file)
    except BaseException:
        if path is not None:
            listener.close()
            if file is not None:
                file.remove()
        raise
    return await _begin(server, start_serving, None)


async def _listening(
    backend: Backend,
    callback: ClientConnected,
    bound: Callable[[], Awaitable[list[socket.socket]]],
    by_loop: ByLoop,
    tls: TLSOptions | None,
    backlog: int,
    file: SocketFile | None = None,
) -> Server:
    """Return a Server that does not accept yet: see Backend.listen()."""
    server = Server(backend, callback)
    inner = await backend.listen(bound, by_loop, server._h_make_protocol, tls, backlog)
    server._h_adopt(inner, backlog, file)
    return server


def _cleans_up(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether *loop* would remove the socket's file itself: asyncio's does from Python 3.13
    on, and uvloop from 0.22."""
    try:
        return "cleanup_socket" in inspect.signature(loop.create_unix_server).parameters
    except (TypeError, ValueError):  # a method of an extension that does not tell its parameters
        return False


async def _begin(server: Server, start: bool, keep_alive: bool | None) -> Server:
    """Return *server*, serving if *start*; it is closed where that fails or is cancelled."""
    try:
        if keep_alive:
            # Before the first accept: a connection inherits it. Loops know the argument from Python
            # 3.13 on, uvloop does not.
            for sock in server.sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
        if start:
            await server.start_serving()
    except BaseException:
        server.close()
        raise
    return server
