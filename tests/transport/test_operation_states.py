"""A read or a drain is used once, by one awaiter or by hand. However it ends, it takes only what it
returns."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from pathlib import Path

import pytest
from conftest import new_loop
from support.wires import FEEDS, READS, Wire, from_callback, turns

from headrace._transport.operation import (
    STATES,
    TRANSITIONS,
    Kind,
    Operation,
    warn_never_awaited,
)


async def _directly(awaitable):
    return await awaitable


def test_is_never_a_future(run, ours):
    """No state of an operation makes it a future; what it yields while it waits is one, of the
    loop, which the wake completes."""

    async def main():
        wire = Wire(ours)
        operation = wire.reader.read(1)
        assert not asyncio.isfuture(operation)
        waiting = operation.send(None)
        assert asyncio.isfuture(waiting)
        assert waiting.get_loop() is asyncio.get_running_loop()
        assert operation.cr_await is waiting
        assert not asyncio.isfuture(operation)
        assert not waiting.done()
        wire.reader.feed_data(b"a")
        await turns()
        assert waiting.result() is None
        assert not asyncio.isfuture(operation)
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == b"a"
        assert operation.cr_await is None
        assert not asyncio.isfuture(operation)
        wire.shut()

    run(main)


def test_awaited_twice(run, streams):
    """A second await raises RuntimeError and takes no byte, whether the first returned or
    raised."""

    async def main():
        wire = Wire(streams)
        wire.reader.feed_data(b"abcdef")
        read = wire.reader.readexactly(3)
        assert await read == b"abc"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await read
        bad = wire.reader.readexactly(-1)
        with pytest.raises(ValueError, match="less than zero"):
            await bad
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await bad
        drain = wire.writer.drain()
        await drain
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await drain
        assert await wire.reader.readexactly(3) == b"def"
        wire.shut()

    run(main)


def test_a_finished_operation_that_is_held_stays_finished(run, ours):
    """However many operations follow, one that somebody still refers to is never made a new one,
    finished, closed or failed."""

    async def main():
        wire = Wire(ours)
        held = []
        for index in range(200):
            operation = wire.reader.read(0) if index % 3 else wire.writer.drain()
            if index % 5:
                await operation
            else:
                operation.close()
            if index % 2:
                held.append(operation)
            del operation
        assert len({id(each) for each in held}) == 100
        for each in held:
            with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
                await each
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_two_awaiters(run, streams, feeding):
    """Who awaits what another task awaits already gets RuntimeError; the first is undisturbed."""

    async def main():
        wire = Wire(streams)
        read = wire.reader.read(3)
        first, second = asyncio.create_task(_directly(read)), asyncio.create_task(_directly(read))
        await turns(2)
        with pytest.raises(RuntimeError, match="is being awaited already"):
            await second
        await from_callback(wire.feed(feeding), b"abc")
        assert await first == b"abc"
        wire.shut()

    run(main)


def test_one_task_each_for_one_operation(run, ours):
    """Two tasks made of one operation: the second fails, the first reads."""

    async def main():
        wire = Wire(ours)
        read = wire.reader.read(3)
        first, second = asyncio.create_task(read), asyncio.create_task(read)
        await turns(2)
        with pytest.raises(RuntimeError, match="is being awaited already"):
            await second
        await from_callback(wire.protocol.data_received, b"abc")
        assert await first == b"abc"
        wire.shut()

    run(main)


@pytest.mark.parametrize("name", [name for name in READS if name != "read_all"])
@pytest.mark.parametrize("feeding", FEEDS)
def test_driven_by_hand(run, streams, name, feeding):
    """A read driven with send(None), with no task to wake, is resumed by the next send(None) after
    its bytes came."""

    async def main():
        wire = Wire(streams)
        read, expected = READS[name]
        operation = read(wire.reader)
        assert operation.send(None) is not None
        await from_callback(wire.feed(feeding), b"abcde\n")
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == expected
        wire.shut()

    run(main)


def test_sent_to_too_early(run, ours):
    """send(None) to an operation that still waits raises, and the wait goes on."""

    async def main():
        wire = Wire(ours)
        task = asyncio.create_task(wire.reader.read(3))
        await turns()
        operation = task.get_coro()
        with pytest.raises(RuntimeError, match="is being awaited already"):
            operation.send(None)
        wire.reader.feed_data(b"abc")
        assert await task == b"abc"
        wire.shut()

    run(main)


def test_awaited_on_another_loop(loop_kind, streams):
    """Awaiting on another loop than the reader's raises RuntimeError, and the reader still serves
    its own."""
    loop, other = new_loop(loop_kind), new_loop(loop_kind)
    try:
        reader = streams.StreamReader(loop=loop)
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            other.run_until_complete(_directly(reader.read(3)))
        loop.call_soon(reader.feed_data, b"abc")
        assert loop.run_until_complete(_directly(reader.read(3))) == b"abc"
    finally:
        loop.close()
        other.close()


def test_closed_while_waiting(run, streams):
    """close() ends a wait without taking anything; the next read gets the bytes."""

    async def main():
        wire = Wire(streams)
        operation = wire.reader.read(3)
        operation.send(None)
        operation.close()
        operation.close()
        wire.protocol.data_received(b"abc")
        assert await wire.reader.read(3) == b"abc"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            operation.send(None)
        drain = wire.writer.drain()
        wire.protocol.pause_writing()
        drain.send(None)
        drain.close()
        wire.protocol.resume_writing()
        wire.shut()

    run(main)


@pytest.mark.parametrize("how", ["class", "instance", "done"])
def test_thrown_into(run, streams, how):
    """throw() raises what it is given out of the operation, which then has taken nothing and is
    over."""

    async def main():
        wire = Wire(streams)
        operation = wire.reader.read(3)
        operation.send(None)
        if how == "done":
            operation.close()
            with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
                operation.throw(KeyError("why"))
        else:
            with pytest.raises(KeyError):
                operation.throw(KeyError if how == "class" else KeyError("why"))
        wire.reader.feed_data(b"abc")
        assert await wire.reader.read(3) == b"abc"
        wire.shut()

    run(main)


def test_collected_while_waiting(run, streams):
    """A coroutine that is dropped while it waits, driven by hand, gives its place up."""

    async def main():
        wire = Wire(streams)
        waiting = _directly(wire.reader.read(3))
        waiting.send(None)
        del waiting
        gc.collect()
        wire.reader.feed_data(b"abc")
        assert await wire.reader.read(3) == b"abc"
        wire.shut()

    run(main)


def test_never_awaited(run, streams):
    """What was never awaited says so with a RuntimeWarning that names the method."""

    async def main():
        wire = Wire(streams)
        for method, name in (
            (wire.reader.readline, "StreamReader.readline"),
            (wire.writer.drain, "StreamWriter.drain"),
        ):
            with pytest.warns(RuntimeWarning, match=f"'{name}' was never awaited"):
                method()
                gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wire.reader.readline().close()
            task = asyncio.create_task(wire.reader.readline())
            task.cancel()
            await asyncio.wait([task])
        wire.shut()

    run(main)


def test_touches_nothing_until_awaited(run, streams):
    """Making a read takes no byte and claims no place; two may be made and awaited in either
    order."""

    async def main():
        wire = Wire(streams)
        wire.reader.feed_data(b"ab")
        first, second = wire.reader.readexactly(1), wire.reader.readexactly(1)
        assert await second == b"a"
        assert await first == b"b"
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_watched_by_others(run, ours, feeding):
    """Whoever else adds a callback to what a waiting read yields is called when the bytes come, as
    the task is, and nobody twice."""

    async def main():
        wire = Wire(ours)
        called = []
        operation = wire.reader.read(3)
        waiting = operation.send(None)
        waiting.add_done_callback(called.append)
        waiting.add_done_callback(lambda each: called.append(1))
        removed = called.extend
        waiting.add_done_callback(removed)
        assert waiting.remove_done_callback(removed) == 1
        await from_callback(wire.feed(feeding), b"abc")
        await turns(2)
        assert called == [waiting, 1]
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == b"abc"

        watched = []

        class Watching:
            def __await__(self):
                operation = wire.reader.read(3).__await__()
                waiting = operation.send(None)
                waiting.add_done_callback(watched.append)
                yield waiting
                try:
                    operation.send(None)
                except StopIteration as stop:
                    return stop.value
                raise AssertionError

        async def reading():
            return await Watching()

        task = asyncio.create_task(reading())
        await turns(2)
        await from_callback(wire.feed(feeding), b"def")
        assert await task == b"def"
        assert len(watched) == 1
        wire.shut()

    run(main)


def test_questions_after_the_end(run, ours):
    """A finished, closed or failed operation answers every question of a coroutine, and can be
    closed again."""

    async def main():
        wire = Wire(ours)
        finished, closed, failed = (
            wire.reader.read(0),
            wire.reader.read(1),
            wire.reader.readexactly(-1),
        )
        await finished
        closed.close()
        with pytest.raises(ValueError, match="less than zero"):
            await failed
        for operation in (finished, closed, failed):
            assert not operation.cr_suspended
            assert not operation.cr_running
            assert (operation.cr_await, operation.cr_frame) == (None, None)
            assert operation.cr_code.co_qualname.startswith("StreamReader.read")
            assert repr(operation).endswith("() done>")
            operation.close()
        wire.shut()

    run(main)


def test_gone_on_with(run, streams):
    """A generator may go on, with ``yield from``, with a read that somebody has started by hand."""

    class Rest:
        def __init__(self, started):
            self.started = started

        def __await__(self):
            return (yield from self.started)

    async def main():
        wire = Wire(streams)
        started = wire.reader.read(1).__await__()
        started.send(None)
        wire.reader.feed_data(b"a")
        assert await Rest(started) == b"a"
        wire.shut()

    run(main)


@pytest.mark.parametrize("kind", [-1, 10, 1000])
def test_a_kind_that_is_none(kind):
    """What has no name is an error where names are looked up, not memory behind the end of a
    table."""
    with pytest.raises((TypeError, AttributeError)):
        warn_never_awaited(kind)
    with pytest.raises(TypeError):
        Kind()


def test_never_awaited_in_a_cycle(run, ours):
    """An operation that the collector of cycles frees still knows its name."""

    async def main():
        wire = Wire(ours)
        cycle = [wire.reader.readline()]
        cycle.append(cycle)
        del cycle
        with pytest.warns(RuntimeWarning, match="'StreamReader.readline' was never awaited"):
            gc.collect()
        wire.shut()

    run(main)


# ---- the states


def test_the_states_are_those_of_the_drawing():
    """The table of what may follow what is the one that docs/internals/operation.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "internals" / "operation.md").read_text()
    drawn = re.findall(r"^ ([A-Z]+) +-> +((?:[A-Z]+(?:, )?)+)", text, re.MULTILINE)
    assert {before.lower(): tuple(after.lower().split(", ")) for before, after in drawn} == {
        before: after for before, after in TRANSITIONS.items() if after
    }


@pytest.mark.skipif(not hasattr(Operation, "_advance"), reason="compiled: nothing can be put there")
def test_the_states_follow_one_another(run, ours, monkeypatch):
    """Each step, wake and end takes an operation to a state that may follow, or leaves it; and the
    table has nothing that does not happen."""
    seen = set()

    def watched(method):
        def call(operation, *arguments):
            before = operation.state
            try:
                return method(operation, *arguments)
            finally:
                if operation.state != before:
                    seen.add((STATES[before], STATES[operation.state]))

        return call

    for name in ("_advance", "end", "woken"):
        monkeypatch.setattr(Operation, name, watched(getattr(Operation, name)))

    async def main():
        wire = Wire(ours)
        reader = wire.reader

        def begun(read, paused=False):
            reader._h_scheduler.left = 0 if paused else 9
            yielded = read.send(None)
            assert (yielded is None) == paused
            return read

        async def ended(read):
            with pytest.raises(StopIteration):
                read.send(None)

        begun(reader.read(1)).close()
        begun(reader.read(1), paused=True).close()
        reader.read(1).close()
        # Paused, then waiting; woken for bytes that somebody else takes, then waiting again.
        slow = begun(reader.read(1), paused=True)
        slow.send(None)
        reader.feed_data(b"a")
        assert await reader.read(1) == b"a"
        slow.send(None)
        reader.feed_data(b"b")
        await ended(slow)
        # Woken, then thrown away; its bytes are there for the next.
        woken = begun(reader.read(1))
        reader.feed_data(b"c")
        woken.close()
        assert await reader.read(1) == b"c"
        reader.feed_data(b"de")
        await ended(begun(reader.read(1), paused=True))
        assert await reader.read(1) == b"e"
        wire.shut()

    run(main)
    assert seen == {(before, after) for before in TRANSITIONS for after in TRANSITIONS[before]}
