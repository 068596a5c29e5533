"""Callback protocols: what the loop itself costs, without any streams on top.

They keep one promise of the streams handlers: a peer that does not read stops us from reading.
Without it a protocol would win the 100 KiB echo by hoarding memory.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from .loads import Shape
from .server_streams import BACKLOG, LOOPBACK


class Echo(asyncio.Protocol):
    """Write back every chunk as it comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self.transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Discard(asyncio.Protocol):
    """Take every chunk and forget it."""

    def data_received(self, data: bytes) -> None:
        pass


PROTOCOLS: dict[Shape, type[asyncio.Protocol]] = {"echo": Echo, "discard": Discard}

_kept: list[Any] = []


async def start(shape: Shape, port: int, context: ssl.SSLContext | None) -> int:
    """Listen on the running loop; return the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        PROTOCOLS[shape], LOOPBACK, port, ssl=context, backlog=BACKLOG
    )
    bound: int = server.sockets[0].getsockname()[1]
    _kept.append(server)
    return bound
