"""Cancelling a read at any moment loses no byte: what it has not returned, the next read does."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest
from support.wires import FEEDS, Wire, connected, from_callback, received, turns

READS = {
    "read": lambda reader: reader.read(3),
    "readexactly": lambda reader: reader.readexactly(3),
    "readline": lambda reader: reader.readline(),
    "readuntil": lambda reader: reader.readuntil(b"c\n"),
}
DATA = b"bc\n"


async def _finish(task):
    """Return what *task* read, b'' where it was cancelled."""
    try:
        return await task
    except asyncio.CancelledError:
        return b""


async def _rest(reader):
    reader.feed_eof()
    return await reader.read()


async def _before_first_step(wire, feed, task):
    task.cancel()
    await turns(2)
    feed(DATA)


async def _while_waiting(wire, feed, task):
    await turns(2)
    task.cancel()
    await turns(2)
    feed(DATA)


async def _after_the_wake(wire, feed, task):
    def feed_and_cancel():
        feed(DATA)
        task.cancel()

    await turns(2)
    await from_callback(feed_and_cancel)


async def _before_the_wake(wire, feed, task):
    def cancel_and_feed():
        task.cancel()
        feed(DATA)

    await turns(2)
    await from_callback(cancel_and_feed)


async def _by_another_task_of_the_turn(wire, feed, task):
    async def feed_it():
        feed(DATA)

    async def cancel_it():
        task.cancel()

    await turns(2)
    await asyncio.gather(feed_it(), cancel_it())


async def _by_another_task_first(wire, feed, task):
    async def feed_it():
        feed(DATA)

    async def cancel_it():
        task.cancel()

    await turns(2)
    await asyncio.gather(cancel_it(), feed_it())


async def _twice(wire, feed, task):
    await turns(2)
    task.cancel()
    task.cancel()
    feed(DATA)
    task.cancel()


MOMENTS = {
    moment.__name__: moment
    for moment in (
        _before_first_step,
        _while_waiting,
        _after_the_wake,
        _before_the_wake,
        _by_another_task_of_the_turn,
        _by_another_task_first,
        _twice,
    )
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("feeding", FEEDS)
def test_cancelled_at_any_moment(run, streams, feeding, moment):
    """Whenever the cancellation comes, what the task read and what is left are what was sent."""

    async def main():
        for name, read in READS.items():
            for wrapped in (False, True):
                wire = Wire(streams)

                async def reading(wire=wire, read=read):
                    return await read(wire.reader)

                task = asyncio.create_task(reading() if wrapped else read(wire.reader))
                await MOMENTS[moment](wire, wire.feed(feeding), task)
                got = await _finish(task)
                assert task.cancelled() == (got == b""), (name, wrapped)
                assert got + await _rest(wire.reader) == DATA, (name, wrapped)
                wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_swallowed_and_read_again(run, streams, feeding):
    """A task that swallows its cancellation can read again, at once, in the same step."""

    async def main():
        wire = Wire(streams)

        async def reading():
            try:
                return await wire.reader.readexactly(3)
            except asyncio.CancelledError:
                return b"again " + await wire.reader.readexactly(3)

        for moment in (_while_waiting, _before_the_wake):
            task = asyncio.create_task(reading())
            await moment(wire, wire.feed(feeding), task)
            assert await task == b"again " + DATA
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_cancels_itself(run, streams, feeding):
    """A task that cancels itself is stopped at its next wait, before or after reading what was
    there, and loses nothing."""

    async def main():
        wire = Wire(streams)
        got = []

        async def reading():
            asyncio.current_task().cancel()
            while True:
                got.append(await wire.reader.readexactly(3))

        await from_callback(wire.feed(feeding), DATA)
        task = asyncio.create_task(reading())
        await asyncio.wait([task])
        assert task.cancelled()
        wire.feed(feeding)(DATA)
        assert b"".join(got) + await _rest(wire.reader) == 2 * DATA
        wire.shut()

    run(main)


@pytest.mark.parametrize(
    "moment",
    [
        name
        for name in MOMENTS
        if name not in ("_after_the_wake", "_by_another_task_of_the_turn", "_twice")
    ],
)
def test_message(run, streams, moment):
    """The message of cancel() arrives in the CancelledError that the reading task sees."""

    async def main():
        wire = Wire(streams)
        seen = []

        async def reading():
            try:
                await wire.reader.readexactly(3)
            except asyncio.CancelledError as error:
                seen.append(error.args)
                raise

        task = asyncio.create_task(reading())
        await turns()
        cancel = task.cancel
        task_like = type("", (), {"cancel": lambda self: cancel("why")})()
        await MOMENTS[moment](wire, wire.feed("data_received"), task_like)
        await asyncio.wait([task])
        assert task.cancelled()
        assert seen == [("why",)]
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_timeout_leaves_no_cancellation_behind(run, streams, feeding):
    """asyncio.timeout() around a read takes its cancellation back, and the next read gets every
    byte."""

    async def main():
        wire = Wire(streams)
        task = asyncio.current_task()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await wire.reader.readexactly(3)
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(3), 0.001)
        assert task.cancelling() == 0
        await from_callback(wire.feed(feeding), DATA)
        assert await wire.reader.readexactly(3) == DATA
        wire.shut()

    run(main)


def test_uncancel(run, streams):
    """A task that swallows a cancellation and takes it back with uncancel() reads on under
    timeout() and TaskGroup."""

    async def main():
        wire = Wire(streams)

        async def reading():
            try:
                await wire.reader.readexactly(3)
            except asyncio.CancelledError:
                assert asyncio.current_task().uncancel() == 0
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                inner = group.create_task(wire.reader.readexactly(3))
            return inner.result()

        task = asyncio.create_task(reading())
        await turns()
        task.cancel()
        await turns(3)
        await from_callback(wire.protocol.data_received, DATA)
        assert await task == DATA
        wire.shut()

    run(main)


def test_woken_with_nothing_left_waits_again(run, ours):
    """A task that was woken, but finds its bytes taken by another, waits on and gets the next;
    nobody gets b'' before EOF."""

    async def main():
        for read in READS.values():
            wire = Wire(ours)
            robbed = asyncio.create_task(read(wire.reader))
            await turns()
            robber = None

            def feed(wire=wire, read=read):
                nonlocal robber
                robber = asyncio.create_task(read(wire.reader))
                wire.reader.feed_data(DATA)

            await from_callback(feed)
            if asyncio.get_running_loop().get_task_factory() is None:
                assert await robber == DATA
                await turns(3)
                assert not robbed.done()
                await from_callback(wire.protocol.data_received, DATA)
                assert await robbed == DATA
            else:  # an eager robber comes first, and is told that somebody waits already
                with pytest.raises(RuntimeError, match="already waiting"):
                    await robber
                assert await robbed == DATA
            wire.shut()

    run(main)


def test_cancelled_read_all_keeps_what_has_come(run, ours):
    """A cancelled read(-1) leaves everything that had arrived to the next read."""

    async def main():
        wire = Wire(ours)
        task = asyncio.create_task(wire.reader.read())
        for _ in range(3):
            await turns()
            await from_callback(wire.protocol.data_received, DATA)
        task.cancel()
        assert await _finish(task) == b""
        assert await _rest(wire.reader) == 3 * DATA
        wire.shut()

    run(main)


def test_cancelled_while_it_lets_others_go_first(run, ours):
    """A cancellation that comes while a read gives the loop its turn, with its bytes there, takes
    none of them."""

    async def main():
        wire = Wire(ours)
        got = []
        wire.reader.feed_data(DATA * 1000)

        async def reading():
            while True:
                got.append(await wire.reader.readexactly(3))

        task = asyncio.create_task(reading())
        await turns(2)
        assert 0 < len(got) < 1000
        task.cancel()
        assert await _finish(task) == b""
        assert b"".join(got) + await _rest(wire.reader) == DATA * 1000
        wire.shut()

    run(main)


def test_cancelled_drain_leaves_the_others(run, streams):
    """Of three tasks that wait in drain(), cancelling one leaves two, which resume_writing()
    wakes."""

    async def main():
        wire = Wire(streams)
        wire.protocol.pause_writing()
        tasks = [asyncio.create_task(wire.writer.drain()) for _ in range(3)]
        await turns(2)
        tasks[1].cancel()
        await turns(2)
        assert [task.done() for task in tasks] == [False, True, False]
        wire.protocol.resume_writing()
        await turns(3)
        assert [task.cancelled() for task in tasks] == [False, True, False]
        assert all(task.done() for task in tasks)
        wire.shut()

    run(main)


def test_cancelled_drain_has_sent(run, ours):
    """What was written before a drain() that is cancelled is sent, once."""

    async def main():
        async with connected(ours) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                writer.write(b"answer\n")
                asyncio.current_task().cancel()
                await writer.drain()
                await asyncio.sleep(0)

            task = asyncio.create_task(answering())
            await turns()
            peer.sendall(b"question\n")
            await asyncio.wait([task])
            assert task.cancelled()
            writer.write_eof()
            assert await received(peer) == b"answer\n"

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
@pytest.mark.parametrize("seed", range(4))
def test_random_cancellations(run, streams, seed, feeding):
    """Under random feeds and cancellations, at random moments of the turn, the bytes read are the
    bytes sent, in order."""

    async def main():
        chance = random.Random(f"{seed} {feeding}")
        wire = Wire(streams)
        feed = wire.feed(feeding)
        sent, got = bytearray(), bytearray()
        serial = 0

        def feed_some():
            nonlocal serial
            data = b"".join(b"%d\n" % (serial + i) for i in range(chance.randrange(1, 4)))
            serial += data.count(b"\n")
            sent.extend(data)
            feed(data)

        async def reading():
            while True:
                got.extend(await wire.reader.readline())

        for _ in range(60):
            task = asyncio.create_task(reading())
            actions = (
                [feed_some] * chance.randrange(3)
                + [task.cancel]
                + [feed_some] * chance.randrange(3)
            )
            for action in actions:
                await turns(chance.randrange(3))
                if chance.randrange(2):
                    await from_callback(action)
                else:
                    action()
            await asyncio.wait([task])
            assert task.cancelled()
        assert got + await _rest(wire.reader) == sent
        wire.shut()

    run(main)


# ---- libraries that cancel in their own way


@pytest.mark.parametrize("feeding", FEEDS)
def test_anyio_scopes(run, streams, feeding):
    """anyio's fail_after() and move_on_after() end a waiting read; the bytes stay for the next."""
    anyio = pytest.importorskip("anyio")

    async def main():
        wire = Wire(streams)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.001):
                await wire.reader.readexactly(3)
        with anyio.move_on_after(0.001) as scope:
            await wire.reader.readline()
        assert scope.cancelled_caught
        await from_callback(wire.feed(feeding), DATA)
        with anyio.fail_after(5):
            assert await wire.reader.readexactly(3) == DATA
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            asyncio.get_running_loop().call_soon(wire.feed(feeding), DATA)
            assert await wire.reader.readexactly(3) == b"unreachable"
        assert await _rest(wire.reader) == DATA
        wire.shut()

    run(main)


def test_anyio_shield(run, streams):
    """A read in a shielded scope goes on after the scope around it was cancelled, and returns its
    bytes."""
    anyio = pytest.importorskip("anyio")

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as outer:
            loop.call_soon(outer.cancel)
            loop.call_later(0.005, wire.protocol.data_received, DATA)
            with anyio.CancelScope(shield=True):
                got = await wire.reader.readexactly(3)
            await anyio.sleep(5)
        assert outer.cancelled_caught
        assert got == DATA
        wire.shut()

    run(main)


def test_anyio_task_group(run, streams):
    """anyio's task group cancels a child that reads; the bytes stay for the next read."""
    anyio = pytest.importorskip("anyio")
    if sys.version_info >= (3, 12) and run.kind == "eager":
        pytest.skip("anyio's task groups do not take eager tasks")

    async def main():
        wire = Wire(streams)
        async with anyio.create_task_group() as group:
            group.start_soon(wire.reader.readexactly, 3)
            await anyio.sleep(0.001)
            group.cancel_scope.cancel()
            wire.reader.feed_data(DATA)
        assert await _rest(wire.reader) == DATA
        wire.shut()

    run(main)
