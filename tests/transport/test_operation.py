"""A read or a drain is an awaitable like any coroutine: whatever awaits coroutines can await it."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import threading

import pytest
from support.wires import FEEDS, READS, Wire, from_callback, turns


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
    return None


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
    return None


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
    """Each read returns the same bytes however it is awaited, whether they were there before or
    come while it waits, by either way."""

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
    """wait_for(read, 0) times out, or returns what was there; the bytes are either returned or
    still there."""

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
    """loop.run_until_complete() takes a read itself, and asyncio.Runner.run() a coroutine around
    it."""
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
    """Where the loop's task factory makes pure-Python tasks, reads and drains are not stepped but
    work."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coroutine, **options: asyncio.tasks._PyTask(
                coroutine, loop=loop, **options
            )
        )
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
        for operation in [
            *(read(wire.reader) for read, _ in READS.values()),
            wire.writer.drain(),
            wire.protocol._drain_helper(),
        ]:
            assert asyncio.iscoroutine(operation)
            assert not asyncio.isfuture(operation)
            assert inspect.isawaitable(operation)
            assert isinstance(operation, collections.abc.Coroutine)
            operation.close()
        wire.shut()

    run(main)
