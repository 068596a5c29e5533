"""Writes of a Stream: they wait for room, are accepted whole or not at all, and leave in order."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.connections import reset, until
from support.duplex import stream_to

import headrace

SHORT = 0.02


async def fill(stream):
    """Write until a write waits; return how many bytes were accepted."""
    while stream.unsent < 1 << 20:
        stream.write_nowait(bytes(1 << 20))
    return stream.bytes_written


async def take(peer, size):
    """Return *size* bytes of what comes to *peer*."""
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    received = bytearray()
    while len(received) < size:
        received += await loop.sock_recv(peer, size - len(received))
    return bytes(received)


async def waiting_writes(stream):
    """Return the tasks of three writes that wait, one behind the other. (The first may have to let
    others go first, after so many bytes.)"""
    tasks = []
    for each in range(3):
        tasks.append(asyncio.ensure_future(stream.write(b"%d" % each)))
        await asyncio.sleep(0.01)
    return tasks


def test_pieces_leave_together(run, way):
    """All pieces of a write follow one another, small or large, of any kind of buffer."""

    async def main():
        async with stream_to(way) as (stream, peer):
            await stream.write(b"a", bytearray(b"b"), memoryview(b"c"), b"")
            await stream.write()
            large = [bytes([each]) * 30_000 for each in range(5)]
            await stream.write(*large)
            assert await take(peer, 150_003) == b"abc" + b"".join(large)
            assert stream.bytes_written == 150_003

    run(main)


def test_nothing_of_a_wrong_write(run, way):
    """Where one piece is no bytes, none is sent."""

    async def main():
        async with stream_to(way) as (stream, peer):
            for wrong in ("text", None, 5):
                with pytest.raises(TypeError):
                    await stream.write(b"one", wrong)
                with pytest.raises(TypeError):
                    await stream.write(wrong)
                with pytest.raises(TypeError):
                    stream.write_nowait(b"one", wrong)
            await stream.write(b"two")
            assert await take(peer, 3) == b"two"

    run(main)


def test_many_writers(run, way):
    """Who waits for room is served in the order of the calls, and no pieces are mixed."""

    async def main():
        async with stream_to(way) as (stream, peer):
            before = await fill(stream)
            size = 100_000
            tasks = []
            for number in range(20):
                writing = stream.write(bytes([number]) * size, bytes([100 + number]) * size)
                tasks.append(asyncio.ensure_future(writing))
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in tasks)
            await take(peer, before)
            expected = b"".join(
                bytes([each]) * size + bytes([100 + each]) * size for each in range(20)
            )
            assert await take(peer, len(expected)) == expected
            await asyncio.gather(*tasks)

    run(main)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_waiting_write_is_cancelled(run, way, which):
    """It was not accepted: the peer never gets it, and the others are served in their order."""

    async def main():
        async with stream_to(way) as (stream, peer):
            before = await fill(stream)
            tasks = await waiting_writes(stream)
            tasks[which].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[which]
            await take(peer, before)
            left = [b"%d" % each for each in range(3) if each != which]
            assert await take(peer, 2) == b"".join(left)
            await asyncio.gather(*tasks, return_exceptions=True)
            await stream.write(b"more")
            assert await take(peer, 4) == b"more"
            assert stream.bytes_written == before + 6

    run(main)


def test_one_that_was_woken_is_cancelled(run, way):
    """A write that was woken and has not run gives its place to the next."""

    async def main():
        async with stream_to(way) as (stream, peer):
            before = await fill(stream)
            tasks = await waiting_writes(stream)
            transport = stream.writer.transport
            high = transport.get_write_buffer_limits()[1]
            taking = asyncio.ensure_future(take(peer, before))
            await until(lambda: transport.get_write_buffer_size() <= high)
            while not tasks[0].done() and not tasks[0].cancel():
                await asyncio.sleep(0)
            await taking
            rest = await asyncio.gather(*tasks, return_exceptions=True)
            accepted = [b"%d" % each for each, end in enumerate(rest) if end is None]
            assert len(accepted) >= 2
            assert await take(peer, len(accepted)) == b"".join(accepted)

    run(main)


def test_a_write_that_timed_out_is_tried_again(run, way):
    """It was not accepted, so it arrives once."""

    async def main():
        async with stream_to(way) as (stream, peer):
            before = await fill(stream)
            for _ in range(3):
                with pytest.raises(headrace.WriteTimeout):
                    await stream.write(b"once", timeout=SHORT)
            again = asyncio.ensure_future(stream.write(b"once"))
            await take(peer, before)
            await again
            stream.write_eof()
            assert await take(peer, 4) == b"once"
            assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""

    run(main)


def test_after_the_end(run, way):
    """After write_eof(), close() and a reset a write raises, and so does one that waits."""

    async def main():
        async with stream_to(way) as (stream, _):
            stream.write_eof()
            for call in (lambda: stream.write(b"x"), lambda: stream.write(b"x", b"y" * 50_000)):
                with pytest.raises(RuntimeError, match="after write_eof"):
                    await call()
            with pytest.raises(RuntimeError):
                stream.write_nowait(b"x")
        async with stream_to(way) as (stream, _):
            await stream.aclose()
            with pytest.raises(ConnectionError):
                await stream.write(b"x")
            with pytest.raises(ConnectionError):
                stream.write_nowait(b"x")
        async with stream_to(way) as (stream, peer):
            await fill(stream)
            tasks = [asyncio.ensure_future(stream.write(b"x")) for _ in range(3)]
            tasks.append(asyncio.ensure_future(stream.flush()))
            await asyncio.sleep(0.01)
            reset(peer)
            for task in tasks:
                with pytest.raises(ConnectionError):
                    await task
            with pytest.raises(ConnectionError):
                await stream.write(b"x")

    run(main)


def test_corked(run, way):
    """What is written in the block leaves at its end, together; blocks stand in one another, and
    what was accepted is sent where the block ends by an exception."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.setblocking(False)
            with stream.corked():
                await stream.write(b"a", b"b")
                with stream.corked():
                    stream.write_nowait(b"c")
                assert stream.unsent == 3
                assert stream.bytes_written == 3
                await asyncio.sleep(0.01)
                with pytest.raises(BlockingIOError):
                    peer.recv(10)
            assert await take(peer, 3) == b"abc"
            with contextlib.suppress(ZeroDivisionError), stream.corked():
                await stream.write(b"d")
                raise ZeroDivisionError
            assert await take(peer, 1) == b"d"
            with stream.corked():
                await stream.write(b"e")
                await stream.flush()
                assert await take(peer, 1) == b"e"
                await stream.write(b"f")
                stream.write_eof()
            assert await take(peer, 1) == b"f"
            assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""

    run(main)


def test_much_is_not_gathered(run, way):
    """Above 64 KiB what is gathered is sent: a write in the block would wait for ever."""

    async def main():
        async with stream_to(way) as (stream, peer):
            with stream.corked():
                writing = asyncio.ensure_future(take(peer, 100 * 50_000))
                for _ in range(100):
                    await stream.write(bytes(50_000))
            await writing

    run(main)


def test_flush(run, way):
    """flush() waits until the system has everything, and writes wait behind it."""

    async def main():
        async with stream_to(way) as (stream, peer):
            await stream.flush()
            before = await fill(stream)
            flushing = asyncio.ensure_future(stream.flush())
            await asyncio.sleep(0)
            writing = asyncio.ensure_future(stream.write(b"behind"))
            await asyncio.sleep(SHORT)
            assert not flushing.done()
            await take(peer, before // 2)
            assert not writing.done() or flushing.done()
            taking = asyncio.ensure_future(take(peer, before - before // 2))
            await flushing
            await writing
            await taking
            assert await take(peer, 6) == b"behind"
            limits = stream.writer.transport.get_write_buffer_limits()
            assert limits[1] == 64 * 1024

    run(main)


def test_a_flush_is_cancelled(run, way):
    """The limits of the transport are as they were, and what was written is sent."""

    async def main():
        async with stream_to(way) as (stream, peer):
            before = await fill(stream)
            limits = stream.writer.transport.get_write_buffer_limits()
            flushing = asyncio.ensure_future(stream.flush())
            await asyncio.sleep(0.01)
            flushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flushing
            assert stream.writer.transport.get_write_buffer_limits() == limits
            writing = asyncio.ensure_future(stream.write(b"more"))
            assert len(await take(peer, before)) == before
            await writing
            assert await take(peer, 4) == b"more"

    run(main)
