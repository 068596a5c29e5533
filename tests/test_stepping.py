"""When headrace resumes a waiting task in the callback that brought its bytes, and when it must not: then the wake is scheduled, never lost."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest
from conftest import new_loop
from wires import RecordingTransport, Wire, connected, from_callback, stepping, turns

import headrace


def steps(run) -> bool:
    """Return whether tasks are stepped on this kind of loop: not in debug mode, whose log would blame headrace's callback."""
    return run.kind != "debug"


def test_a_task_is_resumed_by_the_callback_that_brings_its_bytes(run, ours):
    """data_received() from the loop runs the waiting task before it returns; the public feed_data() never does."""

    async def main():
        wire = Wire(ours)
        order = []

        async def reading():
            while data := await wire.reader.read(1):
                order.append(data)

        def deliver(feed, data):
            feed(data)
            order.append("returned")

        task = asyncio.create_task(reading())
        await turns(2)
        await from_callback(deliver, wire.protocol.data_received, b"a")
        await turns(2)
        expected = [b"a", "returned"] if steps(run) else ["returned", b"a"]
        assert order == expected
        await from_callback(deliver, wire.reader.feed_data, b"b")
        await turns(2)
        assert order == [*expected, "returned", b"b"]
        wire.reader.feed_eof()
        await task
        wire.shut()

    run(main)


def test_real_connections_are_stepped(run, ours):
    """On a connection of open_connection(), over the loop's own transport, a waiting task is stepped."""

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
    """Bytes that a task delivers, by whichever method, wake the reader after the task's step and not inside it."""

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
    """Bytes delivered in the eager first step of a task, started by a plain callback, wake the reader after it."""

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
        await from_callback(lambda: asyncio.Task(feeding(), loop=asyncio.get_running_loop(), eager_start=True))
        await task
        assert order == ["fed", b"a"]
        wire.shut()

    run(main)


@pytest.mark.parametrize("method", ["data_received", "feed_data"])
def test_fed_by_another_thread(run, streams, method):
    """Bytes from another thread, handed over by call_soon_threadsafe(), are read in the loop's thread."""

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
    """data_received() called from another thread, against the rules, does not run the waiting task there."""
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
    """Bytes delivered to a stopped loop, or while another loop runs, are read when the loop runs again and not before."""
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
    """Bytes delivered by a callback that runs in the very Context of the waiting task wake it, later."""

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
    """What a stepped task delivers to another reader is read after its step, in the order of delivery."""

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
    """eof_received(), connection_lost() and resume_writing() only schedule: the loop's transport is in the middle of its own work."""

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
    """Of 50 readers whose bytes arrive in one turn each gets its own, though one fails and one is cancelled meanwhile."""
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
    """Two tasks that answer each other over transports which deliver at once go 5000 rounds without a RecursionError."""

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
    """A line that 2000 tasks pass on, each to the next over a transport that delivers at once, arrives without a RecursionError."""

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


# ---- what a stepped task sees


def test_context_variables(run, streams):
    """Each handler sees its own context variables after every read, as do the callbacks that it schedules; the loop's callbacks see none of them."""
    variable = contextvars.ContextVar("variable", default="nobody's")

    async def main():
        variable.set("main's")
        wires = [Wire(streams) for _ in range(3)]
        seen, scheduled = [], []

        async def reading(index, wire):
            variable.set(index)
            while await wire.reader.readline():
                seen.append((index, variable.get()))
                asyncio.get_running_loop().call_soon(lambda: scheduled.append((index, variable.get())))

        tasks = [asyncio.create_task(reading(index, wire)) for index, wire in enumerate(wires)]
        await turns(2)
        empty = contextvars.Context()
        after = []

        def deliver(wire):
            wire.protocol.data_received(b"line\n")
            after.append(variable.get())

        for _ in range(2):
            for wire in wires:
                asyncio.get_running_loop().call_soon(deliver, wire, context=empty)
            await turns(4)
        assert after == ["nobody's"] * 6
        assert sorted(seen) == [(index, index) for index in (0, 0, 1, 1, 2, 2)] == sorted(scheduled)
        assert variable.get() == "main's"
        for wire in wires:
            wire.reader.feed_eof()
            wire.shut()
        await asyncio.gather(*tasks)

    run(main)


def test_context_of_a_servers_callback(run, streams):
    """A server's callback, plain or not, runs in the context in which the server was started."""
    variable = contextvars.ContextVar("variable")

    async def main():
        variable.set("starter's")
        seen = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            before = variable.get()
            variable.set("handler's")
            data = await reader.readline()
            writer.close()
            seen.set_result((before, data, variable.get()))

        server = await streams.start_server(serve, "127.0.0.1", 0)
        variable.set("client's")
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        assert await seen == ("starter's", b"line\n", "handler's")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await turns(2)

    run(main)


@pytest.mark.parametrize("kind", ["debug"])
def test_debug_log_names_the_slow_task(kind, streams, caplog):
    """In debug mode asyncio's log blames the task that was slow, by name, and not a callback of the connection."""

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.01
        async with connected(streams) as (reader, writer, peer):

            async def slow():
                await reader.readline()
                time.sleep(0.02)

            task = asyncio.create_task(slow(), name="the-slow-one")
            await turns(2)
            peer.sendall(b"line\n")
            await task

    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        runner.run(main())
    messages = [record.getMessage() for record in caplog.records if "Executing" in record.getMessage()]
    # On a busy machine others may be slow too; in this task's place there may be nobody else.
    assert len([message for message in messages if "the-slow-one" in message]) == 1, messages


def test_current_task_is_the_stepped_one(run, streams):
    """After a read, current_task() is the reading task, and afterwards in the delivering callback there is none."""

    async def main():
        wire = Wire(streams)
        seen = []

        async def reading():
            await wire.reader.readline()
            seen.append(asyncio.current_task())

        task = asyncio.create_task(reading())
        await turns(2)

        def deliver():
            wire.protocol.data_received(b"line\n")
            assert asyncio.current_task() is None

        await from_callback(deliver)
        await task
        assert seen == [task]
        wire.shut()

    run(main)


# ---- other event loops


def test_nest_asyncio(loop_kind):
    """Under nest_asyncio, a run nested in a handler that a connection woke reads from another connection and ends."""
    pytest.importorskip("nest_asyncio")
    if loop_kind in ("uvloop", "eager"):
        pytest.skip("nest_asyncio does not take uvloop or a task factory")
    program = """
import asyncio, socket, sys, warnings
import nest_asyncio, headrace
nest_asyncio.apply()

async def main():
    loop = asyncio.get_running_loop()
    ends = [socket.socketpair() for _ in range(2)]
    streams = [await headrace.open_connection(sock=ours) for ours, _ in ends]
    peers = [peer for _, peer in ends]

    async def inner():
        peers[1].sendall(b"inner\\n")
        return await streams[1][0].readline()

    async def outer():
        line = await streams[0][0].readline()
        return line + asyncio.get_event_loop().run_until_complete(inner()) + await streams[0][0].readline()

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0.01)
    peers[0].sendall(b"outer\\n")
    await asyncio.sleep(0.01)
    peers[0].sendall(b"again\\n")
    print((await task).decode().split())
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()

asyncio.run(main(), debug=sys.argv[1] == "debug")
"""
    done = subprocess.run([sys.executable, "-c", program, loop_kind], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "['outer', 'inner', 'again']", done.stderr


def test_trio_says_what_is_wrong(ours):
    """Awaiting a headrace reader under trio raises trio's own error, which names asyncio."""
    trio = pytest.importorskip("trio")
    loop = asyncio.new_event_loop()
    reader = ours.StreamReader(loop=loop)

    async def main():
        await reader.read(1)

    try:
        with pytest.raises(TypeError, match="asyncio"):
            trio.run(main)
        assert reader._waiter is None
    finally:
        loop.close()


def test_the_names_here_are_headraces():
    """The tests of stepping look at the build that is installed, not at asyncio's classes."""
    assert headrace.StreamReader.read is not asyncio.StreamReader.read
