"""relay(): what comes from one stream goes to another, both ways.

It begins in buffers, and goes on by splicing where full receives show that this pays and both are
plain sockets of ours. Over TLS and over the transports of others it stays in buffers.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Literal

from headrace._duplex import passing, splice
from headrace._duplex.splice import End, Pipe, Splices
from headrace._duplex.stream import Stream
from headrace._transport import timing as timings
from headrace.errors import StreamTimeout

# How much is copied at once, in bytes.
CHUNK_BYTES = 1 << 18
# A receive of so much is full; after so many of them in a row splicing is tried. Not measured.
FULL_BYTES = 65536
FULL_RECEIVES = 4

Reason = Literal["both ended", "reset", "idle", "linger"]


@dataclass(frozen=True, slots=True)
class RelayResult:
    """What relay() has done.

    Attributes:
        a_to_b, b_to_a: how many bytes went this way: what the other stream has accepted.
        ended_first: who ended first, "a" or "b"; None where nobody did.
        reason: why it is over: "both ended"; "reset": one was reset, or lost; "idle": no byte moved
            for idle_timeout seconds; "linger": one had ended, and for linger seconds no byte came
            from the other. None where it was cut short by an exception.
    """

    a_to_b: int
    b_to_a: int
    ended_first: str | None
    reason: str | None


async def relay(
    a: Stream, b: Stream, *, idle_timeout: float | None = None, linger: float | None = 30.0
) -> RelayResult:
    """Copy what comes from *a* to *b*, and from *b* to *a*, until both have ended.

    What was read ahead goes first. An end of input is passed on by write_eof(); where the other
    cannot do that (TLS before 1.3, most foreign transports) nothing is cut, and the other way goes
    on. Where one is reset the other is aborted: a peer over TCP sees a reset too. It does not close
    the streams: what they have accepted and not sent leaves while they are open.

    Args:
        a, b: two streams; nobody else may read from them, or should write to them.
        idle_timeout: how many seconds no byte may move either way; None for any time.
        linger: how many seconds no byte may move once one way has ended; None for any time. Both
            are noticed up to an eighth later.

    Returns: a RelayResult.
    Raises: TypeError where one is no Stream, ValueError where both are the same or a time is
    negative; ReadTimeout, WriteTimeout and DeadlineExceeded by what bounds the streams themselves;
    RuntimeError where somebody else reads, or has ended, the same stream. Each that comes after the
    start has the RelayResult as ``transferred``.
    Cancellation: safe: what was received and not passed on is read from its stream next; the
    CancelledError has the RelayResult as ``transferred``. So it is after a timeout.
    """
    for each in (a, b):
        if not isinstance(each, Stream):
            raise TypeError(f"relay() takes two Streams, not a {type(each).__name__!r}")
    if a is b:
        raise ValueError("relay() takes two different Streams")
    idle = timings.checked_seconds(idle_timeout, "relay")
    lingering = timings.checked_seconds(linger, "relay")
    return await Relay(a, b, idle, lingering).run()


class Relay:
    """One relay(): its two directions, and the time since a byte has moved."""

    def __init__(self, a: Stream, b: Stream, idle: float, linger: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = (a, b)
        self._seconds: dict[Reason, float] = {"idle": idle, "linger": linger}
        ends: tuple[End | None, End | None] = (None, None)
        if splice.CAN_SPLICE:
            ends = (end_of(a), end_of(b))
        self._directions = (
            Direction(a, b, ends[0], ends[1]),
            Direction(b, a, ends[1], ends[0]),
        )
        forth, back = self._directions
        forth.other, back.other = back, forth
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ended_first: Literal["a", "b"] | None = None
        self._reason: Reason | None = None
        self._seen = -1
        self._since = 0.0

    async def run(self) -> RelayResult:
        """Copy both ways; as relay() says."""
        a, b = self._streams
        try:
            async with (
                a._h_bounded("relay", StreamTimeout, None),
                b._h_bounded("relay", StreamTimeout, None),
            ):
                await self._copy()
        except BaseException as error:
            self._reason = None
            error.transferred = self._result()  # type: ignore[attr-defined]
            raise
        return self._result()

    def _result(self) -> RelayResult:
        forth, back = self._directions
        return RelayResult(forth.count, back.count, self._ended_first, self._reason)

    async def _copy(self) -> None:
        forth, back = self._directions
        self._tasks = [
            self._loop.create_task(forth.copy()),
            self._loop.create_task(back.copy()),
        ]
        self._look()
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._one_ended()
            await asyncio.wait(self._tasks)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._stop()
        self._finish()

    def _one_ended(self) -> None:
        """One direction is over, or both at once: the other may go on, or has to end."""
        first = 0 if self._tasks[0].done() else 1
        task = self._tasks[first]
        over = self._directions[first]
        if task.cancelled():
            return  # for its time is over, and that of the other too
        if task.exception() is not None:
            self._tasks[1 - first].cancel()
            return
        comes_from_a = first == 0
        self._ended_first = "a" if comes_from_a == (over.lost != "target") else "b"
        for each in self._directions:
            each.poke()
        if over.lost == "source":
            # What came before the loss was passed on. Nobody is there to answer.
            over.target.abort()
            self._tasks[1 - first].cancel()
        else:
            self._look()

    async def _stop(self) -> None:
        """Have both tasks end, whatever cancels meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        for task in self._tasks:
            if not task.done():
                task.cancel()
        while pending := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _finish(self) -> None:
        """Raise what broke a direction; else say why it is over, and pass a loss on."""
        for task in self._tasks:
            if not task.cancelled():
                task.result()
        for direction in self._directions:
            if direction.lost is not None:
                self._reason = "reset"
                if direction.lost == "source":
                    direction.target.abort()
                else:
                    direction.source.abort()
        if self._reason is None:
            self._reason = "both ended"

    # ---- time

    def _look(self) -> None:
        """Look whether a byte has moved, and end the relay where none has for too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        one_over = any(each.is_over for each in self._directions)
        limits = {"idle": self._seconds["idle"]}
        if one_over:
            limits["linger"] = self._seconds["linger"]
        reason = min(limits, key=lambda each: limits[each])
        seconds = limits[reason]
        if seconds == math.inf:
            return
        now = self._loop.time()
        a, b = self._streams
        seen = passing.progress(a) + passing.progress(b) + one_over
        if seen != self._seen:
            self._seen = seen
            self._since = now
        left = self._since + seconds - now
        if left <= 0:
            self._reason = "linger" if reason == "linger" else "idle"
            for task in self._tasks:
                task.cancel()
            return
        self._timer = self._loop.call_later(min(left, max(seconds / 8, 0.001)), self._look)


class Direction:
    """One way of a relay: from *source* to *target*, and their sockets where both may be spliced
    between."""

    def __init__(self, source: Stream, target: Stream, came: End | None, goes: End | None) -> None:
        self.source = source
        self.target = target
        self.count = 0
        # Whether it is over, and who was lost where somebody was: "source" or "target".
        self.is_over = False
        self.lost: str | None = None
        self.other: Direction | None = None
        self._ends = None if came is None or goes is None else (came, goes)

    def poke(self) -> None:
        """Have what waits for a socket look again."""
        if self._ends is not None:
            for end in self._ends:
                end.notice(splice.EVERYTHING)

    async def copy(self) -> None:
        """Pass on what comes, up to the end of input or the loss of one of both."""
        try:
            await self._copy_all()
        finally:
            self.is_over = True

    async def _copy_all(self) -> None:
        source = self.source
        full = 0
        while True:
            try:
                data = await source.read(CHUNK_BYTES)
            except OSError as error:
                if isinstance(error, StreamTimeout):
                    raise
                self.lost = "source"
                return
            try:
                if not data:
                    if self.other is not None and self.other.lost == "target":
                        # Splicing was told of the loss, which the system tells once: a receive
                        # sees an end.
                        self.lost = "source"
                        return
                    await self.target.flush()
                    if self.target.can_write_eof() and not self.target.closing:
                        self.target.write_eof()
                    return
                await self._deliver(data)
                full = full + 1 if len(data) >= FULL_BYTES else 0
                if full >= FULL_RECEIVES and self._may_splice():
                    full = 0
                    await self._splice()
            except splice.SourceLost:
                self.lost = "source"
                return
            except OSError as error:
                if isinstance(error, StreamTimeout):
                    raise
                self.lost = "target"
                return

    async def _deliver(self, data: bytes) -> None:
        """Write *data*, or put it back."""
        try:
            await self.target.write(data)
        except BaseException:
            self.source.unread(data)
            raise
        self.count += len(data)

    def _counted(self, size: int) -> None:
        self.count += size

    # ---- splicing

    def _may_splice(self) -> bool:
        # A read that waits is what a read_timeout bounds.
        return self._ends is not None and self.source.read_timeout is None

    async def _splice(self) -> None:
        """Splice as long as it pays; do nothing where the system gives no pipe."""
        shared = splice.join()
        if shared is None or self._ends is None:
            return
        came, goes = self._ends
        try:
            pipe = shared.pipe()
            if pipe is None:
                self._ends = None
                return
            try:
                came.transport.pause_reading()
                await self._empty_buffer(came)
                await self._splice_through(shared, pipe, came, goes)
            finally:
                shared.give_back(pipe)
                came.transport.resume_reading()
        finally:
            splice.leave(shared)

    async def _empty_buffer(self, came: End) -> None:
        """Pass on what the reader has, while nothing is received."""
        while data := self._taken():
            came.transport.pause_reading()  # taking may have resumed it
            await self._deliver(data)

    def _taken(self) -> bytes:
        """Return what the reader has. Raises: SourceLost, as an OSError here is the target's."""
        try:
            return self.source.read_nowait()
        except OSError as error:
            raise splice.SourceLost from error

    async def _splice_through(self, shared: Splices, pipe: Pipe, came: End, goes: End) -> None:
        await passing.hold(self.target)
        # What closes or breaks the connection wakes a read, and no event of its socket.
        read = asyncio.ensure_future(self.source.peek(1))
        read.add_done_callback(lambda done: came.notice(splice.EVERYTHING))
        rest = b""
        try:
            if came.transport.is_closing() or goes.transport.is_closing():
                return  # its number may be another's: buffers can tell what it was
            shared.watch(came)
            shared.watch(goes)
            try:
                await splice.pump(came, goes, pipe, self._counted)
                if pipe.held:
                    rest = pipe.take()
            except OSError as error:
                if not isinstance(error, StreamTimeout):
                    self.lost = "target"  # at once: the other direction may run before this ends
                raise
            finally:
                shared.unwatch(came)
                shared.unwatch(goes)
                if pipe.held:
                    self.source.unread(pipe.take())
        finally:
            passing.release(self.target)
            try:
                await end_read(read)
            except asyncio.CancelledError:
                if rest:
                    self.source.unread(rest)
                raise
        if rest:
            await self._deliver(rest)


async def end_read(read: asyncio.Future[bytes]) -> None:
    """End *read*, which takes nothing. Cancellation: after that."""
    read.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not read.done():
        try:
            await asyncio.wait([read])
        except asyncio.CancelledError as error:
            cancelled = error
    if not read.cancelled():
        read.exception()  # of a connection that broke: the next read says so
    if cancelled is not None:
        raise cancelled


def end_of(stream: Any) -> End | None:
    """Return what may be spliced of *stream*, or None."""
    transport = passing.plain_transport(stream)
    return None if transport is None else End(stream, transport)
