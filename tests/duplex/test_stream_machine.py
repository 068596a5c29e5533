"""Stream beside a model of plain bytes: any mix of reads, writes, timeouts, cancellations and ends;
no byte is lost, invented or moved.

One stream writes and the other reads, over a real pair of sockets. The model is ``pending``: the
bytes that one has accepted and the other has not read. After each rule the loop turns until all has
come that can come, and results, errors and counts are compared with the model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from typing import Any

import pytest
from conftest import LOOP_KINDS, new_loop, open_descriptors
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.duplex import stream_to
from support.properties import SHRINKING_S, examples
from support.reader_model import Model
from support.wires import turns

import headrace

pytestmark = pytest.mark.timeout(SHRINKING_S)

# Enough for a wake, a turn for the others, and the end of a scope.
SETTLE_TURNS = 4
# How long everything that was accepted may take to come, in seconds.
PATIENCE_S = 5.0
# What fills the sockets and the buffers of both streams.
FLOOD_BYTES = 150_000
SHORT = 0.001


# ---- reads


@dataclasses.dataclass(frozen=True)
class Read:
    """One read: the method, its arguments, and how it is bounded: not, by ``timeout=``, or by a
    deadline; of *seconds*."""

    name: str
    arguments: tuple = ()
    limit: int | None = None
    bound: str | None = None
    seconds: float = SHORT

    async def on(self, stream: headrace.Stream, into: bytearray) -> Any:
        options: dict[str, Any] = {} if self.limit is None else {"limit": self.limit}
        arguments = (into,) if self.name == "read_into" else self.arguments
        if self.bound == "timeout":
            options["timeout"] = self.seconds
        method = getattr(stream, self.name)
        if self.bound == "deadline":
            with stream.deadline(self.seconds):
                return await method(*arguments, **options)
        return await method(*arguments, **options)


@dataclasses.dataclass
class Outcome:
    """What a read does of what is buffered: it waits, or takes bytes and returns a value, or raises
    an error of a class, perhaps with attributes."""

    taken: int = 0
    value: object = None
    error: type[BaseException] | None = None
    attributes: dict = dataclasses.field(default_factory=dict)
    waits: bool = False


WAITS = Outcome(waits=True)


def outcome(read: Read, buffered: bytes, over: str | None, limit: int) -> Outcome:
    """Return what *read* does where *buffered* is there and the input has ended as *over* says:
    "eof", "lost" or not."""
    given = limit if read.limit is None else read.limit
    size = len(buffered)

    def take(count: int) -> Outcome:
        return Outcome(count, buffered[:count])

    def for_more(**at_the_end: Any) -> Outcome:
        if over == "lost":
            return Outcome(error=OSError)
        return Outcome(**at_the_end) if over == "eof" else WAITS

    def overrun(consumed: int) -> Outcome:
        return Outcome(error=asyncio.LimitOverrunError, attributes={"consumed": consumed})

    if read.name == "read":
        n = read.arguments[0]
        return take(min(n, size)) if size or n == 0 else for_more(value=b"")
    if read.name == "read_into":
        n = min(read.arguments[0], size)
        return Outcome(n, n) if n or read.arguments[0] == 0 else for_more(value=0)
    if read.name == "peek":
        n = read.arguments[0]
        if n > limit:
            return Outcome(error=ValueError)
        return Outcome(0, buffered[:n]) if size >= n else for_more(value=buffered)
    if read.name == "skip":
        n = read.arguments[0]
        if size >= n:
            return Outcome(n, n)
        more = for_more(error=asyncio.IncompleteReadError)
        if not more.waits:
            more.taken = size
            more.attributes = {"transferred": size}
        return more
    if read.name == "readexactly":
        n = read.arguments[0]
        if size >= n:
            return take(n)
        return for_more(
            taken=size,
            error=asyncio.IncompleteReadError,
            attributes={"partial": buffered, "expected": n},
        )
    if read.name == "read_all":
        if read.limit is not None and size > read.limit:
            return overrun(size)
        return for_more(taken=size, value=buffered)
    if read.name == "readuntil":
        (separator,) = read.arguments
        wanted = [separator] if isinstance(separator, bytes) else list(separator)
        found = Model(given, buffered, eof=over == "eof").readuntil(wanted)
        if found.waits:
            return for_more()
        return Outcome(
            found.taken,
            found.value,
            None if found.error is None else type(found.error),
            {} if found.error is None else vars(found.error),
        )
    # A line is a search too, but what is left at the end is a line, and nothing is dropped.
    before = buffered.find(b"\n")
    if before > given or (before < 0 and size > given):
        return overrun(before if before >= 0 else size)
    return take(before + 1) if before >= 0 else for_more(taken=size, value=buffered)


def check(expected: Outcome, value: Any, error: BaseException | None) -> None:
    """Compare what a read did with what it should have done."""
    if expected.error is None:
        assert error is None, repr(error)
        assert value == expected.value
        assert type(value) is type(expected.value)
        return
    assert isinstance(error, expected.error), (repr(error), value)
    assert not isinstance(error, headrace.StreamTimeout)
    for name, each in expected.attributes.items():
        assert getattr(error, name) == each


sizes = st.one_of(st.integers(0, 12), st.integers(0, 80))
separator = st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=3).map(bytes)
limits = st.one_of(st.none(), st.integers(0, 12), st.integers(0, 80))
with_sizes = st.builds(
    Read,
    st.sampled_from(["read", "readexactly", "peek", "skip", "read_into"]),
    st.tuples(sizes),
)
searches = st.builds(
    Read,
    st.just("readuntil"),
    st.tuples(st.one_of(separator, st.lists(separator, min_size=1, max_size=3).map(tuple))),
    limits,
)
lines = st.builds(Read, st.just("readline"), st.just(()), limits)
# The end of input is far, so it comes seldom.
all_reads = st.builds(Read, st.just("read_all"), st.just(()), limits)
reads = st.one_of(*[with_sizes] * 4, *[searches] * 2, *[lines] * 2, all_reads)
# Few letters, so that a separator is often there, in two pieces, or there twice.
piece = st.lists(st.sampled_from(b"ab\n"), max_size=12).map(bytes)
pieces = st.lists(
    st.builds(
        lambda kind, data: kind(data), st.sampled_from([bytes, bytearray, memoryview]), piece
    ),
    max_size=4,
)


# Which rules can be must not depend on the system's buffers, or Hypothesis could not repeat what it
# has found: so a rule that has nothing to do returns, and only what is of the model alone is a
# precondition.


class StreamMachine(RuleBasedStateMachine):
    """A stream that reads, one that writes, and who waits at either.

    ``accepted`` counts what was accepted, ``put_back`` what was put back, and ``pending`` is what
    of both was not read."""

    way = "portable"
    kind = "asyncio"

    def __init__(self):
        super().__init__()
        self.loop = new_loop(self.kind)
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.exits = contextlib.AsyncExitStack()
        self.pending = b""
        self.taken = 0
        self.accepted = 0
        # Of the one that writes: what is gathered, who waits there (in order), how it has ended.
        self.corks = []
        self.writing = []
        self.end = None
        # Of the one that reads: who waits.
        self.task = None
        self.read = None
        self.into = bytearray()

    @initialize(limit=st.one_of(st.integers(1, 12), st.integers(1, 70)), family=st.booleans())
    def connect(self, limit, family):
        self.limit = limit
        self.over_tcp = family
        self.run(self.make)

    async def make(self):
        if self.over_tcp:
            reads, peer = await self.exits.enter_async_context(
                stream_to(self.way, limit=self.limit)
            )
            sock = peer.dup()
        else:
            ours, sock = socket.socketpair()
            reads = await headrace.connect(sock=ours, limit=self.limit, way=self.way)
        # So that a flood soon waits.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.writer = await headrace.connect(sock=sock, way=self.way)
        if self.over_tcp:
            peer.close()
        self.reader = reads

    def run(self, function, *arguments):
        """Run a coroutine function on the loop, and then the loop until all has come that can
        come."""

        async def main():
            result = await function(*arguments)
            if hasattr(self, "reader"):
                await self.settle()
            return result

        result = self.loop.run_until_complete(asyncio.wait_for(main(), 4 * PATIENCE_S))
        if hasattr(self, "reader"):
            # The loop has turned once more than settle() saw.
            self.note_writes()
            self.note_read()
        return result

    # ---- what follows from a rule

    async def settle(self):
        """Let the loop turn until all has come that can come; compare who waits with the model."""
        until = self.loop.time() + PATIENCE_S
        quiet = 0
        while quiet < SETTLE_TURNS:
            await asyncio.sleep(
                0 if quiet or self.loop.time() < until - PATIENCE_S + 0.01 else SHORT
            )
            waited = len(self.writing)
            self.note_writes()
            self.note_read()
            # Those who wait to write wake one another, each in a turn of its own.
            still = len(self.writing) == waited
            quiet = quiet + 1 if still and self.all_has_come() else 0
            assert self.loop.time() < until, (
                f"{self.reader} of {self.pending[:100]!r}: no more came"
            )
        if self.task is not None:
            expected = self.outcome()
            assert expected.waits, (self.read, expected)
        for _, data, kind in self.writing[:1]:
            assert self.writer.unsent, (kind, data[:100])

    def outcome(self):
        """Return what the read that waits does now."""
        return outcome(self.read, self.arrived, self.over, self.limit)

    @property
    def arrived(self):
        """What of ``pending`` has come to the one that reads."""
        return self.pending[: self.reader.buffered]

    @property
    def over(self):
        """How the input of the one that reads has ended, or None."""
        if self.reader.reader._eof:
            return "eof"
        return None if self.reader.reader.exception() is None else "lost"

    @property
    def gathered(self):
        """How much was accepted that is kept for the end of corked()."""
        if not self.corks:
            return 0
        return self.writer.unsent - self.writer.writer.transport.get_write_buffer_size()

    def all_has_come(self):
        """Tell whether nothing more can come to the one that reads."""
        if self.over is not None:
            return True
        if not self.reader.writer.transport.is_reading():
            return True
        if self.end == "aborted":
            return False  # what was not sent is gone, but an end has to come
        return self.end is None and self.reader.buffered == len(self.pending) - self.gathered

    def note_writes(self):
        """Move what was accepted into the model, in the order of the calls."""
        while self.writing and self.writing[0][0].done():
            task, data, kind = self.writing.pop(0)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.accept(data)
                continue
            if isinstance(error, headrace.WriteTimeout):
                assert kind == "bounded"
            else:
                assert self.end is not None, error
                expected = (RuntimeError, OSError) if self.end == "eof" else OSError
                assert isinstance(error, expected), error
        # Those behind it may have failed, but none has gone past it.
        for task, _, kind in self.writing:
            if task.done() and not task.cancelled():
                assert task.exception() is not None, kind

    def accept(self, data):
        self.accepted += len(data)
        self.pending += data

    def take(self, size):
        self.taken += size
        self.pending = self.pending[size:]

    def note_read(self):
        """Take from the model what the read took that waited, if it is over."""
        if self.task is None:
            return
        if self.read.name == "skip":  # it takes while it waits
            gone = self.reader.bytes_read - self.taken
            self.skipped += gone
            self.take(gone)
        if self.task.done():
            task, self.task = self.task, None
            self.finish(task)

    def finish(self, task):
        """Compare what a read did that had to wait, with what has come, now or later: it may have
        come in pieces."""
        read = self.read
        if task.cancelled():
            assert self.cancelled
            return
        error, value = task.exception(), None
        if error is None:
            value = task.result()
        note(f"{read} of {self.pending[:100]!r}: {value!r} {error!r}")
        if isinstance(error, headrace.StreamTimeout):
            # A timeout may have come first, and a byte in the same turn: nothing is taken.
            by_deadline = isinstance(error, headrace.DeadlineExceeded)
            assert (
                read.bound == "deadline" if by_deadline else self.timed or read.bound == "timeout"
            )
            if read.name == "skip":
                assert error.transferred == self.skipped
            return
        if read.name == "skip":
            if error is None:
                assert value == read.arguments[0] == self.skipped
            else:
                assert self.over is not None
                assert error.transferred == self.skipped < read.arguments[0]
            return
        if read.name in ("read", "read_into") and error is None:
            size = value if read.name == "read_into" else len(value)
            assert size <= read.arguments[0]
            assert size or self.over == "eof"
            got = bytes(self.into[:size]) if read.name == "read_into" else value
            assert got == self.pending[:size]
            self.take(size)
            return
        # All that has come includes what the read has taken.
        expected = outcome(read, self.pending[: self.came(read)], self.over, self.limit)
        if isinstance(error, asyncio.LimitOverrunError):
            # How much had come then is not known.
            assert expected.error is asyncio.LimitOverrunError
            assert error.consumed <= len(self.pending)
            return
        check(expected, value, error)
        self.take(expected.taken)

    def came(self, read):
        """Return how much of ``pending`` has come, with what *read* has taken."""
        return self.reader.buffered + self.reader.bytes_read - self.taken

    # ---- reads

    def begin(self, read):
        """Start a task that reads, on the loop."""
        self.read = read
        self.skipped = 0
        self.cancelled = self.timed = False
        self.into = bytearray(b"?" * read.arguments[0] if read.name == "read_into" else b"")
        self.task = self.loop.create_task(read.on(self.reader, self.into))

    @rule(
        read=reads,
        bound=st.sampled_from([None, None, "timeout", "deadline"]),
        seconds=st.sampled_from([0, SHORT, 60.0]),
    )
    def start(self, read, bound, seconds):
        """A task reads what is there, or waits; for no time, or a short one, if it is bounded."""
        if self.task is not None:
            return
        if bound is not None:
            read = dataclasses.replace(read, bound=bound, seconds=seconds)
        expected = outcome(read, self.arrived, self.over, self.limit)
        note(f"{read} of {self.arrived[:100]!r}: {expected}")

        was_reading = self.reader.writer.transport.is_reading()

        async def starting():
            self.begin(read)
            if expected.waits and bound is not None and read.seconds <= SHORT:
                task = self.task
                await asyncio.wait([task], timeout=PATIENCE_S)
                # Where receiving was paused the read has resumed it, and something may have come.
                if was_reading:
                    assert isinstance(task.exception(), headrace.StreamTimeout)
                return
            if expected.waits:
                return
            task, self.task = self.task, None
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.done()
            error = task.exception()
            value = None if error is not None else task.result()
            check(expected, value, error)
            if read.name == "read_into":
                size = expected.taken
                assert self.into == self.pending[:size] + b"?" * (read.arguments[0] - size)
            self.take(expected.taken)

        self.run(starting)

    @rule(some=piece, first=st.booleans(), after=st.integers(0, 3))
    def cancel(self, some, first, after):
        """The read that waits is cancelled, perhaps when something has come for it, or right before
        that."""
        if self.task is None:
            return

        async def cancelling():
            if some and not first:
                self.write_at_once(some)
                await turns(after)
            self.cancelled = self.task.cancel()
            if some and first:
                await turns(after)
                self.write_at_once(some)
            task, read = self.task, self.read
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.done()
            if task.cancelled() and read.name == "skip":
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                self.note_read()

        self.run(cancelling)
        assert self.task is None

    @rule(seconds=st.sampled_from([0.0, SHORT]), some=piece)
    def time_is_over(self, seconds, some):
        """The stream has a read_timeout from now on, and something may come at the same time."""
        if self.task is None:
            return

        async def expiring():
            self.timed = True
            self.reader.read_timeout = seconds
            self.write_at_once(some)
            task = self.task
            # Bytes that are too few begin the time anew, and more than these do not come.
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.done()
            self.reader.read_timeout = None

        self.run(expiring)
        assert self.task is None

    @rule(n=sizes)
    def read_meanwhile(self, n):
        """While one task waits another cannot, and takes nothing."""
        if self.task is not None and not (self.reader.buffered or n == 0 or self.over):
            with pytest.raises(RuntimeError, match="already waiting"):
                self.run(self.reader.read, n)

    @rule(n=st.one_of(st.just(-1), sizes))
    def read_nowait(self, n):
        """What has come is taken without waiting, whoever waits."""
        expected = self.arrived if n < 0 else self.arrived[:n]

        async def reading():
            assert self.reader.read_nowait(n) == expected
            self.take(len(expected))

        self.run(reading)

    @rule(some=piece)
    def unread(self, some):
        """What is put back is read next, also by who waits."""

        async def putting():
            self.reader.unread(some)
            self.taken -= len(some)
            self.pending = some + self.pending

        self.run(putting)

    # ---- writes

    def write_at_once(self, data):
        """Write without waiting, if it may be written at all."""
        if self.end is None:
            self.writer.write_nowait(data)
            self.accept(data)

    @rule(some=pieces)
    def write_nowait(self, some):
        """All pieces are accepted, or none."""

        async def writing():
            if self.end is None:
                self.writer.write_nowait(*some)
                self.accept(b"".join(some))
            elif some:
                with pytest.raises(RuntimeError if self.end == "eof" else ConnectionError):
                    self.writer.write_nowait(*some)

        self.run(writing)

    @rule(some=pieces, seconds=st.sampled_from([None, None, None, 0, SHORT]))
    def write(self, some, seconds):
        """All pieces are accepted, now or when there is room, or none."""
        if len(self.writing) > 3:
            return

        async def writing():
            task = self.loop.create_task(self.writer.write(*some, timeout=seconds))
            self.writing.append((task, b"".join(some), "plain" if seconds is None else "bounded"))
            if seconds is not None:
                await asyncio.wait([task], timeout=PATIENCE_S)
                assert task.done()

        self.run(writing)

    @precondition(lambda self: self.end is None)
    @rule(letter=st.sampled_from([b"a", b"b", b"ab\n"]))
    def flood(self, letter):
        """So much that what is written next has to wait."""
        if len(self.pending) > 2 * FLOOD_BYTES:
            return

        async def flooding():
            self.write_at_once(letter * (FLOOD_BYTES // len(letter)))

        self.run(flooding)

    @rule()
    def read_the_flood(self):
        """Most of what waits is read, and so there is room."""
        if self.task is not None or len(self.pending) < 1000:
            return

        async def reading():
            while len(self.pending) - self.gathered > 100:
                data = await self.reader.read(50_000)
                self.note_writes()
                if not data:
                    break
                assert data == self.pending[: len(data)]
                self.take(len(data))

        with (
            contextlib.suppress(OSError) if self.over_tcp and self.end else contextlib.nullcontext()
        ):
            self.run(reading)

    @rule()
    def flush(self):
        """It waits until the system has everything, and then others may write."""
        if len(self.writing) > 3:
            return

        async def flushing():
            self.writing.append((self.loop.create_task(self.writer.flush()), b"", "flush"))

        self.run(flushing)

    @rule(which=st.integers(0, 3))
    def cancel_a_write(self, which):
        """A write that waits and is cancelled was not accepted."""
        if not self.writing:
            return

        async def cancelling():
            self.writing[which % len(self.writing)][0].cancel()

        self.run(cancelling)

    @rule()
    def cork(self):
        """What is written is gathered from now on."""

        async def entering():
            block = self.writer.corked()
            block.__enter__()
            self.corks.append(block)

        self.run(entering)

    @precondition(lambda self: self.corks)
    @rule(by_exception=st.booleans())
    def uncork(self, by_exception):
        """What was gathered is sent, also where the block ends by an exception."""

        async def leaving():
            block = self.corks.pop()
            error = ZeroDivisionError() if by_exception else None
            assert not block.__exit__(error and ZeroDivisionError, error, None)

        self.run(leaving)

    # ---- the end, which comes seldom: little can follow it

    @precondition(lambda self: self.end is None)
    @rule(how=st.sampled_from(["eof", "close", "abort", *[None] * 9]))
    def finish_writing(self, how):
        async def ending():
            if how == "eof":
                self.end = "eof"
                self.writer.write_eof()
            elif how == "close":
                self.end = "closed"
                self.writer.close()
            elif how == "abort":
                self.end = "aborted"
                self.writer.abort()

        if how is not None:
            self.run(ending)

    # ---- what is always so

    @invariant()
    def counts_are_true(self):
        if not hasattr(self, "reader"):
            return
        assert self.reader.bytes_read == self.taken
        assert self.writer.bytes_written == self.accepted
        assert self.reader.buffered <= len(self.pending)
        assert self.reader.at_eof() == (self.over == "eof" and not self.reader.buffered)
        assert self.writer.closing or self.end in (None, "eof")

    @invariant()
    def nothing_is_lost_or_invented(self):
        """What was sent has come, unless receiving is paused. (What it is the reads see.)"""
        if not hasattr(self, "reader"):
            return
        reader = self.reader
        if reader.writer.transport.is_reading() and self.over is None:
            assert len(self.pending) - self.gathered == reader.buffered
        if self.over == "eof" and self.end in ("eof", "closed"):
            assert len(self.pending) == reader.buffered

    @invariant()
    def is_not_paused_in_vain(self):
        if hasattr(self, "reader") and not self.reader.writer.transport.is_reading():
            assert self.reader.buffered > self.limit or self.over is not None

    def teardown(self):
        try:
            if hasattr(self, "reader"):
                self.run(self.rest)
            assert self.errors == []
        finally:
            self.loop.close()

    async def rest(self):
        """What is left is read to its end, and both are closed."""
        for task in [each[0] for each in self.writing] + [self.task]:
            if task is not None:
                self.cancelled = True
                task.cancel()
                await asyncio.wait([task])
        self.note_writes()
        self.note_read()
        while self.corks:
            self.corks.pop().__exit__(None, None, None)
        if self.end is None:
            self.writer.write_eof()
        rest, error = bytearray(), None
        try:
            while data := await self.reader.read(timeout=PATIENCE_S):
                rest += data
        except ConnectionError as broken:
            error = broken
        if self.end == "aborted":
            assert self.pending.startswith(rest)
            assert (error is None) != self.over_tcp or self.reader.reader._eof
        else:
            assert rest == self.pending
            assert error is None
        self.taken += len(rest)
        self.pending = b""
        self.end = "aborted"
        for stream in (self.reader, self.writer):
            stream.abort()
            with contextlib.suppress(OSError):
                await stream.writer.wait_closed()
        await self.exits.aclose()
        await turns(2)


@pytest.mark.parametrize("kind", [each for each in LOOP_KINDS if each in ("asyncio", "uvloop")])
def test_any_order_of_everything(way, kind):
    """Whatever is read, written, cancelled, timed and ended, in any order: every call does what the
    model says, and every byte is accounted for."""
    before = open_descriptors()
    machine = type("StreamMachine", (StreamMachine,), {"way": way, "kind": kind})
    run_state_machine_as_test(machine, settings=examples(50, steps=50))
    assert open_descriptors() == before
