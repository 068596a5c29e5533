"""Exceptions that a handler raises while it is stepped: the program exits where it should, and
earlier writes have left."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from conftest import LOOP_KINDS, new_loop
from support.wires import SecureTransport, Wire, stepping, tcp_pair

EXITS = [SystemExit, KeyboardInterrupt]
FAILURES = [GeneratorExit, RuntimeError, asyncio.InvalidStateError, StopAsyncIteration]

PROGRAM = """
import asyncio, socket, sys
import headrace

async def main():
    reader, writer = await headrace.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    writer.write(b"ready ")
    await reader.readline()
    writer.write(b"head ")
    writer.write(b"body")
    raise {exception}

async def forever():
    task = asyncio.create_task(main())
    await asyncio.sleep(60)

if "{loop}" == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = asyncio.SelectorEventLoop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(forever())
"""


@pytest.mark.parametrize("loop", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
@pytest.mark.parametrize("exception", ["SystemExit(7)", "KeyboardInterrupt"])
def test_the_program_exits(loop, exception):
    """SystemExit and KeyboardInterrupt from a stepped handler end the program; what it wrote,
    undrained, has arrived."""
    end, peer = tcp_pair()
    with peer:
        program = PROGRAM.format(exception=exception, loop=loop)
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(end.fileno())],
            pass_fds=[end.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        end.close()
        got = peer.recv(100)
        peer.sendall(b"line\n")
        while piece := peer.recv(100):
            got += piece
        _, errors = child.communicate(timeout=10)
    assert got == b"ready head body"
    if exception == "KeyboardInterrupt":
        assert child.returncode not in (0, 1)
        assert "KeyboardInterrupt" in errors
    else:
        assert child.returncode == 7


def _two_wires(loop, streams, exception, log):
    """Two readers, both with bytes in the same turn: the first answers and raises *exception*, the
    second answers twice."""

    async def start():
        first, second = Wire(streams), Wire(streams)

        async def failing():
            await first.reader.readline()
            first.writer.write(b"head ")
            first.writer.write(b"body")
            raise exception("from the handler")

        async def answering():
            for _ in range(2):
                second.writer.write(await second.reader.readline())
                log.append("answered")

        tasks = [asyncio.create_task(failing()), asyncio.create_task(answering())]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        def deliver():
            loop.call_soon(first.protocol.data_received, b"line\n")
            loop.call_soon(second.protocol.data_received, b"one ")
            loop.call_soon(second.protocol.data_received, b"line\n")

        return first, second, tasks, deliver

    *made, deliver = loop.run_until_complete(start())
    loop.call_soon(deliver)
    return made


@pytest.mark.parametrize("exception", EXITS)
def test_the_loop_can_run_again(loop_kind, streams, exception):
    """SystemExit and KeyboardInterrupt leave run_forever(); run again, the loop serves the others,
    in whole steps."""
    loop = new_loop(loop_kind)
    log = []
    try:
        first, second, tasks = _two_wires(loop, streams, exception, log)
        with pytest.raises(exception):
            loop.run_until_complete(asyncio.sleep(1))
        assert b"".join(first.transport.sent) == b"head body"
        loop.run_until_complete(asyncio.sleep(0.001))
        assert log == ["answered"]
        loop.call_soon(second.protocol.data_received, b"two line\n")
        loop.run_until_complete(tasks[1])
        assert b"".join(second.transport.sent) == b"one line\ntwo line\n"
        with pytest.raises(exception):
            tasks[0].result()
        first.shut()
        second.shut()
    finally:
        loop.close()


@pytest.mark.parametrize("exception", FAILURES)
def test_other_exceptions_end_the_task_only(loop_kind, streams, exception):
    """Any other exception, even GeneratorExit, is the task's alone: its writes have left, and the
    others go on."""
    loop = new_loop(loop_kind)
    log = []
    try:
        first, second, tasks = _two_wires(loop, streams, exception, log)
        loop.run_until_complete(asyncio.wait(tasks[:1]))
        assert b"".join(first.transport.sent) == b"head body"
        assert isinstance(tasks[0].exception(), exception)
        loop.call_soon(second.protocol.data_received, b"two line\n")
        loop.run_until_complete(tasks[1])
        assert b"".join(second.transport.sent) == b"one line\ntwo line\n"
        first.shut()
        second.shut()
    finally:
        loop.close()


@pytest.mark.parametrize("exception", EXITS)
def test_the_exit_is_raised_once(loop_kind, ours, exception):
    """The exit leaves the loop exactly once: the run after it does not raise it again."""
    loop = new_loop(loop_kind)
    try:
        first, second, tasks = _two_wires(loop, ours, exception, [])
        with pytest.raises(exception, match="from the handler"):
            loop.run_until_complete(asyncio.sleep(1))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0.001))
        tasks[1].cancel()
        loop.run_until_complete(asyncio.wait(tasks[1:]))
        tasks[0].exception()
        first.shut()
        second.shut()
    finally:
        loop.close()


@pytest.mark.parametrize("exception", EXITS)
@pytest.mark.parametrize("where", ["write", "exception handler"])
def test_an_exit_while_a_step_is_sent(loop_kind, ours, exception, where):
    """Ctrl-C inside a transport's write(), or an exception handler that exits, ends the run; later
    writes are still sent."""
    loop = new_loop(loop_kind)

    def handler(loop, context):
        raise exception("meanwhile")

    class Interrupted(SecureTransport):
        def write(self, data):
            raise exception("meanwhile") if where == "write" else OSError("no")

    async def start():
        first, second, interrupted = Wire(ours), Wire(ours), Wire(ours, Interrupted())

        async def answering():
            await first.reader.readline()
            if stepping():
                interrupted.writer.write(b"lost")
            else:  # in debug mode nothing is stepped, and a write raises in the handler
                loop.call_soon(handler, loop, {})
            second.writer.write(b"second")
            await asyncio.sleep(0.005)
            assert not stepping()
            first.writer.write(b"later")
            assert first.transport.sent == [b"later"]

        return first, second, interrupted, loop.create_task(answering())

    try:
        loop.set_exception_handler(handler)
        *wires, task = loop.run_until_complete(start())
        loop.call_soon(wires[0].protocol.data_received, b"line\n")
        with pytest.raises(exception, match="meanwhile"):
            loop.run_until_complete(asyncio.sleep(1))
        assert wires[1].transport.sent == [b"second"]
        loop.run_until_complete(task)
        for wire in wires:
            wire.shut()
    finally:
        loop.close()
