"""start_server() and start_unix_server(): a callback for every connection that comes in."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl as ssl_module
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from headrace._streams.arguments import (
    check_context,
    check_port,
    check_stream_socket,
    check_timeouts,
    check_unix_socket,
    checked_limit,
    given,
)
from headrace._streams.asyncio_server import Server
from headrace._streams.connect import is_asyncio, resolve
from headrace._streams.factory import ClientConnected
from headrace._streams.listening import Listening, bound_sockets
from headrace._streams.socketfile import Path, SocketFile, bound_socket
from headrace._transport.backend import Secure, Way, choose
from headrace._transport.receive import receive_bytes


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
    limit = checked_limit(limit)
    loop = asyncio.get_running_loop()
    _check_tls(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    named = host is not None or port is not None
    if sock is not None:
        if named:
            raise ValueError("host/port and sock can not be specified at the same time")
        check_stream_socket(sock)
    elif not named:
        raise ValueError("Neither host/port nor sock were specified")

    choice = await choose(loop, limit, tls=ssl, sock=sock, way=way)
    secure = None if ssl is None else Secure(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    server = Server(loop, limit, choice, client_connected_cb)
    if choice.way == "native":
        sockets = (
            [sock]
            if sock is not None
            else await bound_sockets(loop, host, port, family, flags, reuse_address, reuse_port)
        )
        server._h_adopt(
            Listening(
                loop, sockets, server._h_make_protocol, backlog, receive_bytes(limit), secure
            ),
            backlog,
        )
        return await _begin(server, start_serving, keep_alive)
    options = given(
        ssl=ssl,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        sock=sock,
    )
    if named:
        check_port(port, "bind")
        if not is_asyncio(loop) and not isinstance(host, str) and isinstance(host, Iterable):
            host = await unique_hosts(loop, host, port, family, flags)
        options |= given(host=host, port=port, reuse_address=reuse_address, reuse_port=reuse_port)
        options |= {"family": family, "flags": flags}
    inner = await loop.create_server(
        server._h_make_protocol, backlog=backlog, start_serving=False, **options
    )
    server._h_adopt(inner, backlog)
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
    limit = checked_limit(limit)
    loop = asyncio.get_running_loop()
    _check_tls(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    if path is not None:
        if sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
    elif sock is None:
        raise ValueError("path was not specified, and no sock specified")
    else:
        check_unix_socket(sock)

    if cleanup_socket is None:
        cleanup_socket = sock is None or sys.version_info >= (3, 13)
    choice = await choose(loop, limit, tls=ssl, sock=sock, way=way)
    if sock is None:
        sock = bound_socket(path)  # type: ignore[arg-type]  # not None here
    secure = None if ssl is None else Secure(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    server = Server(loop, limit, choice, client_connected_cb)
    file: SocketFile | None = None
    options = given(
        ssl=ssl,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    if _cleans_up(loop):
        options["cleanup_socket"] = False
    try:
        file = SocketFile(sock) if cleanup_socket else None
        if choice.way == "native":
            inner: Any = Listening(
                loop, [sock], server._h_make_protocol, backlog, receive_bytes(limit), secure
            )
        else:
            inner = await loop.create_unix_server(
                server._h_make_protocol, sock=sock, backlog=backlog, start_serving=False, **options
            )
    except BaseException:
        if path is not None:
            sock.close()
            if file is not None:
                file.remove()
        raise
    server._h_adopt(inner, backlog, file)
    return await _begin(server, start_serving, None)


def _check_tls(ssl: object, handshake: float | None, shutdown: float | None) -> None:
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    check_context(ssl, "")
    check_timeouts(ssl, handshake, shutdown)


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


async def unique_hosts(
    loop: asyncio.AbstractEventLoop, hosts: Iterable[Any], port: Any, family: int, flags: int
) -> list[str]:
    """Return the numeric addresses that *hosts* stand for, each once: uvloop would bind them as
    often as they are named."""
    hints = {"family": family, "type": socket.SOCK_STREAM, "proto": 0, "flags": flags}
    found: dict[str, None] = {}
    for host in hosts:
        for address in await resolve(loop, host or None, port, hints):
            found[
                socket.getnameinfo(address[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
            ] = None
    return list(found)
