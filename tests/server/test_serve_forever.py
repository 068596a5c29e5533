"""serve(): serve_forever(): signals, service managers, cancellation; and programs that serve, as
processes of their own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.connections import LOOPBACK, receive, until
from support.serving import Greeter, figures, greeted, started, stubborn

import headrace
from headrace._server import shutdown

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch):
    """Forget what the tests themselves are started with."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@contextlib.contextmanager
def program_of(text):
    """A process that runs *text*, and is killed in the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(headrace.__file__).parent.parent),
        "PYTHONWARNINGS": "error",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_serve_forever(run, ours, number):
    """A signal lets connections finish; serve_forever() returns the report, and leaves signals as
    they were."""

    async def main():
        def own(*_):
            """The handler that the program had before."""

        before = {each: signal.signal(each, own) for each in SIGNALS}
        try:
            async with started(Greeter()) as server:
                with await greeted(server) as sock:
                    task = asyncio.create_task(server.serve_forever())
                    await until(lambda: signal.getsignal(number) is not own)
                    os.kill(os.getpid(), number)
                    await server.draining.wait()
                    sock.shutdown(socket.SHUT_WR)
                    assert figures(await task) == (1, 0, 0, 0)
                    assert [signal.getsignal(each) for each in SIGNALS] == [own] * 3
        finally:
            for each, previous in before.items():
                signal.signal(each, previous)

    run(main)


def test_signals_are_for_every_server(run, ours):
    """Two servers in one process, each in its serve_forever(), are both ended by one signal."""

    async def main():
        async with started(Greeter()) as first, started(Greeter()) as second:
            tasks = [asyncio.create_task(server.serve_forever()) for server in (first, second)]
            await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            done, pending = await asyncio.wait(tasks, timeout=1)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            assert (len(done), len(pending)) == (2, 0)

    run(main)


def test_shutdown_ends_serve_forever(run, ours):
    """serve_forever() returns the report of a shutdown() that started elsewhere, also of one that
    is over."""

    async def main():
        async with started(Greeter()) as server:
            task = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            report = await server.shutdown()
            assert await task is report
            assert await server.serve_forever() is report

    run(main)


def test_cancelled_serve_forever(run, ours):
    """Who cancels serve_forever() has the server shut down without a grace, and signals as they
    were."""
    handler = Greeter()

    async def main():
        before = [signal.getsignal(each) for each in SIGNALS]
        async with started(handler) as server:
            with await greeted(server) as sock:
                task = asyncio.create_task(server.serve_forever())
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert handler.ends == ["cancelled"]
                assert await receive(sock) == b"sorry"
                assert [signal.getsignal(each) for each in SIGNALS] == before

    run(main)


STUBBORN = f"""
import asyncio, headrace
async def handler(reader, writer):
    writer.write(b"hi")
    while True:
        try:
            await reader.read()
            break
        except asyncio.CancelledError:
            writer.write(b"c")
async def main():
    async with headrace.serve(handler, {LOOPBACK!r}, 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        report = await server.serve_forever()
        print(report.finished, report.cancelled, report.aborted, report.stuck)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_three_signals(number):
    """The first lets connections finish, the second cancels their handlers, the third cuts them
    off; the process ends well."""
    with (
        program_of(STUBBORN) as process,
        socket.create_connection((LOOPBACK, int(process.stdout.readline()))) as sock,
    ):
        sock.settimeout(10)
        assert sock.recv(2) == b"hi"
        process.send_signal(number)
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        process.send_signal(number)
        sock.settimeout(10)
        assert sock.recv(1) == b"c"
        process.send_signal(number)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1) == b"c":
                pass
        assert process.stdout.read().split() == ["0", "0", "1", "0"]
        assert process.wait(10) == 0


def test_three_signals_at_once(run, ours, monkeypatch):
    """Each signal counts, also where they come in one turn of the loop: three of them cut
    connections off without a wait."""
    monkeypatch.setattr(shutdown, "CANCEL_SECONDS", 10)

    async def main():
        async with started(stubborn) as server:
            with await greeted(server):
                task = asyncio.create_task(server.serve_forever())
                await asyncio.sleep(0.01)
                for number in SIGNALS[:2] + SIGNALS[:1]:
                    signal.raise_signal(number)
                assert (await task).seconds < 3

    run(main)


@pytest.mark.parametrize("way", ["signal", "shutdown", "cancel"])
def test_service_manager_is_told(run, ours, monkeypatch, tmp_path, way):
    """The server tells a service manager that it is ready, pings it, and tells it that it stops,
    whatever stops it."""

    async def main():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.setblocking(False)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            monkeypatch.setenv("WATCHDOG_USEC", "40000")
            async with started(Greeter()) as server:
                task = asyncio.create_task(server.serve_forever())
                told = [await asyncio.get_running_loop().sock_recv(manager, 100) for _ in range(3)]
                assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
                if way == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                elif way == "shutdown":
                    await server.shutdown()
                else:
                    task.cancel()
                await asyncio.wait([task])
            rest = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    rest.append(manager.recv(100))
            assert [each for each in rest if each != b"WATCHDOG=1"] == [b"STOPPING=1"]
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                manager.recv(100)

    run(main)


def test_malformed_watchdog(run, ours, monkeypatch):
    """serve_forever() raises where the service manager's variables are malformed, and leaves
    signals as they were."""
    monkeypatch.setenv("WATCHDOG_USEC", "soon")

    async def main():
        before = [signal.getsignal(each) for each in SIGNALS]
        async with started(Greeter()) as server:
            with pytest.raises(ValueError, match="WATCHDOG_USEC"):
                await server.serve_forever()
        assert [signal.getsignal(each) for each in SIGNALS] == before

    run(main)


def test_shutdown_of_a_socket_that_another_process_has_shut(ours):
    """A listening socket that somebody else has shut down (shutdown(2)), whose accept() fails for
    ever, does not hang a shutdown."""
    program = f"""
import asyncio, headrace, socket
async def main():
    with socket.create_server(({LOOPBACK!r}, 0)) as listener:
        async with headrace.serve(lambda reader, writer: None, sockets=[listener.dup()]) as server:
            listener.shutdown(socket.SHUT_RDWR)
asyncio.run(main())
"""
    with program_of(program) as process:
        assert process.wait(timeout=5) == 0


@pytest.fixture
def no_hangup_handler():
    """SIGHUP as a program has it that has not said anything about it; it is so again in the end."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    now = signal.signal(signal.SIGHUP, before)
    assert now is signal.SIG_DFL


@pytest.mark.usefixtures("no_hangup_handler")
def test_sighup_before_serve_forever(run, ours):
    """From its start on a server is renewed by SIGHUP, which would end the program; once it is shut
    down SIGHUP is as it was."""
    renewed = []

    async def renew():
        renewed.append(True)

    async def main():
        async with started(Greeter()) as server, started(Greeter()) as other:
            server.renew = other.renew = renew
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: len(renewed) == 2)
            await other.shutdown()
            serving = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: len(renewed) == 3)
            serving.cancel()
            await asyncio.wait([serving])

    run(main)


def test_a_program_that_has_taken_sighup(run, ours):
    """Until serve_forever() a signal that the program has taken stays its own."""
    taken = []
    before = signal.signal(signal.SIGHUP, lambda *_: taken.append(True))

    async def main():
        async with started(Greeter()):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: taken)

    try:
        run(main)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sighup_during_a_renewal(run):
    """SIGHUP while the server renews what it has: it renews that once more, for what has changed
    since."""
    begun, go_on = [], asyncio.Event()

    async def renew():
        begun.append(len(begun))
        await go_on.wait()

    async def main():
        async with started(Greeter()) as server:
            server.renew = renew
            serving = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            for times in 1, 1:
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.02)
                assert len(begun) == times
            go_on.set()
            await until(lambda: len(begun) == 2)
            await server.shutdown()
            await serving
        assert len(begun) == 2

    run(main)
