"""A stepped task sees the same around it as in asyncio: its context, and its name in logs. Other
event loops work too."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import time

import pytest
from conftest import new_loop
from support.wires import Wire, connected, from_callback, turns


def test_context_variables(run, streams):
    """Each handler, and each callback that it schedules, sees its own context variables after every
    read; the loop's callbacks none."""
    variable = contextvars.ContextVar("variable", default="nobody's")

    async def main():
        variable.set("main's")
        wires = [Wire(streams) for _ in range(3)]
        seen, scheduled = [], []

        async def reading(index, wire):
            variable.set(index)
            while await wire.reader.readline():
                seen.append((index, variable.get()))
                asyncio.get_running_loop().call_soon(
                    lambda: scheduled.append((index, variable.get()))
                )

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
    """In debug mode asyncio's log blames the task that was slow, by name, and not a callback of the
    connection."""

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
    messages = [
        record.getMessage() for record in caplog.records if "Executing" in record.getMessage()
    ]
    # On a busy machine others may be slow too; in this task's place there may be nobody else.
    assert len([message for message in messages if "the-slow-one" in message]) == 1, messages


def test_current_task_is_the_stepped_one(run, streams):
    """After a read, current_task() is the reading task, and afterwards in the delivering callback
    there is none."""

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
    """Under nest_asyncio, a run nested in a handler that a connection woke reads from another
    connection and ends."""
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
        line += asyncio.get_event_loop().run_until_complete(inner())
        return line + await streams[0][0].readline()

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
    done = subprocess.run(
        [sys.executable, "-c", program, loop_kind], capture_output=True, text=True, timeout=20
    )
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
