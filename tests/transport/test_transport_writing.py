"""The transport behind ``writer.transport``: what is written leaves whole and in its order, and
stops where the transport ends.

Each test runs on the transports of asyncio's loop and of uvloop, and on ours.
"""

from __future__ import annotations

import array
import asyncio
import socket

import pytest
from support.connections import patience, receive, until
from support.transports import BIG, FIXTURES, Recorder, stuffed, taken
from support.wires import turns

loop_kind, ours, streams = FIXTURES

# ---- writing


@pytest.mark.parametrize(
    "data",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(bytearray(b"012345678"))[1:],
    ],
    ids=["bytes", "bytearray", "memoryview", "slice"],
)
def test_what_can_be_written(run, streams, data):
    """bytes, bytearray and memoryview arrive whole."""

    async def main():
        async with taken(streams) as (transport, _, peer):
            transport.write(data)
            transport.writelines([data, data])
            assert await receive(peer, 24) == b"12345678" * 3

    run(main)


VIEWS = {
    "wide": (memoryview(array.array("I", [0x34333231, 0x38373635])), b"12345678"),
    "gaps": (memoryview(b"1.2.3.4.")[::2], b"1234"),
    "backwards": (memoryview(b"4321")[::-1], b"1234"),
    "two dimensions": (memoryview(b"123456").cast("B", (2, 3)), b"123456"),
}


@pytest.mark.defect("gh-135862")
@pytest.mark.parametrize("name", ["write", "writelines"])
@pytest.mark.parametrize("kind", VIEWS)
def test_views_of_all_kinds(run, streams, name, kind):
    """A memoryview, whatever its items and however they lie, is written as the bytes that it
    shows."""
    view, shown = VIEWS[kind]

    async def main():
        async with taken(streams) as (transport, _, peer):
            transport.write(view) if name == "write" else transport.writelines([view, view])
            transport.close()
            assert await receive(peer) == (shown if name == "write" else shown + shown)

    run(main)


@pytest.mark.defect("gh-135862")
def test_wide_views_with_a_full_queue(run, streams):
    """A view of wide items that is queued arrives whole, and counts in bytes."""

    async def main():
        async with taken(streams) as (transport, _, peer):
            await stuffed(transport)
            before = transport.get_write_buffer_size()
            transport.write(memoryview(array.array("Q", [7] * 1000)))
            assert transport.get_write_buffer_size() == before + 8000
            transport.close()
            assert await receive(peer) == bytes(BIG) + array.array("Q", [7] * 1000).tobytes()

    run(main)


@pytest.mark.parametrize("wrong", ["text", 7, [1], object()])
def test_what_cannot_be_written(run, streams, wrong):
    """Anything else is a TypeError, also in a list, and the connection goes on."""

    async def main():
        async with taken(streams) as (transport, _, peer):
            with pytest.raises(TypeError):
                transport.write(wrong)
            with pytest.raises(TypeError):
                transport.writelines([wrong])
            transport.write(b"right")
            transport.close()
            assert await receive(peer) == b"right"

    run(main)


def test_nothing_to_write(run, streams):
    """Empty data, empty lists and empty chunks send nothing, and break nothing."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            for empty in b"", bytearray(), memoryview(b""):
                transport.write(empty)
            transport.writelines([])
            transport.writelines([b"", bytearray()])
            transport.writelines(iter(()))
            assert transport.get_write_buffer_size() == 0
            transport.write(b"something")
            transport.close()
            assert await receive(peer) == b"something"
            assert protocol.calls == ["connection_lost"]

    run(main)


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, lambda chunks: (each for each in chunks)],
    ids=["list", "tuple", "iterator", "generator"],
)
@pytest.mark.parametrize("count", [3, 1000])
def test_writelines_takes_any_iterable(run, streams, make, count):
    """writelines() takes lists, tuples, iterators and generators, of more chunks than one system
    call takes."""

    async def main():
        chunks = [b"%d," % index for index in range(count)]
        async with taken(streams) as (transport, _, peer):
            transport.writelines(make(chunks))
            assert await receive(peer, len(b"".join(chunks))) == b"".join(chunks)

    run(main)


@pytest.mark.defect("gh-155888")
def test_empty_chunks_behind_a_full_queue(run, streams):
    """Empty chunks that are queued count for nothing: the queue empties, and close() ends."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.writelines([b"", b"x", b""])
            transport.close()
            async with asyncio.timeout(patience(streams)):
                assert await receive(peer) == bytes(BIG) + b"x"
                assert await protocol.lost is None

    run(main)


def test_order_of_all_kinds_of_writes(run, streams):
    """What is written in many ways, with a queue and without, arrives in its order, whole."""

    async def main():
        async with taken(streams) as (transport, _, peer):
            sent = []
            for index in range(300):
                size = (index * 7919) % 40_000
                pieces = [bytes([index % 256]) * size, b"%d" % index]
                transport.writelines(pieces) if index % 2 else transport.write(b"".join(pieces))
                sent += pieces
                if index % 50 == 0:
                    await asyncio.sleep(0)
            transport.close()
            assert await receive(peer) == b"".join(sent)

    run(main)


def test_write_eof(run, streams):
    """write_eof() closes our half only: the peer sees the end, and what it answers arrives. A
    second one is nothing."""

    async def main():
        async with taken(streams, Recorder(keep_open=True)) as (transport, protocol, peer):
            transport.write(b"last words")
            transport.write_eof()
            transport.write_eof()
            assert await receive(peer) == b"last words"
            assert not transport.is_closing()
            peer.send(b"answer")
            await until(lambda: protocol.data == b"answer")
            with pytest.raises(RuntimeError, match="write_eof"):
                transport.write(b"more")
            with pytest.raises(RuntimeError, match="write_eof"):
                transport.writelines([b"more"])
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.calls)
            transport.close()
            assert await protocol.lost is None

    run(main)


def test_write_eof_with_unsent_data(run, streams):
    """write_eof() behind what could not be sent yet: everything arrives, then the end."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.write_eof()
            with pytest.raises(RuntimeError, match="write_eof"):
                transport.write(b"more")
            assert await receive(peer) == bytes(BIG)
            assert not transport.is_closing()
            peer.send(b"answer")
            await until(lambda: protocol.data == b"answer")

    run(main)


def test_write_eof_then_close(run, streams):
    """close() behind a write_eof() that waits for unsent data: everything arrives, and the
    connection ends without an error."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.write_eof()
            transport.close()
            assert await receive(peer) == bytes(BIG)
            assert await protocol.lost is None

    run(main)


# ---- ending


def test_close_sends_what_is_unsent(run, streams):
    """close() sends everything that was written, tells the protocol after that, and drops what
    arrives meanwhile."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.close()
            assert transport.is_closing()
            assert not transport.is_reading()
            # Not sent here: a close with something unread is a reset, which may overtake what is
            # still on its way to the peer.
            await asyncio.sleep(0.005)
            assert "connection_lost" not in protocol.calls
            assert len(await receive(peer)) == BIG
            assert await protocol.lost is None
            assert protocol.calls[-1:] == ["connection_lost"]
            assert protocol.calls.count("connection_lost") == 1

    run(main)


def test_what_arrives_after_close_is_dropped(run, streams):
    """After close() no data and no EOF are given to the protocol, though what was written is still
    on its way."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.close()
            peer.send(b"too late")
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.005)
            assert protocol.data == b""
            assert "eof_received" not in protocol.calls

    run(main)


def test_abort_drops_what_is_unsent(run, streams):
    """abort() forgets what was not sent, and tells the protocol None, but not before it returns."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            await stuffed(transport)
            transport.abort()
            assert transport.is_closing()
            assert "connection_lost" not in protocol.calls
            assert await protocol.lost is None
            await turns(2)
            assert len(await receive(peer)) < BIG

    run(main)


def end(transport):
    transport.close()
    transport.close()
    transport.abort()
    transport.abort()
    transport.close()


@pytest.mark.parametrize("unsent", [False, True])
def test_ending_again_and_again(run, streams, unsent):
    """close() and abort() may be called in any number and order, before the protocol is told and
    after: it is told once."""

    async def main():
        async with taken(streams) as (transport, protocol, _):
            if unsent:
                await stuffed(transport)
            end(transport)
            assert await protocol.lost is None
            await turns(3)
            if (
                streams.name == "headrace"
            ):  # asyncio's transports, once closed, have no loop to close with
                end(transport)
            await turns(3)
            assert protocol.calls.count("connection_lost") == 1
            assert transport.is_closing()

    run(main)


def test_abort_after_close(run, streams):
    """abort() ends a close() that waits for a peer which takes nothing."""

    async def main():
        async with taken(streams) as (transport, protocol, _):
            await stuffed(transport)
            transport.close()
            await asyncio.sleep(0.002)
            assert not protocol.lost.done()
            transport.abort()
            assert await asyncio.wait_for(protocol.lost, 2) is None

    run(main)


@pytest.mark.defect("gh-115514")
@pytest.mark.parametrize("unsent", [False, True])
def test_writes_after_close_are_dropped(run, streams, unsent):
    """What is written after close() is dropped, without an error."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            if unsent:
                await stuffed(transport)
            transport.close()
            transport.write(b"late")
            transport.writelines([b"late", b"r"])
            transport.write_eof()
            assert await receive(peer) == bytes(BIG if unsent else 0)
            assert await protocol.lost is None
            transport.write(b"later still")
            assert transport.get_write_buffer_size() == 0

    run(main)


def test_methods_after_the_end(run, ours):
    """On a transport that is closed every method still answers, and none does anything."""

    async def main():
        async with taken(ours) as (transport, protocol, _):
            transport.close()
            await protocol.lost
            await turns(2)
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"x")
            transport.writelines([b"x"])
            transport.write_eof()
            transport.set_write_buffer_limits(5)
            assert not transport.is_reading()
            assert transport.is_closing()
            assert transport.get_protocol() is None
            assert transport.get_write_buffer_size() == 0
            assert transport.get_write_buffer_limits() == (1, 5)
            end(transport)
            await turns(3)
            assert protocol.calls == ["connection_lost"]

    run(main)
