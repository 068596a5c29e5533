"""Handlers over headrace's Stream, as its documentation writes them.

``STREAM`` has one operation for each unit; ``TIMED`` is the same with a timeout on each read;
``FRAMED`` has a codec find the unit; ``BATCH`` reads every whole unit that is there, and answers
all of them in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from .loads import Shape

READ_SIZE = 65536
# Longer than any load rests.
READ_TIMEOUT_SECONDS = 30.0

# A headrace.Stream, which not every Python that is measured has.
Handler = Callable[[Any], Awaitable[None]]


async def echo(stream: Any) -> None:
    """Send back whatever one read gives."""
    async with stream:
        while data := await stream.read(READ_SIZE):
            await stream.write(data)


async def line(stream: Any) -> None:
    """Send back one line at a time."""
    async with stream:
        while data := await stream.readline():
            await stream.write(data)


async def frame(stream: Any) -> None:
    """Send back one length-prefixed frame at a time."""
    async with stream:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                header = await stream.readexactly(4)
                payload = await stream.readexactly(int.from_bytes(header, "big"))
                await stream.write(header, payload)


async def framed(stream: Any) -> None:
    """Send back one length-prefixed frame at a time, which a codec has found."""
    from headrace.framing import LengthPrefixed

    async with stream:
        frames = stream.framed(LengthPrefixed(4))
        async for each in frames:
            await frames.write(each)


def batched(codec: Callable[[], Any]) -> Handler:
    """Return a handler that sends back every whole unit that is there in one write."""

    async def batch(stream: Any) -> None:
        async with stream:
            frames = stream.framed(codec())
            while units := await frames.read_many():
                await frames.write(*units)

    return batch


def lines() -> Any:
    """The codec of the loads of lines."""
    from headrace.framing import Lines

    return Lines()


def frames() -> Any:
    """The codec of the loads of frames."""
    from headrace.framing import LengthPrefixed

    return LengthPrefixed(4)


def timed(handler: Handler) -> Handler:
    """Return *handler* with a timeout on each of its reads."""

    async def with_timeout(stream: Any) -> None:
        stream.read_timeout = READ_TIMEOUT_SECONDS
        await handler(stream)

    return with_timeout


STREAM: dict[Shape, Handler] = {"echo": echo, "line": line, "frame": frame, "split": frame}
TIMED: dict[Shape, Handler] = {shape: timed(handler) for shape, handler in STREAM.items()}
FRAMED: dict[Shape, Handler] = {"frame": framed}
BATCH: dict[Shape, Handler] = {"line": batched(lines), "frame": batched(frames)}
HANDLERS = {"stream": STREAM, "timed": TIMED, "framed": FRAMED, "batch": BATCH}


def of_pair(handler: Handler) -> Callable[[Any, Any], Awaitable[None]]:
    """Return *handler* as start_server() calls it."""
    import headrace

    def called(reader: Any, writer: Any) -> Awaitable[None]:
        return handler(headrace.Stream(reader, writer))

    return called
