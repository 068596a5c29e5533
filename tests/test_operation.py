"""A read or a drain is an awaitable like any coroutine: whatever awaits coroutines can await it, and it is used once."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import threading
import warnings

import pytest
from wires import FEEDS, Wire, from_callback, turns

READS = {
    "read": (lambda reader: reader.read(6), b"abcde\n"),
    "readexactly": (lambda reader: reader.readexactly(6), b"abcde\n"),
    "readline": (lambda reader: reader.readline(), b"abcde\n"),
    "readuntil": (lambda reader: reader.readuntil(b"e\n"), b"abcde\n"),
    "__anext__": (lambda reader: reader.__anext__(), b"abcde\n"),
    "read_all": (lambda reader: reader.read(), b"abcde\n"),
    "_wait_for_data": (lambda reader: reader._wait_for_data("read"), None),
}


async def _directly(awaitable):
    return await awaitable


async def _gather(awaitable):
    return (await asyncio.gather(awaitable, asyncio.sleep(0)))[0]


async def _wait(awaitable):
    done, waiting = await asyncio.wait([asyncio.ensure_future(awaitable)])
    assert not waiting
    return done.pop().result()


async def _wait_for(awaitable):
    return await asyncio.wait_for(awaitable, 5)


async def _as_completed(awaitable):
    for each in asyncio.as_completed([awaitable]):
        return await each


async def _task_group(awaitable):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(awaitable)
    return task.result()


async def _timeout(awaitable):
    async with asyncio.timeout(5):
        return await awaitable


async def _pure_python_task(awaitable):
    return await asyncio.tasks._PyTask(awaitable, loop=asyncio.get_running_loop())


async def _in_a_pure_python_task(awaitable):
    return await asyncio.tasks._PyTask(_directly(awaitable), loop=asyncio.get_running_loop())


async def _async_generator(awaitable):
    async def generate():
        yield await awaitable

    async for each in generate():
        return each


async def _yield_from(awaitable):
    class Awaitable:
        def __await__(self):
            return (yield from awaitable.__await__())

    return await Awaitable()


WAYS = {
    "await": _directly,
    "gather": _gather,
    "shield": lambda awaitable: _directly(asyncio.shield(awaitable)),
    "wait": _wait,
    "wait_for": _wait_for,
    "wait_for(None)": lambda awaitable: asyncio.wait_for(awaitable, None),
    "as_completed": _as_completed,
    "TaskGroup": _task_group,
    "timeout": _timeout,
    "create_task": lambda awaitable: _directly(asyncio.create_task(awaitable)),
    "ensure_future": lambda awaitable: _directly(asyncio.ensure_future(awaitable)),
    "pure-Python task": _pure_python_task,
    "in a pure-Python task": _in_a_pure_python_task,
    "async generator": _async_generator,
    "yield from": _yield_from,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_read_through_every_way_of_awaiting(run, streams, way):
    """Each read returns the same bytes however it is awaited, whether they were there before or come while it waits, by either way."""

    async def main():
        for feeding in FEEDS:
            for name, (read, expected) in READS.items():
                for ready in (True, False):
                    wire = Wire(streams)
                    if ready and name != "_wait_for_data":
                        wire.feed(feeding)(b"abcde\n")
                        wire.reader.feed_eof()
                        got = await WAYS[way](read(wire.reader))
                    else:
                        task = asyncio.create_task(WAYS[way](read(wire.reader)))
                        await turns(3)
                        await from_callback(wire.feed(feeding), b"abcde\n")
                        if name == "read_all":
                            wire.reader.feed_eof()
                        got = await task
                    assert got == expected, (feeding, name, ready)
                    wire.shut()

    run(main)


@pytest.mark.parametrize("way", WAYS)
def test_drain_through_every_way_of_awaiting(run, streams, way):
    """A drain that must wait, and one that need not, return None however they are awaited."""

    async def main():
        wire = Wire(streams)
        assert await WAYS[way](wire.writer.drain()) is None
        wire.protocol.pause_writing()
        task = asyncio.create_task(WAYS[way](wire.writer.drain()))
        await turns(5)
        assert not task.done()
        wire.protocol.resume_writing()
        assert await task is None
        wire.shut()

    run(main)


@pytest.mark.parametrize("ready", [True, False])
def test_wait_for_zero_loses_nothing(run, streams, ready):
    """wait_for(read, 0) times out, or returns what was there; the bytes are either returned or still there."""

    async def main():
        wire = Wire(streams)
        if ready:
            wire.reader.feed_data(b"abc")
        got = b""
        try:
            got = await asyncio.wait_for(wire.reader.readexactly(3), 0)
        except TimeoutError:
            pass
        if not ready:
            assert got == b""
            wire.reader.feed_data(b"abc")
        wire.reader.feed_eof()
        assert got + await wire.reader.read() == b"abc"
        wire.shut()

    run(main)


def test_run_until_complete(loop_kind, streams):
    """loop.run_until_complete() takes a read itself, and asyncio.Runner.run() a coroutine around it."""
    from conftest import new_loop

    loop = new_loop(loop_kind)
    try:
        reader = streams.StreamReader(loop=loop)
        loop.call_soon(reader.feed_data, b"abc")
        assert loop.run_until_complete(reader.read(3)) == b"abc"
        loop.call_soon(reader.feed_data, b"def")
        assert loop.run_until_complete(_directly(reader.readexactly(3))) == b"def"
    finally:
        loop.close()


def test_run_coroutine_threadsafe(run, streams):
    """Another thread can hand a read to the loop and wait for its bytes."""

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()
        got = []

        def read():
            got.append(asyncio.run_coroutine_threadsafe(wire.reader.readexactly(3), loop).result(5))

        thread = threading.Thread(target=read)
        thread.start()
        while wire.reader._waiter is None:
            await asyncio.sleep(0.001)
        await from_callback(wire.protocol.data_received, b"abc")
        await loop.run_in_executor(None, thread.join)
        assert got == [b"abc"]
        wire.shut()

    run(main)


def test_task_factory_of_pure_python_tasks(run, streams):
    """Where the loop's task factory makes pure-Python tasks, reads and drains are not stepped but work."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.tasks._PyTask(coroutine, loop=loop, **options))
        wire = Wire(streams)
        task = asyncio.create_task(wire.reader.readline())
        assert type(task) is asyncio.tasks._PyTask
        await turns(2)
        await from_callback(wire.protocol.data_received, b"abc\n")
        assert await task == b"abc\n"
        wire.shut()

    run(main)


def test_is_a_coroutine_and_not_a_future(run, streams):
    """asyncio and inspect take what a read returns for a coroutine, and not for a future."""

    async def main():
        wire = Wire(streams)
        for operation in [*(read(wire.reader) for read, _ in READS.values()), wire.writer.drain(), wire.protocol._drain_helper()]:
            assert asyncio.iscoroutine(operation)
            assert not asyncio.isfuture(operation)
            assert inspect.isawaitable(operation)
            assert isinstance(operation, collections.abc.Coroutine)
            operation.close()
        wire.shut()

    run(main)


def test_is_a_future_only_while_it_waits(run, ours):
    """The mark of a future is there only between the yield and the wake: a new or a finished operation has none."""

    async def main():
        wire = Wire(ours)
        operation = wire.reader.read(1)
        assert operation._asyncio_future_blocking is None
        assert operation.send(None) is operation
        assert operation._asyncio_future_blocking is True
        wire.reader.feed_data(b"a")
        assert operation._asyncio_future_blocking is None
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == b"a"
        assert operation._asyncio_future_blocking is None
        wire.shut()

    run(main)


def test_awaited_twice(run, streams):
    """A second await raises RuntimeError and takes no byte, whether the first returned or raised."""

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
    """However many operations follow, one that somebody still refers to is never made a new one, finished, closed or failed."""

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
    """A read driven with send(None), with no task to wake, is resumed by the next send(None) after its bytes came."""

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
    """Awaiting on another loop than the reader's raises RuntimeError, and the reader still serves its own."""
    from conftest import new_loop

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
    """throw() raises what it is given out of the operation, which then has taken nothing and is over."""

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
        for method, name in ((wire.reader.readline, "StreamReader.readline"), (wire.writer.drain, "StreamWriter.drain")):
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
    """Making a read takes no byte and claims no place; two may be made and awaited in either order."""

    async def main():
        wire = Wire(streams)
        wire.reader.feed_data(b"ab")
        first, second = wire.reader.readexactly(1), wire.reader.readexactly(1)
        assert await second == b"a"
        assert await first == b"b"
        wire.shut()

    run(main)


def test_callbacks_of_a_caller_who_is_no_task(run, ours):
    """add_done_callback() of more than one caller calls each of them; a removed one is not called; none raises."""

    async def main():
        wire = Wire(ours)
        called = []
        operation = wire.reader.read(3)
        operation.send(None)
        assert not operation.done()
        assert not operation.cancelled()
        with pytest.raises(asyncio.InvalidStateError):
            operation.result()
        operation.add_done_callback(called.append)
        operation.add_done_callback(lambda each: called.append(1))
        removed = called.extend
        operation.add_done_callback(removed)
        assert operation.remove_done_callback(removed) == 1
        assert operation.remove_done_callback(removed) == 0
        assert operation.get_loop() is asyncio.get_running_loop()
        await from_callback(wire.protocol.data_received, b"abc")
        await turns()
        assert called == [operation, 1]
        assert operation.done()
        assert operation.result() is None
        assert operation.exception() is None
        operation.add_done_callback(called.append)
        await turns()
        assert called == [operation, 1, operation]
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == b"abc"
        wire.shut()

    run(main)


def test_questions_after_the_end(run, ours):
    """A finished, closed or failed operation answers every question of a future and of a coroutine, and takes no cancellation."""

    async def main():
        wire = Wire(ours)
        finished, closed, failed = wire.reader.read(0), wire.reader.read(1), wire.reader.readexactly(-1)
        await finished
        closed.close()
        with pytest.raises(ValueError, match="less than zero"):
            await failed
        for operation in (finished, closed, failed):
            called = []
            assert operation.done()
            assert not operation.cancelled()
            assert not operation.cancel("why")
            assert operation.get_loop() in (asyncio.get_running_loop(), None)
            operation.add_done_callback(called.append)
            await turns(2)
            assert called == [operation]
            assert operation.remove_done_callback(called.append) == 0
            assert not operation.cr_suspended
            assert not operation.cr_running
            assert (operation.cr_await, operation.cr_frame, operation.cr_code) == (None, None, None)
            assert repr(operation).endswith("() done>")
            operation.close()
        wire.shut()

    run(main)
