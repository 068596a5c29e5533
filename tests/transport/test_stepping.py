"""Waiting tasks are resumed in the loop's next turn, in order, by one handle for all. A wake is
never lost, nor in the wrong place."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading

import pytest
from conftest import new_loop
from support.wires import FEEDS, RecordingTransport, Wire, connected, from_callback, stepping, turns

import headrace


def steps(run) -> bool:
    """Return whether tasks are stepped on this kind of loop: not in debug mode, whose log would
    blame headrace's callback."""
    return run.kind != "debug"


@pytest.mark.parametrize("feeding", FEEDS)
def test_a_task_is_resumed_in_its_turn(run, streams, feeding):
    """What was ready before the bytes came runs first, then the task that waited for them, then
    what became ready later."""

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()
        order = []

        async def reading():
            while data := await wire.reader.read(1):
                order.append(data)

        def deliver(data):
            loop.call_soon(order.append, "before")
            wire.feed(feeding)(data)
            loop.call_soon(order.append, "after")
            order.append("returned")

        task = asyncio.create_task(reading())
        await turns(2)
        await from_callback(deliver, b"a")
        await turns(2)
        assert order == ["returned", "before", b"a", "after"]
        wire.reader.feed_eof()
        await task
        wire.shut()

    run(main)


@pytest.mark.parametrize("feeding", FEEDS)
def test_one_handle_resumes_all(run, ours, feeding, monkeypatch):
    """However many tasks can go on, the loop is asked for one handle, which resumes them in the
    order in which their bytes came."""
    if run.kind == "uvloop":
        pytest.skip("its call_soon() cannot be replaced")

    async def main():
        loop = asyncio.get_running_loop()
        wires = [Wire(ours) for _ in range(5)]
        order, handles, calls = [], [], []

        async def reading(index):
            await wires[index].reader.readexactly(1)
            order.append(index)
            assert stepping() == steps(run)

        tasks = [asyncio.create_task(reading(index)) for index in range(5)]
        await turns(2)

        def deliver():
            call_soon = loop.call_soon
            with monkeypatch.context() as patch:
                patch.setattr(
                    loop,
                    "call_soon",
                    lambda *a, **k: (calls.append(a), handles.append(call_soon(*a, **k)))[1],
                )
                for index in (3, 1, 4, 0, 2):
                    wires[index].feed(feeding)(b"x")

        await from_callback(deliver)
        await asyncio.gather(*tasks)
        assert order == [3, 1, 4, 0, 2]
        assert len(calls) == (1 if steps(run) else 5)
        for wire in wires:
            wire.shut()

    run(main)


def test_a_cancellation_is_not_overtaken(run, streams):
    """A task that cancels another because of what it read does so no earlier than in asyncio:
    wait_for() of 3.11 swallows an early one."""

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def main():
        server = await streams.start_server(echo, "127.0.0.1", 0)
        silent, silent_writer = await streams.open_connection(*server.sockets[0].getsockname())
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname())

        async def send():
            writer.write(b"x")
            await writer.drain()

        async def victim():
            await asyncio.wait_for(send(), 5)
            await silent.read(1)

        for _ in range(10):
            task = asyncio.create_task(victim())
            assert await reader.read(1) == b"x"
            task.cancel()
            await asyncio.wait([task], timeout=2)
            assert task.cancelled()
        for each in (writer, silent_writer):
            each.close()
            await each.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)


def test_a_new_task_is_not_overtaken(run, streams):
    """What a task makes ready has its turn before the answer to what it sends next, however quick
    that is: programs count on it."""

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def main():
        order = []
        server = await streams.start_server(echo, "127.0.0.1", 0)
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname())

        async def other():
            order.append("task")

        for _ in range(10):
            task = asyncio.create_task(other())
            for _ in range(3):
                writer.write(b"line\n")
                await reader.readline()
                order.append("answer")
            await task
        assert order == ["task", "answer", "answer", "answer"] * 10
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)


def test_real_connections_are_stepped(run, ours):
    """On a connection of open_connection(), over the loop's own transport, a waiting task is
    stepped."""

    async def main():
        async with connected(ours) as (reader, writer, peer):
            seen = []

            async def reading():
                while await reader.readline():
                    seen.append(stepping())

            task = asyncio.create_task(reading())
            await turns()
            for count in (1, 2):
                peer.sendall(b"line\n")
                while len(seen) < count:
                    await asyncio.sleep(0.001)
            peer.close()
            await task
            assert seen == [steps(run)] * 2

    run(main)


def test_fed_by_a_task(run, streams):
    """Bytes that a task delivers, by whichever method, wake the reader after the task's step and
    not inside it."""

    async def main():
        wire = Wire(streams)
        order = []

        async def reading():
            while data := await wire.reader.read(100):
                order.append(data)

        async def feeding():
            for feed in (wire.protocol.data_received, wire.reader.feed_data):
                feed(b"a")
                order.append("fed")
                await turns(3)

        task = asyncio.create_task(reading())
        await turns(2)
        await asyncio.create_task(feeding())
        assert order == ["fed", b"a"] * 2
        wire.reader.feed_eof()
        await task
        wire.shut()

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_fed_by_an_eager_start(run, streams):
    """Bytes delivered in the eager first step of a task, started by a plain callback, wake the
    reader after it."""

    async def main():
        wire = Wire(streams)
        order = []

        async def reading():
            order.append(await wire.reader.read(100))

        async def feeding():
            wire.protocol.data_received(b"a")
            order.append("fed")

        task = asyncio.create_task(reading())
        await turns(2)
        await from_callback(
            lambda: asyncio.Task(feeding(), loop=asyncio.get_running_loop(), eager_start=True)
        )
        await task
        assert order == ["fed", b"a"]
        wire.shut()

    run(main)


@pytest.mark.parametrize("method", ["data_received", "feed_data"])
def test_fed_by_another_thread(run, streams, method):
    """Bytes from another thread, handed over by call_soon_threadsafe(), are read in the loop's
    thread."""

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()
        threads = []

        async def reading():
            for _ in range(50):
                await wire.reader.readexactly(3)
                threads.append(threading.current_thread())

        task = asyncio.create_task(reading())
        await turns()
        feed = wire.protocol.data_received if method == "data_received" else wire.reader.feed_data

        def feeding():
            for _ in range(50):
                loop.call_soon_threadsafe(feed, b"abc")

        thread = threading.Thread(target=feeding)
        thread.start()
        await task
        await loop.run_in_executor(None, thread.join)
        assert set(threads) == {threading.main_thread()}
        wire.shut()

    run(main)


def test_fed_in_the_wrong_thread(run, streams):
    """data_received() called from another thread, against the rules, does not run the waiting task
    there."""
    if run.kind == "debug":
        pytest.skip("a debug loop refuses call_soon() from another thread")

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()

        async def reading():
            return await wire.reader.readexactly(3), threading.current_thread()

        task = asyncio.create_task(reading())
        await turns()
        thread = threading.Thread(target=wire.protocol.data_received, args=(b"abc",))
        thread.start()
        await loop.run_in_executor(None, thread.join)
        assert await task == (b"abc", threading.main_thread())
        wire.shut()

    run(main)


def test_fed_while_the_loop_stands_still(loop_kind, streams):
    """Bytes delivered to a stopped loop, or while another loop runs, are read when the loop runs
    again and not before."""
    loop, other = new_loop(loop_kind), new_loop(loop_kind)

    async def make():
        return Wire(streams)

    async def deliver(wire):
        asyncio.get_running_loop().call_soon(wire.protocol.data_received, b"def")
        await turns(3)

    try:
        wire = loop.run_until_complete(make())
        got = []

        async def reading():
            got.append(await wire.reader.readexactly(3))
            got.append(await wire.reader.readexactly(3))

        task = loop.create_task(reading())
        loop.run_until_complete(asyncio.sleep(0))
        wire.protocol.data_received(b"abc")
        assert got == []
        loop.run_until_complete(turns(3))
        assert got == [b"abc"]
        other.run_until_complete(deliver(wire))
        assert got == [b"abc"]
        loop.run_until_complete(task)
        assert got == [b"abc", b"def"]
        wire.shut()
    finally:
        loop.close()
        other.close()


def test_fed_inside_the_tasks_own_context(run, streams):
    """Bytes delivered by a callback that runs in the very Context of the waiting task wake it,
    later."""

    async def main():
        wire = Wire(streams)
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        task = loop.create_task(wire.reader.readexactly(3), context=context)
        await turns()
        loop.call_soon(wire.protocol.data_received, b"abc", context=context)
        assert await task == b"abc"
        wire.shut()

    run(main)


def test_no_step_inside_a_step(run, ours):
    """What a stepped task delivers to another reader is read after its step, in the order of
    delivery."""

    async def main():
        first, second, third = Wire(ours), Wire(ours), Wire(ours)
        order = []

        async def relaying():
            data = await first.reader.read(100)
            second.protocol.data_received(data)
            third.protocol.data_received(data)
            order.append("relayed")
            second.protocol.data_received(data)
            await asyncio.sleep(0)

        async def reading(name, wire):
            order.append((name, await wire.reader.read(100)))

        tasks = [
            asyncio.create_task(each)
            for each in (relaying(), reading("second", second), reading("third", third))
        ]
        await turns(2)
        await from_callback(first.protocol.data_received, b"a")
        await asyncio.gather(*tasks)
        assert order == ["relayed", ("second", b"aa"), ("third", b"a")]
        for wire in (first, second, third):
            wire.shut()

    run(main)


def test_no_step_for_the_end(run, streams):
    """eof_received(), connection_lost() and resume_writing() resume nobody: the loop's transport is
    in the middle of its own work."""

    async def main():
        loop = asyncio.get_running_loop()
        for end in ("eof_received", "connection_lost", "resume_writing"):
            wire = Wire(streams)
            order = []

            async def waiting(wire=wire, order=order, end=end):
                if end == "resume_writing":
                    await wire.writer.drain()
                else:
                    assert await wire.reader.read() == b""
                order.append("woken")

            def call(wire=wire, order=order, end=end):
                getattr(wire.protocol, end)(*([None] if end == "connection_lost" else []))
                order.append("returned")

            wire.protocol.pause_writing()
            task = asyncio.create_task(waiting())
            await turns(2)
            loop.call_soon(call)
            await task
            assert order == ["returned", "woken"], end
            wire.shut()

    run(main)


def test_every_task_of_a_burst_is_served(run, streams):
    """Of 50 readers whose bytes arrive in one turn each gets its own, though one fails and one is
    cancelled meanwhile."""
    run.expect_errors()

    async def main():
        wires = [Wire(streams) for _ in range(50)]

        async def reading(index):
            data = await wires[index].reader.readline()
            if index == 7:
                raise ValueError(data)
            if index == 9:
                tasks[20].cancel()
            return data

        tasks = [asyncio.create_task(reading(index)) for index in range(50)]
        await turns(2)
        for index, wire in enumerate(wires):
            asyncio.get_running_loop().call_soon(wire.protocol.data_received, b"%d\n" % index)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for index, result in enumerate(results):
            if index == 7:
                assert isinstance(result, ValueError)
            elif index == 20:
                assert isinstance(result, asyncio.CancelledError)
                assert await wires[20].reader.readline() == b"20\n"
            else:
                assert result == b"%d\n" % index
            wires[index].shut()

    run(main)


@pytest.mark.parametrize("drain", [True, False])
def test_ping_pong_does_not_nest(run, ours, drain):
    """Two tasks that answer each other over transports which deliver at once go 5000 rounds without
    a RecursionError."""

    async def main():
        ends = []

        class Crossed(RecordingTransport):
            def write(self, data):
                assert ends[1 - self.side].protocol.data_received(data) is None

        for side in (0, 1):
            transport = Crossed()
            transport.side = side
            ends.append(Wire(ours, transport))
        rounds = 5000

        async def answering(wire):
            for _ in range(rounds):
                wire.writer.write(await wire.reader.readline())
                if drain:
                    await wire.writer.drain()

        tasks = [asyncio.create_task(answering(wire)) for wire in ends]
        await turns(2)
        await from_callback(ends[0].protocol.data_received, b"ball\n")
        await asyncio.gather(*tasks)
        for wire in ends:
            wire.shut()

    run(main)


def test_a_chain_of_relays_does_not_nest(run, ours):
    """A line that 2000 tasks pass on, each to the next over a transport that delivers at once,
    arrives without a RecursionError."""

    async def main():
        wires = []

        class Onward(RecordingTransport):
            def write(self, data):
                if self.index + 1 < len(wires):
                    wires[self.index + 1].protocol.data_received(data)
                else:
                    super().write(data)

        for index in range(2000):
            transport = Onward()
            transport.index = index
            wires.append(Wire(ours, transport))

        async def passing(wire):
            wire.writer.write(await wire.reader.readline())

        tasks = [asyncio.create_task(passing(wire)) for wire in wires]
        await turns(2)
        await from_callback(wires[0].protocol.data_received, b"line\n")
        await asyncio.gather(*tasks)
        assert wires[-1].transport.sent == [b"line\n"]
        for wire in wires:
            wire.shut()

    run(main)


def test_the_names_here_are_headraces():
    """The tests of stepping look at the build that is installed, not at asyncio's classes."""
    assert headrace.StreamReader.read is not asyncio.StreamReader.read
