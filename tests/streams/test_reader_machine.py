"""StreamReader beside a model of plain bytes: any chunking, any cancellation, any limit, any end;
no byte is lost, invented or moved.

The machine lets tasks await reads on a real loop, and feeds them in every way. After every step it
compares results, errors and the rest with the model."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from conftest import OURS, new_loop
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
from support.properties import SHRINKING_S, examples
from support.reader_model import Broken, Model, check, directly, ended, piece, reads
from support.wires import RecordingTransport, from_callback, turns

from headrace._streams.reader_protocol import BufferedStreamProtocol, StreamReaderProtocol

pytestmark = pytest.mark.timeout(SHRINKING_S)

# How many operations are done at once before others get a turn: BUDGET in scheduler.py.
BUDGET = 128
# Enough for a wake, a turn for the others, and the end of a scope.
SETTLE_TURNS = 8


def done_at_once(operation):
    """Drive an operation by hand; return whether it was done, and close it where it was not."""
    try:
        operation.send(None)
    except StopIteration:
        return True
    operation.close()
    return False


async def in_a_loop(read, reader):
    async for line in reader:
        return line
    raise StopAsyncIteration


async def in_a_scope(read, reader, scopes):
    async with asyncio.timeout(None) as scope:
        scopes.append(scope)
        return await read.start(reader)


ways = st.sampled_from(["feed_data", "protocol"])
ends = st.sampled_from(["eof", "eof_received", "close", "lose", "fail"])
feeds = st.tuples(st.just("feed"), ways, piece)
# An end comes seldom: little can follow it.
moves = st.one_of(
    *[feeds] * 12, *[st.tuples(st.sampled_from(["cancel", "expire"]))] * 4, st.tuples(ends)
)


def around(size, ending):
    return b"a" * size + ending


class ReaderMachine(RuleBasedStateMachine):
    """A reader, its model, and at most one task that waits. ``delivered`` is everything that was
    taken, in order."""

    kind = "asyncio"

    def __init__(self):
        super().__init__()
        self.loop = new_loop(self.kind)
        self.errors = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.fed = b""
        self.delivered = b""
        self.task = None
        self.read = None
        self.scopes = []

    @initialize(
        limit=st.one_of(st.integers(1, 8), st.integers(1, 70)),
        form=st.sampled_from([StreamReaderProtocol, BufferedStreamProtocol]),
    )
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
        """Run a coroutine function on the loop; give the loop time for everything that follows from
        it."""

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
    @rule(
        read=reads,
        how=st.sampled_from(
            ["cancelled before its start", "cancelled in the turn of the others", "no time"]
        ),
    )
    def start_in_vain(self, read, how):
        """A read that is cancelled before its start, or while it gives others their turn, or has no
        time, has done nothing."""

        async def starting():
            if how == "no time":
                # wait_for(…, 0) cancels before the first step too.
                return await asyncio.wait(
                    [self.loop.create_task(asyncio.wait_for(read.start(self.reader), 0))]
                )
            if how == "cancelled in the turn of the others":
                # The budget is whole again where an operation yields its turn, and then there is
                # enough for so many.
                while done_at_once(self.other.read(0)):
                    pass
                for _ in range(BUDGET):
                    assert done_at_once(self.other.read(0))
            task = self.begin(read, "operation")
            if how == "cancelled in the turn of the others":
                await turns()
                assert not task.done()
            assert task.cancel()
            return await asyncio.wait([task])

        (task,), waiting = self.run(starting)
        assert not waiting
        assert type(ended(task)[1]) is (
            TimeoutError if how == "no time" else asyncio.CancelledError
        )

    @precondition(lambda self: self.task is not None)
    @rule(read=reads)
    def take_over(self, read):
        """Who cancels the task that waits can read, and wait, in the same step."""
        previous = self.task

        async def taking():
            assert previous.cancel()
            return await read.start(self.reader)

        async def starting():
            self.read = read
            self.task = self.loop.create_task(taking())

        del self.scopes[:]
        self.run(starting)
        assert previous.cancelled()
        self.settle()

    @precondition(lambda self: self.task is not None)
    @rule(read=reads)
    def read_meanwhile(self, read):
        """While one task waits, another is served from the buffer, or told that it cannot wait
        too."""

        async def reading():
            with contextlib.suppress(StopAsyncIteration):
                try:
                    return await asyncio.wait_for(read.start(self.reader), None), None
                except Exception as error:
                    return None, error

        expected = self.model.outcome(read)
        value, error = self.run(reading)
        if expected.waits:
            assert type(error) is RuntimeError
            assert (
                error.args[0]
                == f"{read.waits_in}() called while another coroutine is already waiting for "
                "incoming data"
            )
        else:
            check(expected, value, error)
            self.take(expected)
        self.settle()

    # ---- what happens from outside

    @precondition(lambda self: not self.model.over)
    @rule(way=ways, data=st.data())
    def feed(self, way, data):
        """Bytes come, often just as many as the limit, or what waits, makes a difference of."""
        limit = self.model.limit
        sizes = [limit - 1, limit, limit + 1, 2 * limit, 2 * limit + 1]
        if self.task is not None and self.read.name == "readexactly":
            missing = max(0, self.read.argument - len(self.model.buffered))
            sizes += [missing - 1, missing, missing] if missing else []
        some = data.draw(
            st.one_of(
                piece,
                st.builds(
                    around, st.sampled_from(sizes), st.sampled_from([b"", b"\n", b"b\n", b"\nb"])
                ),
            )
        )
        self.happen_now([("feed", way, some)])

    @precondition(lambda self: self.task is None and not self.model.over)
    @rule(way=ways, some=piece, read=reads)
    def feed_and_read(self, way, some, read):
        """Bytes come, and then a task reads."""
        self.happen_now([("feed", way, some)])

        async def starting():
            self.task = self.begin(read, "coroutine")

        self.run(starting)
        self.settle()

    @rule(moves=st.lists(moves, min_size=1, max_size=4))
    def happen(self, moves):
        """Everything in *moves* happens in one callback of the loop, before any task has its
        turn."""
        self.happen_now(moves)

    def happen_now(self, moves):
        self.woken = self.cancelled = self.expired = False
        self.run(from_callback, self.do, moves)
        if self.task is None:
            return
        if self.cancelled:
            assert self.task.cancelled()
            self.task = None
        elif self.expired and isinstance(self.task.exception(), TimeoutError):
            self.task = None
        elif self.expired:
            # What woke the task in the same turn may come before the timeout.
            assert self.woken
            self.finish(self.model.outcome(self.read))
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
            self.note_arrival(data)
        elif isinstance(self.protocol, BufferedStreamProtocol):
            while data:
                view = self.protocol.get_buffer(-1)
                received, data = data[: len(view)], data[len(view) :]
                view[: len(received)] = received
                self.protocol.buffer_updated(len(received))
                view[:] = b"?" * len(view)  # another connection receives
                self.note_arrival(received)
        elif data:
            self.protocol.data_received(data)
            self.note_arrival(data)

    def note_arrival(self, data):
        """Tell the model of *data*; a task that they satisfy is woken for good."""
        self.fed += data
        self.model.buffered += data
        if self.task is None or self.woken or self.cancelled or not data:
            return
        expected = self.model.outcome(self.read)
        if not expected.waits:
            self.woken = True
        elif len(self.model.buffered) > 2 * self.model.limit and self.read.name == "read":
            # read(-1) is woken once so that a flood gives others their turn.
            self.woken = True

    def do_cancel(self):
        if self.task is not None and not self.task.done():
            assert self.task.cancel()
            self.cancelled = True

    def do_expire(self):
        if (
            self.task is not None
            and self.scopes
            and not self.cancelled
            and not self.scopes[0].expired()
        ):
            self.scopes[0].reschedule(self.loop.time())
            self.expired = True

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
        if self.model.lost is None:
            self.model.error = KeyError("why")
            self.reader.set_exception(self.model.error)
            self.woken = True

    def do_close(self):
        """The connection is closed: as at EOF."""
        if self.protocol._stream_reader is not None:
            self.protocol.connection_lost(None)
            self.model.eof = True
            self.woken = True

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
            assert (
                calls
                == ["pause_reading", "resume_reading"] * (len(calls) // 2)
                + ["pause_reading"] * paused
            )
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


@pytest.mark.parametrize(("kind", "count"), [("asyncio", 150), ("debug", 25), ("uvloop", 30)])
def test_any_order_of_everything(kind, count):
    """Whatever is fed, read, cancelled and ended, in any order: every read does what the model
    says, and every byte is accounted for."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    machine = type("ReaderMachine", (ReaderMachine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=examples(count, steps=50))
