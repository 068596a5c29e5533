"""serve(workers=…) when something goes wrong: a worker that dies, hangs or does not start, signals
and shutdowns that come together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.connections import LOOPBACK, until
from support.handlers import LoadedOnce, blocks, forks, long_fault, who
from support.workers import SOURCE, address, ask

import headrace
from headrace._server.workers import handle, supervisor

pytestmark = pytest.mark.timeout(120)


async def say(where, text):
    """Return the line that answers *text*, and the writer."""
    reader, writer = await headrace.open_connection(*where)
    writer.write(text)
    return await reader.readline(), writer


def test_a_worker_that_dies_and_leaves_a_process(run_on):
    """The death of a worker is noticed although a child that it forked has its pipes; a shutdown
    does not wait for that child."""

    async def main():
        async with headrace.serve(forks, LOOPBACK, 0, workers=1) as server:
            answer, writer = await say(address(server), b"")
            worker, child = map(int, answer.split())
            try:
                os.kill(worker, signal.SIGKILL)
                async with asyncio.timeout(10):
                    await until(lambda: server.processes not in ((worker,), ()))
                    await server.shutdown(0)
            finally:
                os.kill(child, signal.SIGKILL)
                writer.close()

    run_on(main)


def test_a_long_message_in_the_log(run_on, caplog):
    """A worker whose log has a line of any length, which a peer may choose, is heard, also
    afterwards."""

    async def main():
        async with headrace.serve(long_fault, LOOPBACK, 0, workers=1) as server:
            answer, writer = await say(address(server), b"x" * 2000 + b"\n")
            assert answer == b""
            writer.close()
            await until(lambda: server.statistics().handler_errors == 1)
        assert "xxx… (" in caplog.text

    run_on(main)


def test_one_of_the_first_workers_does_not_start(run_on, monkeypatch, tmp_path):
    """Where one of several workers does not start, it is not tried again: the start fails, and says
    why."""
    monkeypatch.setenv("HEADRACE_TEST_SUPERVISOR", str(os.getpid()))
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 5.0)

    async def main():
        server = headrace.serve(LoadedOnce(str(tmp_path / "once")), LOOPBACK, 0, workers=2)
        with pytest.raises(RuntimeError, match="a worker did not start"):
            await server.start()

    run_on(main)


@pytest.mark.parametrize("when", ["start", "again"])
def test_no_process_can_be_made(run_on, monkeypatch, caplog, when):
    """Where the system makes no process, a start fails and leaves none behind; a worker that died
    is tried again later."""
    monkeypatch.setattr(supervisor, "LAST_BACKOFF_SECONDS", 0.2)

    async def main():
        server = headrace.serve(who, LOOPBACK, 0, workers=2)
        spawn, made = server._spawn, []

        def fail(place, *role):
            if len(made) == (1 if when == "start" else 2):
                made.append(None)
                raise BlockingIOError(11, "Resource temporarily unavailable")
            made.append(spawn(place, *role))
            return made[-1]

        monkeypatch.setattr(server, "_spawn", fail)
        if when == "start":
            with pytest.raises(BlockingIOError):
                await server.start()
            assert made[0].status is not None
            return
        async with server:
            os.kill(server.processes[0], signal.SIGKILL)
            await until(lambda: len(server.processes) == 1)
            await until(lambda: len(server.processes) == 2)
            assert "no worker could be started: [Errno 11]" in caplog.text

    run_on(main)


def test_figures_never_go_back(run_on):
    """What a worker has done counts in every turn of the loop, also in the one in which its process
    ends."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1, grace=1) as server:
            for _ in range(3):
                await ask(address(server))
            await until(lambda: server.statistics().accepted == 3)
            old = server._workers[0]
            renewal = asyncio.create_task(server.renew())
            seen = []
            while not (renewal.done() and old.gone.done()):
                seen.append(server.statistics().accepted)
                await asyncio.sleep(0)
            seen.append(server.statistics().accepted)
            await asyncio.sleep(0)
            assert set(seen) == {3}

    run_on(main)


def test_a_shutdown_in_a_renewal(run_on, monkeypatch):
    """If a worker is about to start when the server shuts down, it serves its clients, and ends
    before shutdown() does."""

    async def main():
        server = headrace.serve(who, LOOPBACK, 0, workers=1, grace=5)
        async with server:
            where, old = address(server), server._workers[0]
            spawn, made = server._spawn, []

            def stopped(place, *role):
                made.append(spawn(place, *role))
                os.kill(made[-1].pid, signal.SIGSTOP)
                return made[-1]

            monkeypatch.setattr(server, "_spawn", stopped)
            renewal = asyncio.create_task(server.renew())
            await until(lambda: made)
            shutdown = asyncio.create_task(server.shutdown())
            await until(lambda: old.gone.done())
            # Its process has the socket, so this one waits in the queue.
            reader, writer = await headrace.open_connection(*where)
            os.kill(made[0].pid, signal.SIGCONT)
            writer.write(b"?\n")
            assert await reader.readline() == b"%d\n" % made[0].pid
            assert (await shutdown).finished == 1
            assert made[0].gone.done()
            await renewal
            writer.close()

    run_on(main)


def test_a_worker_that_hangs_in_its_start(run_on, monkeypatch, caplog):
    """A worker that was started again and does not get as far as to accept is killed, and another
    is started."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1) as server:
            monkeypatch.setattr(handle, "START_SECONDS", 1.0)
            spawn, made = server._spawn, []

            def stopped_once(place, *role):
                made.append(spawn(place, *role))
                if len(made) == 1:
                    os.kill(made[0].pid, signal.SIGSTOP)
                else:
                    monkeypatch.setattr(handle, "START_SECONDS", 60.0)
                return made[-1]

            monkeypatch.setattr(server, "_spawn", stopped_once)
            os.kill(server.processes[0], signal.SIGKILL)
            await until(lambda: len(made) == 2)
            assert await ask(address(server)) == made[1].pid
        assert f"worker {made[0].pid} does not start, and is killed" in caplog.text

    run_on(main)


def test_a_worker_that_is_silent(run_on, monkeypatch, caplog):
    """A worker whose event loop hangs says nothing any more: it is killed, and another is
    started."""
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "SILENCE_SECONDS", 2.5)

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1) as server:
            (first,) = server.processes
            os.kill(first, signal.SIGSTOP)
            await until(lambda: server.processes not in ((first,), ()))
            assert await ask(address(server)) in server.processes
        assert f"worker {first} has said nothing for 2 s, and is killed" in caplog.text

    run_on(main)


async def answers(where, count=30):
    """Return who answers on so many new connections: enough for the system to have chosen each of
    the places."""
    async with asyncio.timeout(10):
        return {await ask(where) for _ in range(count)}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_others_serve_in_the_place_of_one_that_is_gone(run_on, monkeypatch, end):
    """While there is no worker in a place, another serves what comes there; where that one goes as
    well, the next does."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=3) as server:
            where, (first, second, third) = address(server), server.processes
            replace, vacant = server._replace, []
            monkeypatch.setattr(server, "_replace", vacant.append)
            assert await answers(where) == {first, second, third}
            os.kill(first, end)
            await until(lambda: vacant == [0])
            assert await answers(where) == {second, third}
            # It is the one that covers.
            os.kill(second, end)
            await until(lambda: vacant == [0, 1])
            assert await answers(where) == {third}
            for place in (0, 1):
                replace(place)
            await until(lambda: len(server.processes) == 3 and not server._covers)
            assert await answers(where) == set(server.processes)
            await server.renew()
            assert await answers(where) >= set(server.processes)
            assert first not in server.processes and third not in server.processes

    run_on(main)


def test_a_renewal_while_another_covers(run_on, monkeypatch):
    """Where a worker that is replaced covers a place, its successor goes on with that; where all
    are gone, the next one covers all."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2) as server:
            where, (first, second) = address(server), server.processes
            replace, vacant = server._replace, []
            monkeypatch.setattr(server, "_replace", vacant.append)
            os.kill(second, signal.SIGKILL)
            await until(lambda: vacant == [1])
            spawn = server._spawn

            def spawn_the_first(place, *role):
                if place == 1:
                    raise BlockingIOError(11, "Resource temporarily unavailable")
                return spawn(place, *role)

            monkeypatch.setattr(server, "_spawn", spawn_the_first)
            with pytest.raises(BlockingIOError):
                await server.renew()
            (third,) = server.processes
            await until(lambda: not server._old)
            assert third not in (first, second)
            assert await answers(where) == {third}
            os.kill(third, signal.SIGKILL)
            await until(lambda: vacant == [1, 0])
            waiting = asyncio.create_task(answers(where))
            monkeypatch.setattr(server, "_spawn", spawn)
            replace(0)
            (fourth,) = await waiting
            assert server.processes == (fourth,)

    run_on(main)


def test_a_first_death_is_followed_by_a_start_at_once(run_on, monkeypatch, caplog):
    """The first time a worker dies there is no pause before the next is started; only what happens
    again and again has one."""
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 20.0)

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1) as server:
            (first,) = server.processes
            os.kill(first, signal.SIGKILL)
            second = await ask(address(server))
            os.kill(second, signal.SIGKILL)
            await until(lambda: "another is started in 10.0 s" in caplog.text)
        assert "another is started in 0.0 s" in caplog.text

    run_on(main)


def test_a_worker_that_is_told_to_stop(run_on):
    """A worker that gets SIGTERM from elsewhere has a successor at once, not when its last
    connection is over."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1, grace=20) as server:
            answer, writer = await say(address(server), b"?\n")
            os.kill(int(answer), signal.SIGTERM)
            async with asyncio.timeout(10):
                await until(lambda: server.processes not in ((int(answer),), ()))
                assert await ask(address(server)) in server.processes
            writer.close()

    run_on(main)


def test_sighup_for_all(run_on):
    """SIGHUP to a whole group of processes, as a terminal sends that is closed, ends no worker."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=1) as server:
            reader, writer = await headrace.open_connection(*address(server))
            writer.write(b"?\n")
            answer = await reader.readline()
            os.kill(int(answer), signal.SIGHUP)
            writer.write(b"?\n")
            assert await reader.readline() == answer
            writer.close()

    run_on(main)


def test_sighup_before_serve_forever(run_on):
    """SIGHUP to the supervisor, while it starts or before it serves for ever, does not end it: all
    workers are replaced."""

    async def main():
        server = headrace.serve(who, LOOPBACK, 0, workers=2)
        starting = asyncio.create_task(server.start())
        await until(lambda: len(server.processes) == 2)
        first = set(server.processes)
        os.kill(os.getpid(), signal.SIGHUP)
        await starting
        await until(lambda: not first & set(server.processes) and server._signals._renewal is None)
        second = set(server.processes)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: not second & set(server.processes))
        await server.shutdown(0)

    run_on(main)


def test_the_bound_of_a_server_whose_workers_are_replaced(run_on):
    """The bound that the figures tell is the one of the workers that are there, not of those before
    them too."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2, max_connections=5) as server:
            await until(lambda: server.statistics().max_connections == 10)
            old = set(server._workers)
            await server.renew()
            await until(lambda: all(each.gone.done() for each in old))
            await until(lambda: all(each.statistics for each in server._workers))
            assert (server.statistics().max_connections, server.statistics().accepting) == (
                10,
                True,
            )

    run_on(main)


@pytest.mark.parametrize("end", ["shutdown", "renew"])
def test_who_waits_for_a_worker_that_is_full(run_on, end):
    """Who waits in the queue of a worker that has no room is served when it shuts down, or by the
    one that replaces it."""

    async def main():
        async with headrace.serve(
            who, LOOPBACK, 0, workers=1, max_connections=1, grace=30
        ) as server:
            where, (first,) = address(server), server.processes
            answer, writer = await say(where, b"?\n")
            waiting = [asyncio.create_task(ask(where)) for _ in range(5)]
            await asyncio.sleep(0.1)
            ending = asyncio.create_task(getattr(server, end)())
            if end == "shutdown":
                await server.draining.wait()
                await asyncio.sleep(0.1)
                writer.close()
                assert set(await asyncio.gather(*waiting)) == {first}
                assert (await ending).aborted == 0
            else:
                assert first not in await asyncio.gather(*waiting)
                await ending
                writer.close()

    run_on(main)


def test_a_hung_worker_and_haste(run_on, monkeypatch):
    """A worker that hears nothing is killed as soon as a shutdown that was hurried would be
    over."""
    monkeypatch.setattr(handle, "PATIENCE_SECONDS", -2.5)

    async def main():
        async with headrace.serve(blocks, LOOPBACK, 0, workers=1, grace=100) as server:
            _, writer = await headrace.open_connection(*address(server))
            writer.write(b"?\n")
            await asyncio.sleep(0.1)
            shutdown = asyncio.create_task(server.shutdown())
            await server.draining.wait()
            began = time.monotonic()
            server._hurry()
            await shutdown
            assert time.monotonic() - began < 10
            writer.close()

    run_on(main)


def test_two_programs_at_one_port(run_on):
    """Workers share their port with each other and not with another program; with reuse_port they
    do."""

    async def main():
        async with headrace.serve(who, LOOPBACK, 0, workers=2) as server:
            with pytest.raises(OSError, match="in use"):
                await headrace.serve(who, *address(server), workers=2).start()
        async with headrace.serve(who, LOOPBACK, 0, workers=1, reuse_port=True) as server:
            async with headrace.serve(who, *address(server), workers=1, reuse_port=True) as other:
                assert address(other) == address(server)

    run_on(main)


ENDS = """
import asyncio, headrace
from support.handlers import who

async def main():
    await headrace.serve(who, "127.0.0.1", 0, workers=1).start()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_program_that_ends_without_a_shutdown(tmp_path):
    """A program that forgets its server ends, and does not wait for its workers for ever."""
    path = tmp_path / "program.py"
    path.write_text(ENDS)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([SOURCE, str(Path(__file__).parents[1])]),
    }
    assert (
        subprocess.run(
            [sys.executable, str(path)], env=environment, timeout=20, check=False
        ).returncode
        == 0
    )
