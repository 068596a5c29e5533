"""Connections for tests: both ends streams, or one end a plain socket that does exactly what the
test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headrace._core.stock import StockStreamWriter

# What headrace.install() replaces, and where programs look it up.
NAMES = (
    "StreamReader",
    "StreamWriter",
    "StreamReaderProtocol",
    "FlowControlMixin",
    "open_connection",
    "start_server",
    "open_unix_connection",
    "start_unix_server",
)

LOOPBACK = "127.0.0.1"


def use_names(monkeypatch: pytest.MonkeyPatch, streams: types.SimpleNamespace) -> None:
    """Make asyncio's names mean *streams* until the test ends, in asyncio and in
    asyncio.streams."""
    for name in NAMES:
        if (value := getattr(streams, name)) is not None:
            for module in (asyncio, asyncio.streams):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)


def patience(streams: types.SimpleNamespace) -> float:
    """Return how long, in seconds, to wait for what asyncio never does: short there, long where it
    must happen."""
    return 0.3 if streams.name == "stock" else 10.0


async def echo(reader: Any, writer: Any) -> None:
    """Send back what comes, until the end, and close: a handler."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until condition() is true."""
    while not condition():
        await asyncio.sleep(0.001)


def reset(sock: socket.socket) -> None:
    """Close *sock* with a reset instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def receive(sock: socket.socket, size: int | None = None, exact: bool = False) -> bytes:
    """Return all bytes from *sock* until its end, or at least *size*; *exact* leaves what comes
    behind them in the socket."""
    loop = asyncio.get_running_loop()
    parts = []
    got = 0
    while size is None or got < size:
        part = await loop.sock_recv(sock, size - got if exact and size is not None else 262144)
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)


async def read_out(reader: Any) -> tuple[bytes, OSError | None]:
    """Return everything that can be read, and then what is raised, or None."""
    data = b""
    while True:
        try:
            piece = await asyncio.wait_for(reader.read(50_000), 5)
        except OSError as error:
            return data, error
        if not piece:
            return data, None
        data += piece


async def finish(*writers: Any) -> None:
    """Abort and wait until it is done, however the connection ended."""
    for writer in writers:
        with contextlib.suppress(
            AttributeError
        ):  # asyncio's transports, once closed, have no loop to abort with
            writer.transport.abort()
    for writer in writers:
        try:
            await asyncio.wait_for(
                writer.wait_closed(), 0.3 if type(writer) is StockStreamWriter else 5
            )
        except TimeoutError:
            raise AssertionError("wait_closed() hangs") from None
        except OSError:
            pass
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serving(
    streams: types.SimpleNamespace, callback: Callable[..., Any], **options: Any
) -> AsyncIterator[tuple]:
    """The address of a server, which is closed at the end also where the test fails (uvloop's
    close() would hang)."""
    server = await streams.start_server(callback, LOOPBACK, 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), 2)


@contextlib.asynccontextmanager
async def pair(
    streams: types.SimpleNamespace, ssl: Any = (None, None), **options: Any
) -> AsyncIterator[types.SimpleNamespace]:
    """Both ends of one connection: ``reader``, ``writer``, ``server_reader``, ``server_writer``.
    *ssl* is (server's, client's) context."""
    accepted = asyncio.get_running_loop().create_future()
    server = await streams.start_server(
        lambda *both: accepted.set_result(both), LOOPBACK, 0, ssl=ssl[0], **options
    )
    if ssl[1] is not None:
        options["server_hostname"] = "localhost"
    reader, writer = await streams.open_connection(
        *server.sockets[0].getsockname(), ssl=ssl[1], **options
    )
    server_reader, server_writer = await accepted
    try:
        yield types.SimpleNamespace(
            reader=reader,
            writer=writer,
            server_reader=server_reader,
            server_writer=server_writer,
            server=server,
        )
    finally:
        await finish(writer, server_writer)
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def client(
    streams: types.SimpleNamespace, receive_buffer: int | None = None, **options: Any
) -> AsyncIterator[tuple]:
    """(reader, writer, peer) of a client whose server is the plain socket *peer*; a small
    *receive_buffer* makes the peer slow."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        reader, writer = await streams.open_connection(*listener.getsockname(), **options)
        peer, _ = listener.accept()
    peer.setblocking(False)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        await finish(writer)


@contextlib.asynccontextmanager
async def served(
    streams: types.SimpleNamespace, callback: Callable[..., Any] | None = None, **options: Any
) -> AsyncIterator[tuple]:
    """(reader, writer, peer) of a server's connection whose client is the plain socket *peer*;
    *callback* gets the streams too."""
    accepted = asyncio.get_running_loop().create_future()

    def connected(reader: Any, writer: Any) -> Any:
        accepted.set_result((reader, writer))
        return None if callback is None else callback(reader, writer)

    server = await streams.start_server(connected, LOOPBACK, 0, **options)
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        peer.setblocking(False)
        reader, writer = await accepted
        try:
            yield reader, writer, peer
        finally:
            await finish(writer)
            server.close()
            await server.wait_closed()
