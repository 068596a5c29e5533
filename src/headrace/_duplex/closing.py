"""How a stream ends: cleanly, or by a reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

from headrace._streams.writer import Writer
from headrace._transport import backend
from headrace.errors import StreamTimeout, WriteTimeout

if TYPE_CHECKING:
    from headrace._duplex.stream import Duplex

# struct linger (socket(7)): on, for no time. close() then drops what is unsent and sends a reset.
_RESET = struct.pack("ii", 1, 0)


def linger(writer: Any) -> None:
    """Have close() of *writer* take nothing from a peer that still sends, where it can."""
    transport = getattr(writer, "transport", None)
    if transport is not None and not writer.is_closing():
        backend.linger(transport)


async def close(stream: Duplex, writer: Any, timeout: float | None) -> None:
    """Close *stream* and its *writer* as Stream.aclose() says. Raises and cancellation: as
    there."""
    left = False
    try:
        async with stream._h_bounded("Stream.aclose", WriteTimeout, timeout):
            if not stream.closing:
                await stream.flush()
            left = True
            stream.close()
            with contextlib.suppress(OSError):  # an end that is not clean takes nothing from us
                await closed(writer)
    except BaseException as error:
        if not left:
            stream.abort()
            raise
        # The system has everything, and the peer may still be taking it: a reset would lose that.
        # What is missing is the peer's answer, and it owes us none.
        if not isinstance(error, StreamTimeout):
            cut(writer)
            raise


async def closed(writer: Any) -> None:
    """Wait until *writer* is closed. Raises: what its wait_closed() does. Cancellation: safe."""
    if isinstance(writer, Writer):
        await writer.wait_closed()
        return
    # asyncio's waits for a future that all share: a cancellation would end it for those who come
    # later, too.
    waiting = asyncio.ensure_future(writer.wait_closed())
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([waiting])
    waiting.result()


def reset(writer: Any) -> None:
    """Close *writer* at once; its peer sees a reset where the socket can have one."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # it is broken already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    cut(writer)


def cut(writer: Any) -> None:
    """Close *writer* at once, where it can be; its peer sees an end."""
    transport = getattr(writer, "transport", None)
    if transport is None:
        writer.close()
        return
    # One of asyncio's that was closed with something unsent, and has sent it, has no loop any more.
    with contextlib.suppress(AttributeError):
        transport.abort()
