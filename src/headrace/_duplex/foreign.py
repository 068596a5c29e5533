"""Pairs that are not ours: what a Stream fetches from a reader of somebody else's, and writes by a
writer of somebody else's. Subprocesses have such pairs, and whoever holds asyncio's."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace._duplex import writes
from headrace._duplex.bounded import bounded
from headrace._duplex.writes import Outgoing
from headrace._streams.read_half import Read
from headrace._streams.reader import Reader
from headrace._transport import operation as operations
from headrace._transport import scheduler as schedulers
from headrace._transport import timing as timings
from headrace._transport.operation import Kind, Operation
from headrace._transport.timing import Timing
from headrace.errors import ReadTimeout, WriteTimeout


async def fetch(
    stream: Any, source: Any, reader: Reader, kind: Read, operation: Operation, seconds: float
) -> Any:
    """Do *operation*, of *kind*, on *reader*, which gets from *source*, a foreign reader, what it
    lacks; that may take *seconds*.

    Raises: what the read does, and what *source* raises. Cancellation: safe: what was fetched stays
    in *reader*.
    """
    timing = timing_of(reader)
    rest = rest_of(timing, False)
    try:
        async with bounded(timing, kind.name, ReadTimeout, seconds, stream):
            while (result := attempt(kind, reader, operation)) is operations.PENDING:
                async with bounded(None, kind.name, ReadTimeout, rest, stream):
                    data = await source.read(reader._limit)
                feed(reader, bytes(data))
    finally:
        forget(operation)
    return result


# Calls through these are typed, where the arguments of a coroutine are not.


def attempt(kind: Read, reader: Reader, operation: Operation) -> object:
    """Attempt *operation* on *reader*."""
    if operation.bounds is not None:
        timings.check(operation)
    return kind.attempt(reader, operation)


def forget(operation: Operation) -> None:
    """Keep nothing of the caller's: a traceback with *operation* may live for long."""
    operation.argument = None


def feed(reader: Reader, data: bytes) -> None:
    """Give *data* to *reader*; b"" is the end."""
    if data:
        reader._h_feed(data)
    else:
        reader.feed_eof()


def rest_of(timing: Timing | None, writing: bool) -> float:
    """Return how long a wait may be in which nothing moves, in seconds."""
    if timing is None:
        return timings.NEVER
    return timing.write_seconds if writing else timing.read_seconds


def timing_of(reader: Reader) -> Timing | None:
    """Return what bounds the reads of *reader*, or None."""
    return reader._h_timing


def give_back(reader: Reader, source: Any) -> None:
    """Put what was fetched and not read back into *source*, so that whoever reads there next finds
    it. Raises: RuntimeError where that is not possible, and something was fetched."""
    size = reader._h_bytes.length()
    if size == 0:
        return
    buffer = getattr(source, "_buffer", None)
    if not isinstance(buffer, bytearray):
        raise RuntimeError(
            f"{size} bytes were fetched from {type(source).__name__!r}, which takes none back: "
            "read them from the stream first"
        )
    buffer[:0] = reader._h_bytes.take(size)


class ForeignWrites(Outgoing):
    """Writes by *writer*, anything with write() and drain(); one after the other, in the order of
    the calls."""

    def __init__(self, stream: Any, writer: Any) -> None:
        loop = asyncio.get_event_loop()
        Outgoing.__init__(self, loop, schedulers.scheduler_of(loop))
        self.stream = stream
        self.writer = writer
        self.written = 0
        self.lock = asyncio.Lock()

    def start(self, kind: Kind, pieces: Any, seconds: float) -> Any:
        self.operations += 1
        return self._write(kind, pieces, seconds)

    async def _write(self, kind: Kind, pieces: Any, seconds: float) -> None:
        rest = rest_of(self.timing, True)
        async with bounded(self.timing, kind.name, WriteTimeout, seconds, self.stream()), self.lock:
            async with bounded(None, kind.name, WriteTimeout, rest, self.stream()):
                await (self._flush() if kind is writes.FLUSH else self._have_room())
            if kind is writes.WRITE:  # after write_eof() not even nothing may be written
                self.accept(pieces)

    async def _have_room(self) -> None:
        await self.writer.drain()
        if self.writer.is_closing():
            raise ConnectionResetError("Connection lost: the stream is closed")

    async def _flush(self) -> None:
        self.send_gathered()
        transport = self.writer.transport
        if kept_by(transport) == 0:
            # With limits of 0 the loop's TLS would take nothing for too much, and never say
            # otherwise.
            await self.writer.drain()
            return
        limits = transport.get_write_buffer_limits()
        writes.set_limits(transport, 0)
        try:
            await self.writer.drain()
        finally:
            writes.set_limits(transport, limits[1], limits[0])

    def send(self, pieces: Any) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.written += len(data)
        try:
            self.writer.write(data)
        except RuntimeError:
            # One of uvloop's that is closed raises; others drop it.
            if not self.writer.is_closing():
                self.written -= len(data)
                raise

    def check_open(self) -> None:
        pass  # its writer says so when it is written to

    def unsent(self) -> int:
        return self._gathered_bytes + kept_by(self.writer.transport)

    def sent(self) -> int:
        return self.written + self._gathered_bytes

    def pass_on(self, size: int) -> None:
        self.written += size

    def _h_waiting(self) -> list[Operation]:
        return []  # it waits in coroutines

    def _h_moved(self) -> int:
        return self.sent() - self.unsent()


def kept_by(transport: Any) -> int:
    """Return how many bytes *transport* has that the system has not taken."""
    try:
        return int(transport.get_write_buffer_size())
    except AttributeError:  # it cannot tell, or is one of asyncio's TLS that is closed
        return 0
