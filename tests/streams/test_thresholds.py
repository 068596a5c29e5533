"""When a waiting read is woken: not for every chunk, and not one byte too late. Data comes before
the end or the error."""

from __future__ import annotations

import asyncio
import math
import sys

import pytest
from support.connections import reset, until
from support.wires import FEEDS, RecordingTransport, Wire, connected, from_callback, turns

LIMIT = 64


@pytest.mark.parametrize("feeding", FEEDS)
def test_readexactly_past_twice_the_limit(run, streams, feeding):
    """readexactly() of any size ends, whatever the limit: while it waits, reading is not paused."""
    size = 20 * LIMIT

    async def main():
        wire = Wire(streams, limit=LIMIT)
        sent = bytes(range(256)) * 5
        task = asyncio.create_task(wire.reader.readexactly(size))
        await turns(2)
        for start in range(0, size, 50):
            await from_callback(wire.feed(feeding), sent[start : start + 50])
            await turns(3)
            if start + 50 < size:
                assert (wire.transport.calls or ["resume_reading"])[-1] == "resume_reading"
        assert await task == sent
        assert wire.transport.calls.count("pause_reading") == wire.transport.calls.count(
            "resume_reading"
        )
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_readexactly_is_woken_once(run, ours, feeding):
    """A waiting readexactly() is not resumed before its last byte is there, however many chunks
    come."""

    async def main():
        wire = Wire(ours)
        resumed = []

        class Watched:
            def __await__(self):
                operation = wire.reader.readexactly(1000).__await__()
                while True:
                    try:
                        waiting = operation.send(None)
                    except StopIteration as stop:
                        return stop.value
                    yield waiting
                    resumed.append(None)

        async def reading():
            return await Watched()

        task = asyncio.create_task(reading())
        await turns(2)
        for _ in range(99):
            await from_callback(wire.feed(feeding), bytes(10))
            await turns(2)
        assert resumed == []
        await from_callback(wire.feed(feeding), bytes(11))
        assert await task == bytes(1000)
        assert len(resumed) == 1
        assert await wire.reader.read(10) == b"\0"
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_readuntil_at_the_limit(run, streams, size, waiting, feeding):
    """readuntil() returns up to limit bytes before the separator, and one byte more is an error
    that takes nothing."""

    async def main():
        wire = Wire(streams, limit=LIMIT)
        task = asyncio.create_task(wire.reader.readuntil(b"!"))
        if waiting:
            await turns(2)
        await from_callback(wire.feed(feeding), b"x" * size + b"!")
        if size <= LIMIT:
            assert await task == b"x" * size + b"!"
        else:
            with pytest.raises(asyncio.LimitOverrunError) as caught:
                await task
            assert caught.value.consumed == size
            assert await wire.reader.readexactly(size + 1) == b"x" * size + b"!"
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_readuntil_past_the_limit_without_a_separator(run, streams, feeding):
    """A waiting readuntil() fails as soon as more than limit bytes have come with no separator, and
    takes nothing."""

    async def main():
        wire = Wire(streams, limit=LIMIT)
        task = asyncio.create_task(wire.reader.readuntil(b"!"))
        await turns(2)
        await from_callback(wire.feed(feeding), b"x" * LIMIT)
        await turns(3)
        assert not task.done()
        await from_callback(wire.feed(feeding), b"x")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await task
        assert caught.value.consumed == LIMIT + 1
        assert await wire.reader.readexactly(LIMIT + 1) == b"x" * (LIMIT + 1)
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_readuntil_a_separator_in_two_pieces(run, streams, feeding):
    """A separator that arrives in two pieces wakes the waiting read at its last byte."""

    async def main():
        wire = Wire(streams)
        task = asyncio.create_task(wire.reader.readuntil(b"\r\n\r\n"))
        await turns(2)
        for piece in (b"head\r", b"\n", b"\r"):
            await from_callback(wire.feed(feeding), piece)
            await turns(2)
            assert not task.done()
        await from_callback(wire.feed(feeding), b"\nbody")
        assert await task == b"head\r\n\r\n"
        assert await wire.reader.read(10) == b"body"
        wire.shut()

    run(main)


ENDS = {
    "read": (lambda reader: reader.read(10), b"part"),
    "read_all": (lambda reader: reader.read(), b"part"),
    "readline": (lambda reader: reader.readline(), b"part"),
    "readexactly": (lambda reader: reader.readexactly(10), asyncio.IncompleteReadError),
    "readuntil": (lambda reader: reader.readuntil(b"!"), asyncio.IncompleteReadError),
}


@pytest.mark.parametrize("name", ENDS)
def test_eof(run, streams, name):
    """At EOF each read returns, or reports, the bytes that there are; the next one finds none."""
    read, expected = ENDS[name]

    async def main():
        for waiting in (True, False):
            wire = Wire(streams)
            if name != "read" or not waiting:
                wire.protocol.data_received(b"part")
            task = asyncio.create_task(read(wire.reader))
            if waiting:
                await turns(2)
                if name == "read":
                    wire.protocol.data_received(b"part")
            await from_callback(wire.protocol.eof_received)
            if expected is asyncio.IncompleteReadError:
                with pytest.raises(expected) as caught:
                    await task
                assert caught.value.partial == b"part"
                assert caught.value.expected == (10 if name == "readexactly" else None)
            else:
                assert await task == expected
            assert wire.reader.at_eof()
            assert await wire.reader.read() == b""
            wire.shut()

    run(main)


@pytest.mark.parametrize("name", ENDS)
def test_error_wakes(run, streams, name):
    """set_exception() ends a waiting read with the exception, and every read after it."""
    read = ENDS[name][0]

    async def main():
        wire = Wire(streams)
        task = asyncio.create_task(read(wire.reader))
        await turns(2)
        await from_callback(wire.reader.set_exception, KeyError("why"))
        for each in (task, read(wire.reader)):
            with pytest.raises(KeyError):
                await each
        wire.shut()

    run(main)


@pytest.mark.parametrize("name", ["readexactly", "readuntil"])
def test_cancel_then_read_one(run, streams, name):
    """After a cancelled wait for more, read(1) returns the first byte that was there, at once."""

    async def main():
        wire = Wire(streams)
        task = asyncio.create_task(ENDS[name][0](wire.reader))
        await turns(2)
        await from_callback(wire.protocol.data_received, b"abc")
        task.cancel()
        await asyncio.wait([task])
        assert await wire.reader.read(1) == b"a"
        assert await wire.reader.read(10) == b"bc"
        wire.shut()

    run(main)


# ---- data before the end


async def _broken(peer, reader, data):
    """Send *data* and then a reset; return when the loop has noticed both."""
    peer.sendall(data)
    await until(lambda: len(reader._buffer) == len(data))
    reset(peer)
    await until(lambda: reader.exception() is not None)


@pytest.mark.defect("gh-75044")
def test_data_before_reset(run, streams):
    """What came before a reset is read first, by any read that it satisfies; then each read raises
    ConnectionResetError."""

    async def main():
        for reads in (
            [
                (lambda reader: reader.readline(), b"line\n"),
                (lambda reader: reader.readexactly(4), b"rest"),
            ],
            [(lambda reader: reader.read(100), b"line\nrest")],
            [
                (lambda reader: reader.readuntil(b"e"), b"line"),
                (lambda reader: reader.read(100), b"\nrest"),
            ],
        ):
            async with connected(streams) as (reader, writer, peer):
                await _broken(peer, reader, b"line\nrest")
                for read, expected in reads:
                    assert await read(reader) == expected
                for _ in range(2):
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)

    run(main)


def test_data_and_reset_at_once(run, streams):
    """Data and a reset that arrive before the loop looks: the waiting read gets the data, and the
    next one the error."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            task = asyncio.create_task(reader.readline())
            await turns(2)
            peer.sendall(b"line\n")
            reset(peer)
            assert await task == b"line\n"
            with pytest.raises(ConnectionResetError):
                await reader.readline()

    run(main)


@pytest.mark.defect("gh-75044")
def test_data_before_a_broken_pipe(run, streams):
    """Where a write finds the connection gone, what had been received is still read, and drain()
    raises."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            peer.sendall(b"last words\n")
            await until(lambda: len(reader._buffer) > 0)
            peer.close()
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"into the void")
                    await writer.drain()
                    await asyncio.sleep(0.001)
            assert await reader.readline() == b"last words\n"

    run(main)


def test_data_before_fin(run, streams):
    """Data and FIN at once: the data, then b''."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            task = asyncio.create_task(reader.read(100))
            await turns(2)
            peer.sendall(b"last words")
            peer.close()
            assert await task == b"last words"
            assert await reader.read(100) == b""

    run(main)


def test_reading_is_paused_and_resumed(run, streams):
    """A reader pauses its transport above twice the limit, and resumes it at the limit; every byte
    is read."""

    async def main():
        wire = Wire(streams, RecordingTransport(), limit=LIMIT)
        await from_callback(wire.protocol.data_received, bytes(2 * LIMIT))
        assert wire.transport.calls == []
        await from_callback(wire.protocol.data_received, b"x")
        assert wire.transport.calls == ["pause_reading"]
        await wire.reader.readexactly(LIMIT)
        assert wire.transport.calls == ["pause_reading"]
        await wire.reader.readexactly(1)
        assert wire.transport.calls == ["pause_reading", "resume_reading"]
        assert await wire.reader.readexactly(LIMIT) == bytes(LIMIT - 1) + b"x"
        wire.shut()

    run(main)


@pytest.mark.parametrize("limit", [sys.maxsize, 2**62, 2**70, math.inf, 1e7])
def test_a_limit_beyond_all_memory(run, streams, limit):
    """A limit larger than all memory never pauses the transport, whatever its type."""

    async def main():
        wire = Wire(streams, limit=limit)
        wire.reader.feed_data(bytes(2**20))
        assert wire.transport.calls == []
        assert await wire.reader.read(2**70) == bytes(2**20)
        wire.reader.feed_data(b"abc")
        wire.reader.feed_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await wire.reader.readexactly(2**64)
        assert caught.value.partial == b"abc"
        wire.shut()

    run(main)


def test_what_set_exception_says_stands(run, streams):
    """A connection that is lost after set_exception() does not bring back what was buffered."""

    async def main():
        wire = Wire(streams)
        wire.reader.feed_data(b"abc")
        wire.reader.set_exception(LookupError())
        wire.protocol.connection_lost(ConnectionResetError())
        with pytest.raises(ConnectionResetError):
            await wire.reader.read(3)
        wire.shut()

    run(main)


@pytest.mark.parametrize("wrong", [5, "x", 1.5])
def test_feeding_what_is_no_bytes(run, streams, wrong):
    """What a bytearray cannot be extended by is a TypeError and leaves the buffer as it was; what
    it can be is taken as that."""

    async def main():
        wire = Wire(streams)
        wire.reader.feed_data(b"abc")
        with pytest.raises(TypeError):
            wire.reader.feed_data(wrong)
        wire.reader.feed_data(bytearray(b"de"))
        wire.reader.feed_data(memoryview(b"fg"))
        wire.reader.feed_data([104])
        wire.reader.feed_data("")
        assert await wire.reader.read(10) == b"abcdefgh"
        wire.shut()

    run(main)
