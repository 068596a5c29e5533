"""Streams handlers as the documentation writes them, for every streams peer.

The point is what a user's own first handler costs: no batching, no skipped ``drain``,
nothing tuned for one library. All peers run these very functions; only the module whose
``start_server`` calls them differs. The types are asyncio's, which headrace matches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from .loads import Shape

READ_SIZE = 65536
LOOPBACK = "127.0.0.1"
BACKLOG = 1024

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Starter = Callable[..., Awaitable[Any]]


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # A client that leaves first may reset the connection under a TLS goodbye.
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back whatever one read gives."""
    while data := await reader.read(READ_SIZE):
        writer.write(data)
        await writer.drain()
    await _close(writer)


async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back one line at a time."""
    while data := await reader.readline():
        writer.write(data)
        await writer.drain()
    await _close(writer)


async def frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back one length-prefixed frame at a time."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            header = await reader.readexactly(4)
            payload = await reader.readexactly(int.from_bytes(header, "big"))
            writer.write(header + payload)
            await writer.drain()
    await _close(writer)


async def split(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back one length-prefixed frame at a time, in two writes."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            header = await reader.readexactly(4)
            payload = await reader.readexactly(int.from_bytes(header, "big"))
            writer.write(header)
            writer.write(payload)
            await writer.drain()
    await _close(writer)


async def discard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end and answer nothing."""
    while await reader.read(READ_SIZE):
        pass
    await _close(writer)


HANDLERS: dict[Shape, Handler] = {
    "echo": echo,
    "line": line,
    "frame": frame,
    "split": split,
    "discard": discard,
}


async def start(
    start_server: Starter,
    handler: Handler,
    port: int,
    context: ssl.SSLContext | None,
) -> int:
    """Listen with *start_server*, which is called as asyncio's is; return the port."""
    server = await start_server(handler, LOOPBACK, port, ssl=context, backlog=BACKLOG)
    bound: int = server.sockets[0].getsockname()[1]
    # The caller sleeps for ever; a server nobody refers to may stop accepting.
    _kept.append(server)
    return bound


async def start_unix(start_server: Starter, handler: Handler) -> int:
    """Listen on an abstract Unix socket; return the number in its name."""
    number = os.getpid()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0headrace-benchmark-{number}")
    _kept.append(await start_server(handler, sock=listener, backlog=BACKLOG))
    return number


_kept: list[Any] = []
