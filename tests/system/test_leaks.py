"""A read, a write or a drain, done again and again, leaves nothing: no object, no memory block, no
reference too many or too few."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings

import pytest
from conftest import LOOP_KINDS
from support.leaks import DATA, MEASUREMENTS, REPEATS, WARM_UP, grown
from support.wires import FEEDS, RecordingTransport, Wire, from_callback, turns
from support.wires import READS as EVERY_READ


# The loops that step tasks, in Python and in C: what leaks on another kind leaks on these.
@pytest.fixture(params=[kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def loop_kind(request):
    return request.param


@pytest.mark.skipif(
    sys.getallocatedblocks() == 0,
    reason="Python's allocator, which counts blocks, is off, as under the sanitizers",
)
def test_a_leak_is_found(run):
    """The measurement finds one object kept, one reference kept, or one lost, for each repetition,
    and nothing where nothing is."""
    kept = []
    value = object()
    held = [value] * (MEASUREMENTS * REPEATS + WARM_UP)

    async def keep_objects():
        kept.append([])

    async def keep_references():
        kept.append(value)

    async def lose_references():
        held.pop()

    async def nothing():
        await asyncio.sleep(0)

    async def main():
        assert await grown(nothing) == {}
        assert {"objects", "blocks"} <= set(await grown(keep_objects))
        assert set(await grown(keep_references, {"value": value})) >= {"references to value"}
        assert set(await grown(lose_references, {"value": value})) == {"references to value"}

    run(main)


# ---- reads

READS = {
    "read": lambda reader: reader.read(6),
    "readexactly": lambda reader: reader.readexactly(6),
    "readline": lambda reader: reader.readline(),
    "readuntil": lambda reader: reader.readuntil(b"e\n"),
    "readuntil, a tuple": lambda reader: reader.readuntil((b"e\n", b"d")),
    "__anext__": lambda reader: reader.__anext__(),
}


async def directly(awaitable):
    return await awaitable


async def by_hand(awaitable):
    while True:
        try:
            assert awaitable.send(None) is None
        except StopIteration as stop:
            return stop.value
        await turns()  # that of the others


@pytest.mark.parametrize(
    "how", [directly, by_hand, asyncio.create_task], ids=["await", "by hand", "task"]
)
@pytest.mark.parametrize("name", READS)
def test_done_at_once(run, ours, name, how):
    """A read of what is there, whole or in part, awaited, driven by hand or made a task, keeps
    neither bytes nor itself."""

    async def main():
        wire = Wire(ours)
        read = READS[name]

        async def step():
            wire.protocol.data_received(DATA)
            got = await how(read(wire.reader))
            if len(got) < 6:
                assert await how(wire.reader.readexactly(6 - len(got))) == DATA[len(got) :]

        assert await grown(step, {"the reader": wire.reader}) == {}
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
@pytest.mark.parametrize("name", READS)
def test_waiting(run, ours, name, feeding):
    """A read that waits for its bytes, in a coroutine or as a task itself, keeps neither bytes nor
    itself nor the task."""

    async def main():
        wire = Wire(ours)
        read = READS[name]
        feed = wire.feed(feeding)

        async def step():
            for make in (directly, lambda operation: operation):
                task = asyncio.create_task(make(read(wire.reader)))
                await turns()
                asyncio.get_running_loop().call_soon(feed, DATA)
                got = await task
                if len(got) < 6:
                    await wire.reader.readexactly(6 - len(got))

        assert await grown(step, {"the reader": wire.reader}, REPEATS // 2) == {}
        wire.shut()

    run(main)


async def cancel_before_the_first_step(wire, operation):
    task = asyncio.create_task(operation)
    task.cancel()
    await asyncio.wait([task])


async def cancel_while_it_waits(wire, operation):
    task = asyncio.create_task(directly(operation))
    await turns()
    task.cancel("with a message")
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def cancel_with_the_wake_pending(wire, operation):
    task = asyncio.create_task(directly(operation))
    await turns()
    wire.reader.feed_data(DATA)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await wire.reader.readexactly(6)


async def wait_for_no_time(wire, operation):
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(operation, 0)


async def time_out(wire, operation):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await operation


async def close_unstarted(wire, operation):
    operation.close()


async def close_waiting(wire, operation):
    operation.send(None)
    operation.close()


async def throw_into(wire, operation):
    operation.send(None)
    with contextlib.suppress(KeyError):
        operation.throw(KeyError("why"))


async def drop_unstarted(wire, operation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del operation


async def drop_waiting(wire, operation):
    coroutine = directly(operation)
    coroutine.send(None)
    del operation, coroutine


async def watch(wire, operation):
    while (waiting := operation.send(None)) is None:
        await turns()  # that of the others
    waiting.add_done_callback(print)
    waiting.add_done_callback(repr)
    waiting.remove_done_callback(print)
    assert operation.cr_await is waiting
    repr(operation)
    waiting.cancel("why")
    # Nobody waits any more: another attempt, and another future.
    assert operation.send(None) is not waiting
    operation.close()


ENDS = [
    cancel_before_the_first_step,
    cancel_while_it_waits,
    cancel_with_the_wake_pending,
    wait_for_no_time,
    time_out,
    close_unstarted,
    close_waiting,
    throw_into,
    drop_unstarted,
    drop_waiting,
    watch,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_not_finished(run, ours, end):
    """A read that is cancelled, times out, is closed, thrown into or dropped is freed, and so is
    what it was given."""

    async def main():
        wire = Wire(ours)
        separator = bytes([ord("\n")]) * 2
        reads = [
            lambda: wire.reader.readline(),
            lambda: wire.reader.readuntil(separator),
            lambda: wire.reader.readexactly(100_000),
        ]

        async def step():
            for read in reads:
                await end(wire, read())

        assert (
            await grown(step, {"the reader": wire.reader, "the separator": separator}, REPEATS // 2)
            == {}
        )
        wire.shut()

    run(main)


# ---- what may wait, and what may end a wait

WAITS = {
    **{name: (lambda wire, read=read: read(wire.reader)) for name, (read, _) in EVERY_READ.items()},
    "drain": lambda wire: wire.writer.drain(),
    "_drain_helper": lambda wire: wire.protocol._drain_helper(),
    "wait_closed": lambda wire: wire.writer.wait_closed(),
}


def come(wire, task):
    wire.protocol.data_received(DATA)
    wire.protocol.resume_writing()


def end(wire, task):
    wire.protocol.eof_received()


def close(wire, task):
    wire.protocol.connection_lost(None)


def lose(wire, task):
    wire.protocol.connection_lost(ConnectionResetError("why"))


def cancel(wire, task):
    task.cancel()


def lose_and_cancel(wire, task):
    lose(wire, task)
    task.cancel()


# Apart from one another: a future that was cancelled is not used again, and with it goes what it
# has gathered.
@pytest.mark.parametrize(
    "wakes", [(come, end, close, lose), (cancel, lose_and_cancel)], ids=["woken", "cancelled"]
)
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_every_wait(run, ours, wait, wakes):
    """A task that waits, whatever for, is freed when it is over, however its wait ends: no future
    of ours remembers it."""

    async def step():
        for wake in wakes:
            for make in (directly, lambda operation: operation):
                wire = Wire(ours)
                wire.protocol.pause_writing()
                task = asyncio.create_task(make(wait(wire)))
                await turns()
                assert not task.done()
                asyncio.get_running_loop().call_soon(wake, wire, task)
                await turns(4)
                if not task.done():  # that was not what it waits for
                    asyncio.get_running_loop().call_soon(lose, wire, task)
                await asyncio.wait([task])
                assert (
                    task.cancelled()
                    or task.exception() is None
                    or isinstance(task.exception(), (OSError, EOFError, StopAsyncIteration))
                )
                wire.shut()

    async def main():
        assert await grown(step, repeats=REPEATS // 8, warm_up=WARM_UP // 8) == {}

    run(main)


def test_futures_of_another_class(run, ours):
    """A loop may make futures of a class of its own, whose fields nobody knows: they remember no
    task either."""

    class Future(asyncio.Future):
        pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.create_future = lambda: Future(loop=loop)
        wire = Wire(ours)

        async def step():
            task = asyncio.create_task(directly(wire.reader.readline()))
            await turns()
            loop.call_soon(wire.protocol.data_received, DATA)
            await task

        assert await grown(step, repeats=REPEATS // 2) == {}
        wire.shut()

    run(main)


# ---- errors


async def incomplete(ours):
    for read in (
        lambda reader: reader.readexactly(7),
        lambda reader: reader.readuntil(b"!"),
        lambda reader: reader.readline(),
    ):
        reader = ours.StreamReader()
        reader.feed_data(DATA)
        reader.feed_eof()
        with contextlib.suppress(asyncio.IncompleteReadError):
            await read(reader)


async def incomplete_while_waiting(ours):
    reader = ours.StreamReader()
    task = asyncio.create_task(reader.readuntil(b"!"))
    await turns()
    reader.feed_data(DATA)
    reader.feed_eof()
    with contextlib.suppress(asyncio.IncompleteReadError):
        await task
    assert await reader.read() == b""


async def too_long(ours):
    reader = ours.StreamReader(limit=2)
    reader.feed_data(DATA)
    for separator in (b"\n", b"!", (b"\n", b"e\n")):
        with contextlib.suppress(asyncio.LimitOverrunError):
            await reader.readuntil(separator)
    with contextlib.suppress(ValueError):
        await reader.readline()


async def mistaken(ours):
    reader = ours.StreamReader()
    for wrong in (
        lambda: reader.readexactly(-1),
        lambda: reader.readuntil(b""),
        lambda: reader.readuntil(()),
        lambda: reader.readuntil(1),
    ):
        with contextlib.suppress(ValueError, TypeError):
            await wrong()


async def two_wait(ours):
    reader = ours.StreamReader()
    first = asyncio.create_task(reader.readline())
    await turns()
    with contextlib.suppress(RuntimeError):
        await reader.read(1)
    reader.feed_data(DATA)
    await first


async def awaited_twice(ours):
    reader = ours.StreamReader()
    operation = reader.read(0)
    await operation
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            await operation


async def failed(ours):
    reader = ours.StreamReader()
    task = asyncio.create_task(reader.readline())
    await turns()
    reader.set_exception(KeyError("why"))
    for each in (task, reader.read(1)):
        with contextlib.suppress(KeyError):
            await each


async def the_end_of_a_loop(ours):
    reader = ours.StreamReader()
    reader.feed_data(DATA)
    reader.feed_eof()
    async for line in reader:
        assert line == DATA
    assert await reader.read() == b""


async def lost(ours):
    wire = Wire(ours)
    task = asyncio.create_task(wire.reader.readexactly(7))
    wire.protocol.pause_writing()
    drain = asyncio.create_task(wire.writer.drain())
    await turns()
    wire.protocol.data_received(DATA)
    wire.protocol.connection_lost(ConnectionResetError("why"))
    for each in (
        task,
        drain,
        wire.reader.read(7),
        wire.reader.read(7),
        wire.writer.drain(),
        wire.writer.wait_closed(),
    ):
        with contextlib.suppress(ConnectionResetError):
            await each
    wire.shut()


@pytest.mark.parametrize(
    "step",
    [
        incomplete,
        incomplete_while_waiting,
        too_long,
        mistaken,
        two_wait,
        awaited_twice,
        failed,
        the_end_of_a_loop,
        lost,
    ],
    ids=lambda step: step.__name__,
)
def test_errors(run, ours, step):
    """A read that fails leaves nothing behind once its error is forgotten, nor does the reader that
    it failed on."""

    async def main():
        assert await grown(lambda: step(ours), repeats=REPEATS // 2) == {}

    run(main)


# ---- writes


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writes(run, ours, kind):
    """What was written is let go, gathered in a step or sent at once, and what write() refuses is
    not kept."""

    class Swallowing(RecordingTransport):
        def write(self, data):
            assert data

    async def main():
        wire = Wire(ours, Swallowing())

        async def answering():
            while await wire.reader.readline():
                for _ in range(3):
                    wire.writer.write(kind(DATA))
                await wire.writer.drain()

        async def step():
            await from_callback(wire.protocol.data_received, DATA)
            wire.writer.write(kind(DATA))
            wire.writer.writelines([kind(DATA), DATA])
            await wire.writer.drain()
            with contextlib.suppress(TypeError):
                wire.writer.write("text")

        task = asyncio.create_task(answering())
        await turns()
        assert await grown(step, {"the writer": wire.writer}) == {}
        wire.reader.feed_eof()
        await task
        wire.shut()

    run(main)


def test_drains_that_wait(run, ours):
    """A drain that waits and goes on, is cancelled or times out, is freed; so are those that wait
    beside it."""

    async def main():
        wire = Wire(ours)

        async def step():
            wire.protocol.pause_writing()
            tasks = [
                asyncio.create_task(each)
                for each in (
                    wire.writer.drain(),
                    directly(wire.writer.drain()),
                    wire.writer.drain(),
                )
            ]
            await turns()
            tasks[0].cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await wire.writer.drain()
            wire.protocol.resume_writing()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [True, False, False]

        assert await grown(step, {"the writer": wire.writer}, REPEATS // 2) == {}
        wire.shut()

    run(main)
