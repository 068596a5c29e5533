"""Streams for tests: a Stream whose peer is a plain socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from support.wires import tcp_pair

import headrace


@contextlib.asynccontextmanager
async def stream_to(
    way: str, **options: Any
) -> AsyncIterator[tuple[headrace.Stream, socket.socket]]:
    """Yield a Stream of *way* and its peer, a socket that blocks for 5 s at most; the stream is
    aborted at the end if it is open still."""
    ours, peer = tcp_pair()
    pair = await headrace.open_connection(sock=ours, way=way, **options)  # type: ignore[arg-type]
    stream = headrace.Stream(*pair)
    with peer:
        try:
            yield stream, peer
        finally:
            if not stream.closing:
                stream.abort()
            with contextlib.suppress(OSError):
                await stream.writer.wait_closed()
