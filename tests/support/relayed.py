"""Two streams of ours, and the sockets of their peers: what a relay stands between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from headrace import Stream


async def pair(ours: Any, family: int) -> tuple[Stream, socket.socket]:
    """Return a Stream of ours, and its peer's socket."""
    if family == socket.AF_UNIX:
        mine, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            mine = socket.create_connection(listener.getsockname())
            theirs = listener.accept()[0]
    theirs.setblocking(False)
    return Stream(*await ours.open_connection(sock=mine)), theirs


class Peers:
    """Two streams that are relayed between, and the sockets of their peers."""

    def __init__(self, a: Stream, b: Stream, left: socket.socket, right: socket.socket) -> None:
        self.a, self.b, self.left, self.right = a, b, left, right
        self.loop = asyncio.get_running_loop()

    async def send(self, sock: socket.socket, data: bytes) -> None:
        await self.loop.sock_sendall(sock, data)

    async def receive(self, sock: socket.socket, size: int = -1) -> bytes:
        """Return *size* bytes, or all up to the end."""
        found = bytearray()
        while size < 0 or len(found) < size:
            data = await self.loop.sock_recv(sock, 1 << 18)
            if not data:
                break
            found += data
        return bytes(found)


@contextlib.asynccontextmanager
async def peers(ours: Any, *families: int) -> AsyncIterator[Peers]:
    first, second = families or (socket.AF_INET, socket.AF_INET)
    a, left = await pair(ours, first)
    b, right = await pair(ours, second)
    try:
        yield Peers(a, b, left, right)
    finally:
        for sock in (left, right):
            sock.close()
        a.abort()
        b.abort()
        await asyncio.sleep(0.01)  # the transports close their sockets in a turn of their own
