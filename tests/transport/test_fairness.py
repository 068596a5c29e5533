"""No connection, however fast, keeps the loop for itself: timers and others get their turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest
from support.wires import RecordingTransport, Wire, connected, from_callback, received, turns

# How often a flood may go round before a timer of 1 ms has had to run three times: many times that.
ROUNDS = 30_000
# How late that timer may be, in seconds, on a machine that is busy with other things.
LATE_S = 0.25


class Ticks:
    """A 1 ms timer that starts itself again; ``count`` and the worst delay, in seconds."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.count = 0
        self.worst = 0.0
        self._start()

    def _start(self):
        self.due = self.loop.time() + 0.001
        self.handle = self.loop.call_at(self.due, self._tick)

    def _tick(self):
        self.worst = max(self.worst, self.loop.time() - self.due)
        self.count += 1
        self._start()

    def stop(self):
        self.handle.cancel()


class Sink(RecordingTransport):
    """A peer that takes everything at once."""

    def write(self, data):
        pass


@pytest.mark.defect("gh-75279")
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_flooding_writer(run, streams, size):
    """A task that writes and drains to a peer that takes everything at once lets a 1 ms timer
    run."""

    async def main():
        wire = Wire(streams, Sink())
        ticks = Ticks()
        rounds = 0
        while ticks.count < 3 and rounds < ROUNDS:
            wire.writer.write(bytes(size))
            await wire.writer.drain()
            rounds += 1
        ticks.stop()
        wire.shut()
        assert ticks.count == 3
        assert ticks.worst < LATE_S

    run(main)


@pytest.mark.parametrize("flood", ["write", "echo"])
def test_a_real_flood(run, ours, flood):
    """Beside a connection that is written to, or echoed, as fast as it goes, a 1 ms timer runs on
    time."""

    async def main():
        async with connected(ours) as (reader, writer, peer):
            ended = threading.Event()

            def receive():
                with contextlib.suppress(OSError):
                    while not ended.is_set() and peer.recv(1 << 18):
                        pass

            def send():
                with contextlib.suppress(OSError):
                    while not ended.is_set():
                        peer.sendall(bytes(1 << 16))

            threads = [threading.Thread(target=receive)]
            if flood == "echo":
                threads.append(threading.Thread(target=send))

            async def flooding():
                while True:
                    writer.write(await reader.read(1 << 16) if flood == "echo" else bytes(1 << 12))
                    await writer.drain()

            for thread in threads:
                thread.start()
            task = asyncio.create_task(flooding())
            ticks = Ticks()
            loop = asyncio.get_running_loop()
            end = loop.time() + 2
            while ticks.count < 20 and loop.time() < end:
                await asyncio.sleep(0.01)
            ticks.stop()
            ended.set()
            task.cancel()
            await asyncio.wait([task])
            writer.transport.abort()
            for thread in threads:
                await loop.run_in_executor(None, thread.join)
            assert ticks.count >= 20
            assert ticks.worst < LATE_S

    run(main)


@pytest.mark.parametrize("name", ["readexactly", "readline", "readuntil", "read", "async for"])
def test_a_reader_of_a_flood(run, ours, name):
    """A task whose every read finds its bytes there already lets the loop go on: here a callback
    that feeds it without end."""
    reads = {
        "readexactly": lambda reader: reader.readexactly(2),
        "readline": lambda reader: reader.readline(),
        "readuntil": lambda reader: reader.readuntil(b"\n"),
        "read": lambda reader: reader.read(2),
    }

    async def main():
        wire = Wire(ours)
        wire.reader.feed_data(b"x\n" * ROUNDS)
        ticks = Ticks()
        rounds = 0
        if name == "async for":
            async for _ in wire.reader:
                rounds += 1
                if ticks.count == 3:
                    break
        else:
            while ticks.count < 3 and rounds < ROUNDS:
                await reads[name](wire.reader)
                rounds += 1
        ticks.stop()
        wire.shut()
        assert ticks.count == 3

    run(main, timeout_s=10)


def test_a_ping_pong_in_memory(run, ours):
    """Two tasks that answer each other over transports which deliver at once cannot delay a 1 ms
    timer."""

    async def main():
        ends = []

        class Crossed(RecordingTransport):
            def write(self, data):
                ends[1 - self.side].protocol.data_received(data)

        for side in (0, 1):
            transport = Crossed()
            transport.side = side
            ends.append(Wire(ours, transport))
        rounds = 0

        async def answering(wire):
            nonlocal rounds
            while rounds < ROUNDS:
                rounds += 1
                wire.writer.write(await wire.reader.readline())
                await wire.writer.drain()

        tasks = [asyncio.create_task(answering(wire)) for wire in ends]
        await turns(2)
        ticks = Ticks()
        await from_callback(ends[0].protocol.data_received, b"ball\n")
        while ticks.count < 5 and rounds < ROUNDS:
            await asyncio.sleep(0)
        ticks.stop()
        assert ticks.count == 5
        assert ticks.worst < LATE_S
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for wire in ends:
            wire.shut()

    run(main)


def test_floods_share_the_loop(run, ours):
    """Of four connections whose peers send as fast as they can, each is served: none starves behind
    another."""
    goal = 1 << 18

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(connected(ours)) for _ in range(4)]
            ended = threading.Event()
            counts = [0] * 4

            def send(peer):
                with contextlib.suppress(OSError):
                    while not ended.is_set():
                        peer.sendall(bytes(1 << 16))

            async def reading(index, reader):
                while data := await reader.read(1 << 14):
                    counts[index] += len(data)

            threads = [threading.Thread(target=send, args=(peer,)) for _, _, peer in ends]
            tasks = [
                asyncio.create_task(reading(index, reader))
                for index, (reader, _, _) in enumerate(ends)
            ]
            for thread in threads:
                thread.start()
            loop = asyncio.get_running_loop()
            end = loop.time() + 5
            while min(counts) < goal and loop.time() < end:
                await asyncio.sleep(0.001)
            ended.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for _, writer, _ in ends:
                writer.transport.abort()
            for thread in threads:
                await loop.run_in_executor(None, thread.join)
            assert min(counts) >= goal

    run(main)


def test_every_turn_of_a_budget_ends(run, ours):
    """Reads that complete at once give the loop a turn after at most a few hundred of them, again
    and again."""

    async def main():
        wire = Wire(ours)
        wire.reader.feed_data(bytes(5000))
        turned = []

        def turn():
            turned.append(5000 - len(wire.reader._buffer))
            handle[0] = asyncio.get_running_loop().call_soon(turn)

        handle = [asyncio.get_running_loop().call_soon(turn)]
        for _ in range(5000):
            await wire.reader.readexactly(1)
        handle[0].cancel()
        assert max(after - before for before, after in itertools.pairwise(turned)) <= 512
        assert len(turned) >= 10
        wire.shut()

    run(main)


def test_a_bounded_stream_still_ends(run, ours):
    """The turns given to others lose nothing: a quarter of a megabyte echoed line by line comes
    back whole."""

    async def main():
        async with connected(ours) as (reader, writer, peer):

            async def answering():
                async for line in reader:
                    writer.write(line)
                    await writer.drain()
                writer.write_eof()

            sent = b"".join(b"%060d\n" % index for index in range(1 << 12))

            def send():
                peer.sendall(sent)
                peer.shutdown(1)

            loop = asyncio.get_running_loop()
            task = asyncio.create_task(answering())
            sending = loop.run_in_executor(None, send)
            assert await received(peer) == sent
            await sending
            await task

    run(main)
