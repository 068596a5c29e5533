"""What tools see of a task that waits in a read: asyncio's call graph, its stack and repr, and the
graph seen from another process."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.connections import LOOPBACK, serving
from support.wires import READS, Wire, turns

import headrace
from headrace.cli import doctor

NAMED = {"__anext__": "__anext__", "read_all": "read"}
graphs = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")


async def inner(reader):
    return await reader.readexactly(3)


async def outer(reader):
    return await inner(reader)


async def joining(task):
    return await task


def graph_of(task):
    text = io.StringIO()
    asyncio.print_call_graph(task, file=text)
    return text.getvalue()


@graphs
def test_the_call_graph(run, streams):
    """print_call_graph() shows the read, who awaits it and who awaits the task, however often the
    same future was waited for before."""

    async def main():
        wire = Wire(streams)
        for _ in range(50):
            task = asyncio.create_task(outer(wire.reader))
            await turns()
            asyncio.get_running_loop().call_soon(wire.protocol.data_received, b"abc")
            await task
        task = asyncio.create_task(outer(wire.reader), name="the reader")
        waiter = asyncio.create_task(joining(task), name="the waiter")
        await turns(2)
        lines = graph_of(task).splitlines()
        places = [line.rpartition(" in ")[2] for line in lines if " in " in line]
        assert places[-4:] == [
            "async StreamReader.readexactly()",
            "async inner()",
            "async outer()",
            "async joining()",
        ]
        assert [
            line.partition("name=")[2].partition(",")[0] for line in lines if "name=" in line
        ] == ["'the reader'", "'the waiter'"]
        assert "Awaited by" not in graph_of(waiter)
        wire.protocol.data_received(b"abc")
        assert await waiter == b"abc"
        assert "Awaited by" not in graph_of(task)
        wire.shut()

    run(main)


@pytest.mark.parametrize("name", READS)
def test_a_task_of_a_read(run, streams, name):
    """A task that is only a read shows its name and place in its repr, stack and call graph, until
    it is over."""

    async def main():
        wire = Wire(streams)
        task = asyncio.create_task(READS[name][0](wire.reader))
        called = f"StreamReader.{NAMED.get(name, name)}"
        await turns()
        assert f"coro=<{called}() running at " in repr(task)
        [frame] = task.get_stack()
        assert frame.f_code.co_name == NAMED.get(name, name)
        assert Path(frame.f_code.co_filename).is_file()
        text = io.StringIO()
        task.print_stack(file=text)
        assert f", in {frame.f_code.co_name}\n" in text.getvalue()
        if sys.version_info >= (3, 14):
            assert f" async {called}()" in graph_of(task)
        task.cancel()
        await asyncio.wait([task])
        assert f"coro=<{called}() done, defined at " in repr(task)
        assert task.get_stack() == []
        wire.shut()

    run(main)


def test_states_of_a_coroutine(run, streams):
    """inspect.getcoroutinestate() says of a read what it says of a coroutine."""

    async def main():
        wire = Wire(streams)
        reading = wire.reader.read(1)
        assert inspect.getcoroutinestate(reading) == "CORO_CREATED"
        reading.send(None)
        assert inspect.getcoroutinestate(reading) == "CORO_SUSPENDED"
        reading.close()
        assert inspect.getcoroutinestate(reading) == "CORO_CLOSED"
        wire.shut()

    run(main)


# ---- from another process


@graphs
@pytest.mark.skipif(doctor.build() != "compiled", reason="a read is a coroutine there")
def test_a_read_has_the_state_of_a_coroutine_without_a_frame(run, ours):
    """asyncio's tool takes what a task runs for a coroutine, and follows what stands at the place
    of its frame unless a byte says that there is none."""

    def memory_of(awaitable):
        return ctypes.string_at(id(awaitable), type(awaitable).__basicsize__)

    async def main():
        closed = outer(None)
        before = memory_of(closed)
        closed.close()
        after = memory_of(closed)
        # (Behind it there is the frame itself.)
        place = next(at for at, byte in enumerate(before) if byte != after[at])
        wire = Wire(ours)
        reading = wire.reader.readexactly(3)
        assert memory_of(reading)[place] == after[place]
        task = asyncio.create_task(reading)
        await turns(2)
        assert memory_of(reading)[place] == after[place]
        task.cancel()
        await asyncio.wait([task])
        wire.shut()

    run(main)


async def from_outside(command):
    """Return what came of *command* of asyncio's tool, run on this process."""
    arguments = [sys.executable, "-m", "asyncio", command, str(os.getpid())]
    # In a thread: what runs processes for asyncio would be in the picture.
    return await asyncio.to_thread(
        subprocess.run, arguments, capture_output=True, text=True, timeout=20
    )


# A program without headrace that lets asyncio's tool look at it, and prints what that says.
PLAIN = """
import asyncio, os, subprocess, sys

async def main():
    task = asyncio.create_task(asyncio.sleep(60), name="a plain task")
    await asyncio.sleep(0)
    command = [sys.executable, "-m", "asyncio", "ps", str(os.getpid())]
    await asyncio.to_thread(subprocess.run, command)
    task.cancel()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def tool():
    """asyncio's tool, where it shows the tasks of a program without headrace: the system may not
    let it look, and that of some Pythons shows none."""
    command = [sys.executable, "-c", PLAIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "a plain task" not in done.stdout:
        said = done.stderr.strip().splitlines() or ["no task"]
        pytest.skip(f"asyncio's tool does not show plain tasks here: {said[-1]}")


@graphs
@pytest.mark.parametrize("command", ["ps", "pstree"])
@pytest.mark.parametrize("served", ["start_server", "serve"])
@pytest.mark.usefixtures("tool")
def test_a_server_from_outside(run, ours, loop_kind, command, served):
    """Another process sees the tasks of a running server and which awaits which, also a task that
    is only a read."""
    if loop_kind == "debug":
        pytest.skip("in debug mode nothing is stepped")

    async def handler(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def talk(address):
        reader, writer = await ours.open_connection(*address)
        for _ in range(20):
            writer.write(b"line\n")
            assert await reader.readline() == b"line\n"
        if (
            doctor.build() == "compiled"
        ):  # uncompiled, Python's tool takes the wrong thing for a coroutine, and gives up
            task = asyncio.create_task(reader.readline(), name="nothing but a read")
        else:
            task = asyncio.create_task(inner(reader), name="nothing but a read")
        joined = asyncio.create_task(joining(task), name="who awaits it")
        await turns(2)
        done = await from_outside(command)
        writer.close()
        await joined if doctor.build() == "compiled" else await asyncio.wait([joined])
        joined.exception()
        return done

    async def main():
        if served == "serve":
            async with headrace.serve(handler, LOOPBACK, 0) as server:
                done = await talk(server.sockets[0].getsockname())
        else:
            async with serving(ours, handler) as address:
                done = await talk(address)
        assert done.returncode == 0, done.stderr
        assert "rror" not in done.stderr
        seen = done.stdout
        assert "handler" in seen
        if command == "pstree":
            above = seen[: seen.index("nothing but a read")].splitlines()
            assert "joining" in above[-2]
            assert "who awaits it" in above[-3]
        else:
            [row] = [line for line in seen.splitlines() if "nothing but a read" in line]
            assert "joining" in row
            assert "who awaits it" in row

    run(main)
