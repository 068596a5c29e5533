"""serve(workers=…): processes that serve one port, are watched, started again and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.connections import LOOPBACK, until
from support.handlers import Unloadable, fault, loop, who
from support.workers import SOURCE, address, ask, everybody

import headrace

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def is_gone(process):
    """Tell whether no process has this number, or one that has ended and that nobody waits for, as
    in a container."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z" and parent == "1"


def test_two_processes_serve(run_on):
    """Both workers answer at one port, the figures of both are added up, and a shutdown ends
    both."""

    async def main():
        server = headrace.serve(who, LOOPBACK, 0, workers=2, grace=5)
        async with server:
            assert len(set(server.processes)) == 2
            assert os.getpid() not in server.processes
            processes = server.processes
            assert await everybody(address(server), processes) == set(processes)
            reader, writer = await headrace.open_connection(*address(server))
            writer.write(b"?\n")
            await reader.readline()
            report = await server.shutdown(0)
            # Others that have come and gone may not be over for the server yet.
            assert (report.cancelled, report.aborted) == (1, 0)
            assert await reader.read() == b""
            writer.close()
        statistics = server.statistics()
        assert statistics.accepted == statistics.handled > 2
        assert (statistics.open, statistics.received_bytes) == (0, 2 * statistics.accepted)
        assert all(map(is_gone, processes))
        assert server.sockets == ()

    run_on(main)


def test_workers_have_the_same_kind_of_loop(run_on):
    """A worker's event loop is like its supervisor's."""

    async def main():
        async with headrace.serve(loop, LOOPBACK, 0, workers=1) as server:
            reader, writer = await headrace.open_connection(*address(server))
            kind = (await reader.read()).decode().partition(".")[0]
            writer.close()
            assert kind == type(asyncio.get_running_loop()).__module__.partition(".")[0]

    run_on(main)


def test_one_that_dies_is_started_again(run_on, caplog):
    """A worker that was killed is replaced, its socket's queue is served by the new one, and it is
    logged with the status."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2) as server:
            where = address(server)
            victim, other = server.processes
            os.kill(victim, signal.SIGKILL)
            async with asyncio.timeout(30):
                # Nobody is refused: who comes to the dead one's socket waits for the next one.
                answers = {await ask(where) for _ in range(20)}
                while len(answers) < 2:
                    answers.add(await ask(where))
            await until(lambda: len(server.processes) == 2)
            assert other in server.processes
            assert victim not in server.processes
            assert answers == set(server.processes)

    run_on(main)
    assert "ended with status -9" in caplog.text


def test_renewal(run_on):
    """renew() replaces all workers; connections of the old ones finish, and what they did stays in
    the figures."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2, grace=10) as server:
            where = address(server)
            before = server.processes
            reader, writer = await headrace.open_connection(*where)
            writer.write(b"?\n")
            served_by = int(await reader.readline())
            assert served_by in before
            await server.renew()
            after = server.processes
            assert not set(before) & set(after)
            # (An old one accepts until it has heard that it shall not.)
            assert await everybody(where, after) >= set(after)
            # The old one is there as long as its connection, which is told to end.
            writer.write(b"?\n")
            assert int(await reader.readline()) == served_by
            assert await reader.read() == b""
            writer.close()
            await until(lambda: all(map(is_gone, before)))
            accepted = server.statistics().accepted
        assert server.statistics().accepted >= max(3, accepted)

    run_on(main)


def test_a_renewal_that_fails(run_on, monkeypatch):
    """Where the new worker does not start, renew() says so and the old ones go on."""

    async def main():
        monkeypatch.setenv("HEADRACE_TEST_LOADS", "yes")
        async with headrace.serve(Unloadable(), LOOPBACK, 0, workers=1) as server:
            (process,) = server.processes
            monkeypatch.delenv("HEADRACE_TEST_LOADS")
            with pytest.raises(RuntimeError, match="a worker did not start"):
                await server.renew()
            assert server.processes == (process,)
            assert not is_gone(process)

    run_on(main)


def test_workers_that_do_not_start(run_on):
    """A handler that cannot be loaded in the new process makes the start fail, and nothing is left
    listening."""

    async def main():
        server = headrace.serve(Unloadable(), LOOPBACK, 0, workers=2)
        with pytest.raises(RuntimeError, match="a worker did not start"):
            await server.start()
        assert server.sockets == ()

    run_on(main)


@pytest.mark.parametrize("what", ["handler", "ssl"])
def test_what_cannot_be_sent(run_on, tls, what):
    """A handler that is no function of a module, or a context instead of Certificates, is refused
    with what to do."""

    async def main():
        handler = (lambda reader, writer: None) if what == "handler" else who
        server = headrace.serve(
            handler, LOOPBACK, 0, workers=1, ssl=tls.server if what == "ssl" else None
        )
        with pytest.raises(TypeError, match="cannot be sent to them"):
            await server.start()

    run_on(main)


def test_the_log_of_workers(run_on, caplog):
    """What a worker logs of its connections is in the supervisor's log: the process, the
    connection, the peer, the traceback."""

    async def main():
        async with headrace.serve(fault, LOOPBACK, 0, workers=1) as server:
            (process,) = server.processes
            reader, writer = await headrace.open_connection(*address(server))
            assert await reader.read() == b""
            here = writer.get_extra_info("sockname")
            writer.close()
            await until(lambda: caplog.records)
        (record,) = [record for record in caplog.records if record.name == "headrace.server"]
        assert (record.process, record.connection, tuple(record.peer)) == (process, 1, here)
        assert "KeyError: 'a fault of mine'" in caplog.text

    run_on(main)


def test_one_line_says_how_a_shutdown_went(run_on, caplog):
    """The supervisor says once how all workers ended; of a worker that is replaced it says how that
    one did."""
    caplog.set_level("DEBUG", "headrace.server")

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2) as server:
            old = server.processes
            await ask(address(server))
            await server.renew()
            await until(lambda: caplog.text.count(" is over: 0 finished") == 2)
        lines = [record.getMessage() for record in caplog.records]
        for pid in old:
            assert len([line for line in lines if f"worker {pid} is over: " in line]) == 1
        (line,) = [line for line in lines if "shut down: " in line]
        assert line.startswith(f"{server.name}: shut down: 0 finished, 0 cancelled, 0 aborted, in ")

    run_on(main)


def test_how_many_workers():
    """No worker at all is no number of workers."""
    with pytest.raises(ValueError, match="workers must be 1 or more"):
        headrace.serve(who, LOOPBACK, 0, workers=0)


def test_a_unix_socket_is_shared(run_on, tmp_path):
    """Workers share a Unix socket, and its file is removed in the end."""
    path = tmp_path / "socket"

    async def main():
        async with headrace.serve(who, path=path, mode=0o600, workers=2) as server:
            assert path.stat().st_mode & 0o777 == 0o600
            reader, writer = await headrace.open_unix_connection(path)
            writer.write(b"?\n")
            assert int(await reader.readline()) in server.processes
            writer.close()
            await writer.wait_closed()
        assert not path.exists()

    run_on(main)


PROGRAM = """
import asyncio, headrace
from support.handlers import who

async def main():
    async with headrace.serve(who, "127.0.0.1", 0, workers=2, grace=5) as server:
        # Said when serve_forever() has taken the signals.
        known = (server.sockets[0].getsockname()[1], *server.processes)
        asyncio.get_running_loop().call_soon(lambda: print(*known, flush=True))
        print(await server.serve_forever(), flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


@contextlib.contextmanager
def program(tmp_path):
    """PROGRAM in a process: (process, its port, its workers)."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, str(ROOT / "tests")])}
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            port, *workers = map(int, process.stdout.readline().split())
            yield process, port, workers
        finally:
            process.kill()


def test_a_supervisor_that_is_killed(tmp_path):
    """Workers whose supervisor was killed shut down by themselves."""

    async def main():
        with program(tmp_path) as (process, port, workers):
            assert await ask((LOOPBACK, port)) in workers
            process.kill()
            async with asyncio.timeout(20):
                await until(lambda: all(map(is_gone, workers)))

    asyncio.run(main())


def test_signals(tmp_path):
    """SIGHUP replaces the workers, and SIGTERM shuts all of them down: the report is that of
    all."""

    async def main():
        with program(tmp_path) as (process, port, workers):
            where = (LOOPBACK, port)
            process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                await until(lambda: all(map(is_gone, workers)))
            assert await ask(where) not in workers
            reader, writer = await headrace.open_connection(*where)
            writer.write(b"?\n")
            await reader.readline()
            process.send_signal(signal.SIGTERM)
            # It is served once more, which is its end.
            await asyncio.sleep(0.3)
            writer.write(b"?\n")
            assert await reader.readline()
            assert await reader.read() == b""
            writer.close()
            # (The one who asked before may not be over for the server.)
            assert " finished, 0 cancelled, 0 aborted" in await asyncio.to_thread(
                process.stdout.read
            )
            assert process.wait(20) == 0

    asyncio.run(main())
