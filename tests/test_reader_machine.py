"""StreamReader beside a model of plain bytes: any chunking, any cancellation, any limit, any end; no byte is lost, invented or moved.

The model is the specification in short: outcome() says what a read does with what is buffered. The machine lets tasks await reads on
a real loop, feeds them in every way there is, and after every step compares results, errors and what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import types
from typing import Any

import pytest
from conftest import OURS, STOCK, new_loop
from hypothesis import given, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from properties import examples
from wires import RecordingTransport, from_callback, turns

from headrace.streams.protocol import BufferedStreamProtocol, StreamReaderProtocol

# Enough for a wake, a turn for the others, and the end of a scope.
SETTLE_TURNS = 8

FOUND = "Separator is found, but chunk is longer than limit"
NOT_FOUND = "Separator is not found, and chunk exceed the limit"


class Broken(ConnectionResetError):
    """What broke a connection of these tests."""


# ---- reads


@dataclasses.dataclass(frozen=True)
class Read:
    """One read: the name of the method and its argument."""

    name: str
    argument: Any = None

    def start(self, reader):
        method = getattr(reader, self.name)
        return method() if self.argument is None else method(self.argument)

    @property
    def waits_in(self):
        """What asyncio calls the method where two wait at once."""
        return "readuntil" if self.name in ("readline", "__anext__") else self.name


# Few letters, so that a separator is often there, in two pieces, or there twice.
piece = st.lists(st.sampled_from(b"ab\n"), max_size=9).map(bytes)
separator = st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=3).map(bytes)
separators = st.lists(separator, min_size=1, max_size=3).map(tuple)
mistaken = st.sampled_from([b"", (), (b"a", b""), bytearray()])

single_reads = st.one_of(
    st.builds(Read, st.just("read"), st.integers(-2, 12)),
    st.builds(Read, st.just("read")),
    st.builds(Read, st.just("readexactly"), st.one_of(st.integers(-1, 12), st.integers(0, 80))),
    st.builds(Read, st.just("readuntil"), st.one_of(separator, separator.map(bytearray), separator.map(memoryview))),
    st.builds(Read, st.just("readuntil")),
    st.builds(Read, st.just("readline")),
    st.builds(Read, st.just("__anext__")),
)
reads = st.one_of(
    single_reads,
    st.builds(Read, st.just("readuntil"), separators),
    st.builds(Read, st.just("readuntil"), mistaken),
)


# ---- the model


@dataclasses.dataclass
class Outcome:
    """What a read does: it waits, or takes bytes and returns a value or raises an error."""

    taken: int = 0
    value: object = None
    error: BaseException | None = None
    waits: bool = False


WAITS = Outcome(waits=True)


@dataclasses.dataclass
class Model:
    """What a reader should hold: the bytes, and how the stream ended."""

    limit: int
    buffered: bytes = b""
    eof: bool = False
    error: BaseException | None = None
    lost: BaseException | None = None

    def outcome(self, read):
        """Return what *read* does now."""
        name, argument = read.name, read.argument
        if name == "readexactly" and argument < 0:
            return Outcome(error=ValueError("readexactly size can not be less than zero"))
        if name == "readuntil":
            wanted = (b"\n",) if argument is None else argument if isinstance(argument, tuple) else (argument,)
            if not wanted:
                return Outcome(error=ValueError("Separator should contain at least one element"))
            if not all(map(len, wanted)):
                return Outcome(error=ValueError("Separator should be at least one-byte string"))
            wanted = [bytes(each) for each in wanted]
        if self.error is not None:
            return Outcome(error=self.error)
        if name == "read":
            return self.read(-1 if argument is None else argument)
        if name == "readexactly":
            return self.readexactly(argument)
        if name == "readuntil":
            return self.readuntil(wanted)
        line = self.readline()
        if name == "__anext__" and line.value == b"":
            return Outcome(error=StopAsyncIteration())
        return line

    def nothing_yet(self):
        """A read that the buffer does not satisfy waits for more, unless no more can come."""
        return WAITS if self.lost is None else Outcome(error=self.lost)

    def take(self, size):
        return Outcome(size, self.buffered[:size])

    def read(self, size):
        if size < 0:
            return self.take(len(self.buffered)) if self.eof else self.nothing_yet()
        if size == 0 or self.buffered or self.eof:
            return self.take(min(size, len(self.buffered)))
        return self.nothing_yet()

    def readexactly(self, size):
        if len(self.buffered) >= size:
            return self.take(size)
        return self.incomplete(size) if self.eof else self.nothing_yet()

    def incomplete(self, expected):
        return Outcome(len(self.buffered), error=asyncio.IncompleteReadError(self.buffered, expected))

    def readuntil(self, wanted):
        # The match that ends first; of those that end there the shortest.
        ends = [(self.buffered.find(each) + len(each), len(each)) for each in wanted if each in self.buffered]
        if ends:
            end, size = min(ends)
            if end - size > self.limit:
                return Outcome(error=asyncio.LimitOverrunError(FOUND, end - size))
            return self.take(end)
        searched = len(self.buffered) + 1 - max(map(len, wanted))
        if searched > self.limit:
            return Outcome(error=asyncio.LimitOverrunError(NOT_FOUND, searched))
        return self.incomplete(None) if self.eof else self.nothing_yet()

    def readline(self):
        found = self.readuntil([b"\n"])
        if isinstance(found.error, asyncio.IncompleteReadError):
            return self.take(found.taken)
        if isinstance(found.error, asyncio.LimitOverrunError):
            line, newline, _ = self.buffered.partition(b"\n")
            return Outcome(len(line) + len(newline), error=ValueError(found.error.args[0]))
        return found


def check(expected, value, error):
    """Compare what a read did with what it should have done."""
    if expected.error is None:
        assert error is None, repr(error)
        assert type(value) is bytes
        assert value == expected.value
        return
    assert type(error) is type(expected.error), repr(error)
    if isinstance(error, (asyncio.IncompleteReadError, asyncio.LimitOverrunError)):
        assert vars(error) == vars(expected.error)
    if isinstance(error, (ValueError, asyncio.LimitOverrunError)):
        # After asyncio's words come the figures.
        assert error.args[0].startswith(expected.error.args[0])
    elif isinstance(error, (KeyError, Broken)):
        assert error is expected.error


async def directly(read, reader):
    return await read.start(reader)


async def in_a_loop(read, reader):
    async for line in reader:
        return line
    raise StopAsyncIteration


async def in_a_scope(read, reader, scopes):
    async with asyncio.timeout(None) as scope:
        scopes.append(scope)
        return await read.start(reader)


def ended(task):
    """Return a finished task's value and error."""
    if task.cancelled():
        return None, asyncio.CancelledError()
    error = task.exception()
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopAsyncIteration):
        error = error.__cause__  # as a coroutine raises it
    return (None, error) if error else (task.result(), None)


# ---- the machine

ways = st.sampled_from(["feed_data", "protocol"])
moves = st.one_of(
    st.tuples(st.just("feed"), ways, piece),
    st.tuples(st.just("feed"), ways, piece),
    st.tuples(st.sampled_from(["cancel", "expire", "eof"])),
    st.tuples(st.sampled_from(["eof_received", "lose", "fail"])),
)


class ReaderMachine(RuleBasedStateMachine):
    """A reader, its model, and at most one task that waits. ``delivered`` is everything that was taken, in order."""

    kind = "asyncio"

    def __init__(self):
        super().__init__()
        self.loop = new_loop(self.kind)
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.steps = self.kind != "debug"  # a debug loop would blame headrace for a slow task
        self.fed = b""
        self.delivered = b""
        self.task = None
        self.read = None
        self.scopes = []

    @initialize(limit=st.one_of(st.integers(1, 8), st.integers(1, 70)), form=st.sampled_from([StreamReaderProtocol, BufferedStreamProtocol]))
    def connect(self, limit, form):
        self.model = Model(limit)
        self.run(self.make, limit, form)

    async def make(self, limit, form):
        loop = asyncio.get_running_loop()
        self.transport = RecordingTransport()
        self.reader = OURS.StreamReader(limit, loop)
        self.protocol = form(self.reader, loop=loop)
        self.protocol._h_receive_bytes = 4  # so that what comes is often more than one receive
        self.protocol.connection_made(self.transport)
        self.other = OURS.StreamReader(limit, loop)

    def run(self, function, *arguments):
        """Run a coroutine function on the loop; give the loop time for everything that follows from it."""

        async def main():
            result = await function(*arguments)
            await turns(SETTLE_TURNS)
            return result

        return self.loop.run_until_complete(main())

    def take(self, expected):
        """Take from the model what a read took."""
        self.delivered += self.model.buffered[: expected.taken]
        self.model.buffered = self.model.buffered[expected.taken :]

    def settle(self):
        """Compare the waiting task with the model: it is done if, and only if, it can be."""
        if self.task is None:
            return
        expected = self.model.outcome(self.read)
        note(f"{self.read} of {self.model}: {expected}")
        assert self.task.done() == (not expected.waits)
        if not expected.waits:
            self.finish(expected)

    def finish(self, expected):
        """The waiting task has to be over, as *expected*."""
        task, self.task = self.task, None
        assert task.done()
        check(expected, *ended(task))
        self.take(expected)

    # ---- reads

    def begin(self, read, how):
        """Start a task that reads, and return it. To be called on the loop."""
        del self.scopes[:]
        self.read = read
        if how == "operation":
            return self.loop.create_task(read.start(self.reader))
        if how == "scope":
            return self.loop.create_task(in_a_scope(read, self.reader, self.scopes))
        if how == "loop" and read.name == "__anext__":
            return self.loop.create_task(in_a_loop(read, self.reader))
        return self.loop.create_task(directly(read, self.reader))

    @precondition(lambda self: self.task is None)
    @rule(read=reads, how=st.sampled_from(["operation", "coroutine", "scope", "loop"]))
    def start(self, read, how):
        async def starting():
            self.task = self.begin(read, how)

        self.run(starting)
        self.settle()

    @precondition(lambda self: self.task is None)
    @rule(read=reads, how=st.sampled_from(["operation", "coroutine"]))
    def start_and_cancel(self, read, how):
        """Cancelled before its first step a read has done nothing."""

        async def starting():
            task = self.begin(read, how)
            assert task.cancel()
            return task

        task = self.run(starting)
        assert task.cancelled()

    @precondition(lambda self: self.task is None)
    @rule(read=reads)
    def cancel_in_the_turn_of_the_others(self, read):
        """A read that gives the loop its turn first, since many were done at once, can be cancelled there; it has taken nothing."""

        async def starting():
            while self.other.read(0).send(None) is not None:
                raise AssertionError
            return None

        async def spend():
            # Until an operation yields; the budget is whole then, and one operation short of nothing 127 later.
            for _ in range(1000):
                operation = self.other.read(0)
                try:
                    operation.send(None)
                except StopIteration:
                    continue
                operation.close()
                break
            for _ in range(128):
                await self.other.read(0)
            task = self.begin(read, "operation")
            await turns(1)
            assert not task.done()
            task.cancel()
            return task

        task = self.run(spend)
        assert task.cancelled()

    @precondition(lambda self: self.task is None)
    @rule(read=reads)
    def wait_for_no_time(self, read):
        """wait_for(read, 0) returns what the read would, or times out; it never does both."""

        async def waiting():
            try:
                return await asyncio.wait_for(read.start(self.reader), 0), None
            except BaseException as error:
                return None, error

        value, error = self.run(waiting)
        if not isinstance(error, TimeoutError):
            expected = self.model.outcome(read)
            check(expected, value, error)
            self.take(expected)

    @rule(read=reads)
    def read_meanwhile(self, read):
        """While one task waits, another is served from the buffer, or told that it cannot wait too."""

        async def reading():
            with contextlib.suppress(StopAsyncIteration):
                try:
                    return await asyncio.wait_for(read.start(self.reader), None), None
                except Exception as error:
                    return None, error

        if self.task is None:
            return
        expected = self.model.outcome(read)
        value, error = self.run(reading)
        if expected.waits:
            assert type(error) is RuntimeError
            assert error.args[0] == f"{read.waits_in}() called while another coroutine is already waiting for incoming data"
        else:
            check(expected, value, error)
            self.take(expected)
        self.settle()

    # ---- what happens from outside

    @rule(moves=st.lists(moves, min_size=1, max_size=4))
    def happen(self, moves):
        """Everything in *moves* happens in one callback of the loop, before any task has its turn."""
        model = self.model
        self.woken = self.cancelled = self.greedy = False
        self.expired = 0
        self.run(from_callback, self.do, [move for move in moves])
        if self.task is None:
            return
        if self.cancelled:
            assert self.task.cancelled()
            self.task = None
        elif self.expired:
            # Bytes that come in the same turn may be first, or not; where nothing came, there was a timeout.
            expected = model.outcome(self.read)
            if not self.task.done() or not isinstance(self.task.exception(), TimeoutError):
                assert not expected.waits
                assert len(moves) > self.expired
                self.finish(expected)
            self.task = None
        else:
            self.settle()

    def do(self, moves):
        for move in moves:
            getattr(self, "do_" + move[0])(*move[1:])

    def do_feed(self, way, data):
        model = self.model
        if model.lost is not None or (way == "protocol" and self.protocol._stream_reader is None):
            return
        if model.eof:
            with pytest.raises(AssertionError, match="feed_data after feed_eof"):
                self.reader.feed_data(b"too late")
            return
        if way == "feed_data":
            self.reader.feed_data(data)
            self.note_arrival(data, False)
        elif isinstance(self.protocol, BufferedStreamProtocol):
            while data:
                view = self.protocol.get_buffer(-1)
                received, data = data[: len(view)], data[len(view) :]
                view[: len(received)] = received
                self.protocol.buffer_updated(len(received))
                view[:] = b"?" * len(view)  # another connection receives
                self.note_arrival(received, True)
        elif data:
            self.protocol.data_received(data)
            self.note_arrival(data, True)

    def note_arrival(self, data, stepping):
        """Tell the model of *data*; a task that they satisfy is stepped there and then, or at least woken for good."""
        self.fed += data
        self.model.buffered += data
        if self.task is None or self.woken or self.cancelled or not data:
            return
        expected = self.model.outcome(self.read)
        if not expected.waits:
            self.woken = True
            if stepping and self.steps:
                self.finish(expected)
        elif len(self.model.buffered) > 2 * self.model.limit and self.read.name == "read":
            # read(-1) is woken once so that a flood gives others their turn.
            self.woken = self.greedy = True

    def do_cancel(self):
        if self.task is not None and not self.task.done():
            assert self.task.cancel()
            self.cancelled = True

    def do_expire(self):
        if self.task is not None and self.scopes and not self.cancelled and not self.scopes[0].expired():
            self.scopes[0].reschedule(self.loop.time())
            self.expired = 1

    def do_eof(self):
        if self.model.lost is None:
            self.reader.feed_eof()
            self.model.eof = True
            self.woken = True

    def do_eof_received(self):
        if self.protocol._stream_reader is not None:
            assert self.protocol.eof_received()
            self.model.eof = True
            self.woken = True

    def do_lose(self):
        """The connection breaks: what had come before is still good."""
        if self.model.error is None and self.protocol._stream_reader is not None:
            self.model.lost = Broken("why")
            self.protocol.connection_lost(self.model.lost)
            self.woken = True

    def do_fail(self):
        """The program itself says that the stream is broken: nothing is read any more."""
        if self.model.lost is None and len(self.model.buffered) % 3 == 0:  # now and then: little can follow
            self.model.error = KeyError("why")
            self.reader.set_exception(self.model.error)
            self.woken = True

    @rule()
    def close(self):
        """The connection ends: as EOF does."""
        if self.protocol._stream_reader is not None and self.model.error is None and len(self.model.buffered) % 3 == 0:

            async def closing():
                await from_callback(self.protocol.connection_lost, None)

            self.run(closing)
            self.model.eof = True
            self.settle()

    @rule(data=piece)
    def look_into_the_buffer(self, data):
        """The private _buffer is the bytes that are left; what a program puts there, it reads."""
        buffer = self.reader._buffer
        assert buffer == self.model.buffered
        if self.task is None and not self.model.eof:
            buffer += data
            self.model.buffered += data
            self.fed += data

    # ---- what is always so

    @invariant()
    def nothing_is_lost_or_invented(self):
        if hasattr(self, "reader"):
            assert self.delivered + self.model.buffered == self.fed

    @invariant()
    def says_so(self):
        if hasattr(self, "reader"):
            size = len(self.model.buffered)
            assert (f" {size} bytes" in repr(self.reader)) == (size > 0)
            assert self.reader.at_eof() == (self.model.eof and not size)
            assert self.reader.exception() is (self.model.lost or self.model.error)
            assert (self.reader._waiter is None) == (self.task is None)

    @invariant()
    def is_not_paused_in_vain(self):
        if hasattr(self, "reader"):
            calls = self.transport.calls
            paused = bool(calls) and calls[-1] == "pause_reading"
            assert calls == ["pause_reading", "resume_reading"] * (len(calls) // 2) + ["pause_reading"] * paused
            if paused:
                assert self.task is None
                assert len(self.model.buffered) > self.model.limit or self.model.eof

    def teardown(self):
        try:
            if hasattr(self, "reader"):
                self.run(self.rest)
                assert self.reader._buffer == self.model.buffered
            assert self.errors == []
        finally:
            self.loop.close()

    async def rest(self):
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            assert self.task.cancelled()
        self.transport.closing = True


@pytest.mark.parametrize(("kind", "count"), [("asyncio", 150), ("debug", 40), ("uvloop", 40)])
def test_any_order_of_everything(kind, count):
    """Whatever is fed, read, cancelled and ended, in any order: every read does what the model says, and every byte is accounted for."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    machine = type("ReaderMachine", (ReaderMachine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=examples(count, steps=30))


# ---- asyncio's reader beside ours

scripts = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), piece),
        st.tuples(st.just("feed"), piece),
        st.tuples(st.just("read"), single_reads if sys.version_info < (3, 13) else reads),
        st.tuples(st.just("read"), single_reads if sys.version_info < (3, 13) else reads),
        st.tuples(st.sampled_from(["eof", "fail"])),
    ),
    max_size=25,
)


async def play(streams: types.SimpleNamespace, limit: int, script: list[tuple[Any, ...]]) -> list[object]:
    """Do what *script* says with a reader of *streams*, and return everything that can be seen from outside."""
    reader = streams.StreamReader(limit, asyncio.get_running_loop())
    seen: list[object] = []
    task = None
    eof = False
    for step, *arguments in script:
        if step == "feed" and not eof:
            reader.feed_data(*arguments)
        elif step == "eof":
            reader.feed_eof()
            eof = True
        elif step == "fail" and len(reader._buffer) % 3 == 0:
            reader.set_exception(KeyError("why"))
        elif step == "read" and task is None:
            task = asyncio.ensure_future(directly(arguments[0], reader))
        await turns(SETTLE_TURNS)
        if task is not None and task.done():
            seen.append(described(*ended(task)))
            task = None
        seen.append((task is None, bytes(reader._buffer), reader.at_eof(), repr(reader.exception())))
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
        seen.append(bytes(reader._buffer))
    return seen


def described(value, error):
    """Return what is the same in asyncio and headrace of a read's result: not the figures behind the words of an error."""
    if error is None:
        return type(value), value
    words = error.args[0].partition(" (")[0] if error.args and isinstance(error.args[0], str) else None
    context = type(error.__context__) if isinstance(error, ValueError) else None
    return type(error), words, vars(error), context


@examples(250)
@given(limit=st.integers(1, 30), script=scripts)
def test_the_same_as_asyncio(limit, script):
    """The same script of feeds and reads gives the same results, errors and rests with asyncio's reader and with ours."""
    if any(step == "read" and step_is_read_all(arguments[0]) for step, *arguments in script):
        # asyncio's read(-1) takes what there is while it waits; ours leaves it in the buffer, so that a cancellation loses nothing.
        script = [step for step in script if not (step[0] == "read" and step_is_read_all(step[1]))]
    with asyncio.Runner(loop_factory=lambda: new_loop("asyncio")) as runner:
        stock = runner.run(play(STOCK, limit, script))
        ours = runner.run(play(OURS, limit, script))
    assert ours == stock


def step_is_read_all(read):
    return read.name == "read" and (read.argument is None or read.argument < 0)
