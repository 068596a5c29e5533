"""What a handler writes leaves before write() returns, in order; over TLS, before drain() does; and
behind it whatever ends the stream."""

from __future__ import annotations

import asyncio

import pytest
from conftest import STOCK, new_loop
from support.wires import (
    RecordingTransport,
    SecureTransport,
    Wire,
    connected,
    from_callback,
    received,
    sends_at_once,
    stepping,
    tcp_pair,
    turns,
)


async def _handled(peer, handler, question=b"question\n"):
    """Start *handler* as a task, let it wait, send it the question, and wait for its end."""
    task = asyncio.create_task(handler())
    await turns(2)
    peer.sendall(question)
    return await task


def test_each_write_leaves_at_once(run, streams):
    """The peer has each of a handler's writes before the handler goes on, with and without a
    drain()."""

    async def main():
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                if streams is not STOCK:
                    assert stepping() == (run.kind != "debug")
                for piece in (b"head\n", b"body\n", b"tail\n"):
                    writer.write(piece)
                    if sends_at_once(run.kind):
                        assert peer.recv(100) == piece
                await writer.drain()

            await _handled(peer, answering)
            writer.write_eof()
            assert await received(peer) == (
                b"" if sends_at_once(run.kind) else b"head\nbody\ntail\n"
            )

    run(main)


def test_writes_outside_a_step_go_at_once(run, streams):
    """Each write() of a task that headrace did not just wake goes to the transport within the
    call."""

    async def main():
        wire = Wire(streams)
        for piece in (b"a", bytearray(b"b"), memoryview(b"c")):
            wire.writer.write(piece)
            assert wire.transport.sent[-1] == bytes(piece)
        wire.writer.writelines([b"d", b"", b"e"])
        assert b"".join(wire.transport.sent) == b"abcde"
        wire.shut()

    run(main)


def test_block_after_drain(run, streams):
    """The peer has what was written before a drain(), though the handler then blocks the loop."""

    async def main():
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                writer.write(b"answer\n")
                await writer.drain()
                if sends_at_once(run.kind):
                    assert peer.recv(100) == b"answer\n"

            await _handled(peer, answering)
            writer.write_eof()
            assert await received(peer) == (b"" if sends_at_once(run.kind) else b"answer\n")

    run(main)


def test_wait_after_write(run, streams):
    """The peer has what was written without a drain() as soon as the handler waits for anything."""

    async def main():
        loop = asyncio.get_running_loop()
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                writer.write(b"answer\n")
                assert await loop.run_in_executor(None, peer.recv, 100) == b"answer\n"

            await _handled(peer, answering)

    run(main)


@pytest.mark.parametrize(
    "end",
    [
        "close",
        "write_eof",
        "transport.write",
        "transport.close",
        "transport.write_eof",
        "return",
        "cancel",
    ],
)
def test_order_and_end(run, streams, end):
    """What a handler wrote in its step arrives, in order, before whatever follows it: EOF, the
    close, a write to the transport."""

    async def main():
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                writer.write(b"one ")
                writer.writelines([b"two ", b"three "])
                if end.startswith("transport"):
                    writer.transport.write(b"four ")
                writer.write(b"five")
                if end == "close":
                    writer.close()
                elif end == "write_eof":
                    writer.write_eof()
                elif end == "transport.close":
                    writer.transport.close()
                elif end == "transport.write_eof":
                    writer.transport.write_eof()
                elif end == "cancel":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(0)

            task = asyncio.create_task(_handled(peer, answering))
            await asyncio.wait([task])
            assert task.cancelled() == (end == "cancel")
            if end in ("return", "cancel", "transport.write"):
                writer.close()
            expected = (
                b"one two three four five" if end.startswith("transport") else b"one two three five"
            )
            assert await received(peer) == expected

    run(main)


@pytest.mark.parametrize("order", [True, False])
def test_abort_in_a_step(run, streams, order):
    """A handler may abort its connection in its step, before or after it wrote; the peer sees the
    end and the handler's drain() raises."""

    async def main():
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                if order:
                    writer.write(b"answer\n")
                writer.transport.abort()
                writer.write(b"answer\n")
                with pytest.raises(ConnectionError):
                    while True:
                        await writer.drain()
                        await asyncio.sleep(0)

            await _handled(peer, answering)
            assert (await received(peer)) in ((b"", b"answer\n") if order else (b"",))

    run(main)


def test_write_to_another_connection(run, streams):
    """What a stepped handler writes to another connection leaves too, while the handler goes on
    waiting."""

    async def main():
        async with (
            connected(streams) as (reader, writer, peer),
            connected(streams) as (_, other_writer, other_peer),
        ):

            async def relaying():
                while line := await reader.readline():
                    other_writer.write(b"other " + line)
                    writer.write(b"own " + line)

            task = asyncio.create_task(relaying())
            await turns(2)
            loop = asyncio.get_running_loop()
            for _ in range(3):
                peer.sendall(b"line\n")
                assert await loop.run_in_executor(None, other_peer.recv, 100) == b"other line\n"
                assert await loop.run_in_executor(None, peer.recv, 100) == b"own line\n"
            peer.close()
            await task

    run(main)


def test_close_another_connection(run, streams):
    """A stepped handler may close another connection, on which another task waits: what it wrote
    there arrives, then EOF."""

    async def main():
        async with (
            connected(streams) as (reader, writer, peer),
            connected(streams) as (other_reader, other_writer, other_peer),
        ):

            async def closing():
                await reader.readline()
                other_writer.write(b"bye\n")
                other_writer.close()

            tasks = [asyncio.create_task(each) for each in (closing(), other_reader.readline())]
            await turns(2)
            peer.sendall(b"line\n")
            assert await asyncio.gather(*tasks) == [None, b""]
            assert await received(other_peer) == b"bye\n"

    run(main)


def test_mutable_buffers_may_be_changed_after_the_call(run, streams):
    """A bytearray changed right after write(), in a step, does not change what is sent."""

    async def main():
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                data = bytearray(b"right")
                writer.write(data)
                writer.write(memoryview(data)[:2])
                data[:] = b"wrong"
                data.clear()

            await _handled(peer, answering)
            writer.close()
            assert await received(peer) == b"rightri"

    run(main)


def test_items_wider_than_a_byte(run, streams):
    """A memoryview of wider items, written in a step, is sent byte for byte."""

    async def main():
        wire = Wire(streams)

        async def answering():
            await wire.reader.readline()
            wire.writer.write(memoryview(bytes(range(64))).cast("I"))

        task = asyncio.create_task(answering())
        await turns(2)
        await from_callback(wire.protocol.data_received, b"line\n")
        await task
        assert b"".join(wire.transport.sent) == bytes(range(64))
        wire.shut()

    run(main)


def test_tls_gathers_up_to_a_bound(run, ours):
    """Over TLS at most 64 KiB of plain text gather in a step: then they leave, and the rest follows
    in order."""

    async def main():
        wire = Wire(ours, SecureTransport())

        async def answering():
            await wire.reader.readline()
            for index in range(256):
                wire.writer.write(bytes([index]) * 1024)
                assert sum(map(len, wire.transport.sent)) + 65536 > index * 1024

        task = asyncio.create_task(answering())
        await turns(2)
        await from_callback(wire.protocol.data_received, b"line\n")
        await task
        assert b"".join(wire.transport.sent) == b"".join(
            bytes([index]) * 1024 for index in range(256)
        )
        if run.kind != "debug":
            assert len(wire.transport.sent) <= 5
        wire.shut()

    run(main)


def test_tls_sends_at_drain(run, ours):
    """Over TLS drain() sends what has gathered, as one piece, though more input is unread."""

    async def main():
        wire = Wire(ours, SecureTransport())

        async def answering():
            for _ in range(3):
                await wire.reader.readline()
                before = len(wire.transport.sent)
                wire.writer.write(b"head ")
                wire.writer.write(b"body\n")
                await wire.writer.drain()
                assert b"".join(wire.transport.sent[before:]) == b"head body\n"
                assert len(wire.transport.sent) == before + 1 or run.kind == "debug"

        task = asyncio.create_task(answering())
        await turns(2)
        await from_callback(wire.protocol.data_received, b"line\n" * 3)
        await task
        wire.shut()

    run(main)


def test_one_large_write_after_small_ones(run, ours):
    """A small write and then a large one in a step keep their order, over TLS too."""

    async def main():
        for transport in (RecordingTransport(), SecureTransport()):
            wire = Wire(ours, transport)

            async def answering(wire=wire):
                await wire.reader.readline()
                wire.writer.write(b"small")
                wire.writer.write(b"L" * 100_000)
                wire.writer.write(b"end")

            task = asyncio.create_task(answering())
            await turns(2)
            await from_callback(wire.protocol.data_received, b"line\n")
            await task
            assert b"".join(wire.transport.sent) == b"small" + b"L" * 100_000 + b"end"
            wire.shut()

    run(main)


def test_drain_after_a_large_answer_waits(run, streams):
    """drain() in a step waits until a slow peer has taken enough; every byte arrives."""
    size = 8 * 1024 * 1024

    async def main():
        async with connected(streams) as (reader, writer, peer):
            drained = asyncio.Event()

            async def answering():
                await reader.readline()
                for _ in range(8):
                    writer.write(bytes(size // 8))
                await writer.drain()
                drained.set()

            task = asyncio.create_task(_handled(peer, answering))
            await turns(20)
            await asyncio.sleep(0.01)
            assert not drained.is_set()
            receiving = asyncio.create_task(received(peer))
            await task
            writer.close()
            assert len(await receiving) == size

    run(main)


def test_a_transport_that_fails_is_reported(run, ours):
    """Where sending what a step gathered fails, the loop's exception handler is told, and other
    connections of the step are served."""
    errors = run.expect_errors()

    class Failing(SecureTransport):
        def write(self, data):
            raise ValueError("no")

    async def main():
        wire, failing = Wire(ours), Wire(ours, Failing())

        async def answering():
            await wire.reader.readline()
            if stepping():
                failing.writer.write(b"lost")
            wire.writer.write(b"sent")

        task = asyncio.create_task(answering())
        await turns(2)
        await from_callback(wire.protocol.data_received, b"line\n")
        await task
        assert wire.transport.sent == [b"sent"]
        assert [repr(each["exception"]) for each in errors] == (
            [] if run.kind == "debug" else ["ValueError('no')"]
        )
        assert not stepping()
        for each in (wire, failing):
            each.shut()

    run(main)


def test_the_loops_last_turn(loop_kind, streams):
    """What a handler wrote in the turn that stops the loop has left by then, without a drain()."""
    loop = new_loop(loop_kind)
    end, peer = tcp_pair()

    async def main():
        reader, writer = await streams.open_connection(sock=end)
        await reader.readline()
        writer.write(b"head ")
        writer.write(b"body")
        loop.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0)

    task = loop.create_task(main())
    loop.call_later(0.005, peer.sendall, b"line\n")
    loop.run_forever()
    got = peer.recv(5)
    loop.run_until_complete(task)
    loop.close()
    while piece := peer.recv(100):
        got += piece
    peer.close()
    assert got == b"head body"
