"""What a handler writes in a step gathers and leaves together, and nobody can tell but by the speed: nothing late, lost or out of order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from conftest import new_loop
from wires import RecordingTransport, Wire, connected, from_callback, received, segments_received, stepping, tcp_pair, turns


async def _handled(peer, handler, question=b"question\n"):
    """Start *handler* as a task, let it wait, send it the question, and wait for its end."""
    task = asyncio.create_task(handler())
    await turns(2)
    peer.sendall(question)
    return await task


def _at_once(run, streams) -> bool:
    """Return whether a write reaches the socket within the call on this kind of loop: uvloop sends at the end of its turn."""
    return run.kind != "uvloop"


def test_header_and_body_leave_in_one_segment(run, ours):
    """Three writes of a handler that was just woken make one TCP segment, where asyncio sends three."""

    async def main():
        async with connected(ours) as (reader, writer, peer):

            async def answering():
                await reader.readline()
                assert stepping() == (run.kind != "debug")
                for piece in (b"head\n", b"body\n", b"tail\n"):
                    writer.write(piece)

            await _handled(peer, answering)
            writer.close()
            assert await received(peer) == b"head\nbody\ntail\n"
            if run.kind != "debug":
                assert segments_received(peer) == 1

    run(main)


def test_writes_outside_a_step_go_at_once(run, streams):
    """Each write() of a task that headrace did not just wake goes to the transport within the call."""

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
                if _at_once(run, streams):
                    assert peer.recv(100) == b"answer\n"

            await _handled(peer, answering)
            writer.write_eof()
            assert await received(peer) == (b"" if _at_once(run, streams) else b"answer\n")

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


def test_first_of_many_slow_answers_comes_early(run, streams):
    """With ten pipelined questions, each answered in 1 ms and drained, the first answers are out while the later ones are worked at."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            early = []

            async def answering():
                for index in range(10):
                    await reader.readline()
                    time.sleep(0.001)
                    writer.write(b"%d\n" % index)
                    await writer.drain()
                    if index == 4 and _at_once(run, streams):
                        early.append(peer.recv(100))

            await _handled(peer, answering, b"question\n" * 10)
            if _at_once(run, streams):
                assert early[0].startswith(b"0\n1\n2\n")
            writer.write_eof()
            assert b"".join(early) + await received(peer) == b"".join(b"%d\n" % index for index in range(10))

    run(main)


def test_fast_answers_share_segments(run, ours):
    """Thirty-two pipelined questions whose answers cost next to nothing take far fewer segments than answers."""
    if run.kind == "debug":
        pytest.skip("in debug mode nothing is stepped")

    async def main():
        async with connected(ours) as (reader, writer, peer):

            async def answering():
                for _ in range(32):
                    writer.write(await reader.readline())
                    await writer.drain()

            await _handled(peer, answering, b"question\n" * 32)
            writer.write_eof()
            assert await received(peer) == b"question\n" * 32
            assert segments_received(peer) < 16

    run(main)


@pytest.mark.parametrize("end", ["close", "write_eof", "transport.write", "transport.close", "transport.write_eof", "return", "cancel"])
def test_order_and_end(run, streams, end):
    """What a handler wrote in its step arrives, in order, before whatever follows it: EOF, the close, a write to the transport."""

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
            expected = b"one two three four five" if end.startswith("transport") else b"one two three five"
            assert await received(peer) == expected

    run(main)


@pytest.mark.parametrize("order", [True, False])
def test_abort_in_a_step(run, streams, order):
    """A handler may abort its connection in its step, before or after it wrote; the peer sees the end and the handler's drain() raises."""

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
    """What a stepped handler writes to another connection leaves too, while the handler goes on waiting."""

    async def main():
        async with connected(streams) as (reader, writer, peer), connected(streams) as (_, other_writer, other_peer):

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
    """A stepped handler may close another connection, on which another task waits: what it wrote there arrives, then EOF."""

    async def main():
        async with connected(streams) as (reader, writer, peer), connected(streams) as (other_reader, other_writer, other_peer):

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


def test_gathering_is_bounded(run, ours):
    """In one step at most 64 KiB gather: then they leave, and the rest follows in order."""

    async def main():
        wire = Wire(ours)

        async def answering():
            await wire.reader.readline()
            for index in range(256):
                wire.writer.write(bytes([index]) * 1024)
                assert sum(map(len, wire.transport.sent)) + 65536 > index * 1024

        task = asyncio.create_task(answering())
        await turns(2)
        await from_callback(wire.protocol.data_received, b"line\n")
        await task
        assert b"".join(wire.transport.sent) == b"".join(bytes([index]) * 1024 for index in range(256))
        if run.kind != "debug":
            assert len(wire.transport.sent) <= 5
        wire.shut()

    run(main)


def test_one_large_write_after_small_ones(run, ours):
    """A small write and then a large one in a step keep their order."""

    async def main():
        wire = Wire(ours)

        async def answering():
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
    """Where sending what a step wrote fails, the loop's exception handler is told, and other connections of the step are served."""
    errors = run.expect_errors()

    class Failing(RecordingTransport):
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
        assert [repr(each["exception"]) for each in errors] == ([] if run.kind == "debug" else ["ValueError('no')"])
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


def test_exit_after_drain():
    """os._exit() right after a drain() in a step loses nothing on asyncio's loop."""
    program = """
import asyncio, os, socket, sys, headrace

async def main():
    reader, writer = await headrace.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    await reader.readline()
    writer.write(b"head ")
    writer.write(b"body")
    await writer.drain()
    os._exit(0)

asyncio.run(main())
"""
    end, peer = tcp_pair()
    with end, peer:
        child = subprocess.Popen([sys.executable, "-c", program, str(end.fileno())], pass_fds=[end.fileno()])
        end.close()
        time.sleep(0.05)
        peer.sendall(b"line\n")
        try:
            assert peer.recv(100) == b"head body"
            assert peer.recv(100) == b""
        finally:
            assert child.wait(10) == 0
