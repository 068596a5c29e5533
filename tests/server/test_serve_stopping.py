"""The end of serve(): all stages of shutdown(), what waiting clients still get, and that nothing is
left."""

import asyncio
import contextlib
import gc
import logging
import socket
import weakref

import pytest
from support.connections import LOOPBACK, receive, until
from support.serving import Greeter, connected, figures, greeted, started, stubborn

import headrace
from headrace._server import shutdown

MIB = 1 << 20


@pytest.fixture
def brief(monkeypatch):
    """Let the stages after the grace be short."""
    monkeypatch.setattr(shutdown, "CANCEL_SECONDS", 0.2)
    monkeypatch.setattr(shutdown, "ABORT_SECONDS", 0.2)


def test_connections_finish_within_the_grace(run, ours):
    """Handlers that look at the event draining finish; shutdown() ends with the last, and says how
    many; nobody new is let in."""

    async def handler(reader, writer):
        await server.draining.wait()
        writer.write(b"bye")

    async def main():
        nonlocal server
        async with started(handler) as server:
            address = server.sockets[0].getsockname()
            with await connected(server) as first, await connected(server) as second:
                await until(lambda: len(server.connections) == 2)
                assert not server.draining.is_set()
                report = await server.shutdown()
                assert figures(report) == (2, 0, 0, 0)
                assert report.seconds < 5
                assert str(report).startswith("2 finished, 0 cancelled, 0 aborted, in ")
                assert server.statistics().drain_seconds == report.seconds
                assert [await receive(first), await receive(second)] == [b"bye", b"bye"]
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    server = None
    run(main)


def test_connections_are_cancelled_after_the_grace(run, ours):
    """Handlers that do not end within the grace are cancelled, and what they write then still
    arrives."""
    handler = Greeter()

    async def main():
        async with started(handler) as server:
            with await greeted(server) as sock:
                report = await server.shutdown(0.1)
                assert figures(report) == (0, 1, 0, 0)
                assert 0.09 < report.seconds < 1
                assert await receive(sock) == b"sorry"
        assert handler.ends == ["cancelled"]

    run(main)


def test_connections_are_cut_off_in_the_end(run, ours, brief):
    """If a handler goes on when cancelled, it learns that the server ended its connection; so does
    a peer that does not take its bytes."""

    async def handler(reader, writer):
        writer.write(b"hi")
        if await reader.read(1) == b"b":
            writer.write(b"x" * 16 * MIB)
        else:
            with pytest.raises(ConnectionAbortedError, match="shut down"):
                await stubborn(reader, writer)

    async def main():
        async with started(handler) as server:
            with await greeted(server) as first, await connected(server, 4096) as second:
                first.send(b"a")
                second.send(b"b")
                await until(lambda: server.statistics().buffered_bytes > 0)
                report = await server.shutdown(0)
                assert figures(report) == (0, 0, 2, 0)
                assert 0.19 < report.seconds < 1.5
                assert not server.connections
                assert server.statistics().ended == {"shutdown": 2}
                assert 0 < server.statistics().sent_bytes < 16 * MIB

    run(main)


def test_handler_that_does_not_end(run, ours, brief):
    """shutdown() does not wait for ever for a handler that nothing ends, and says so; when it ends
    later, its connection goes."""
    released = []

    async def handler(reader, writer):
        writer.write(b"hi")
        while not released:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    async def main():
        async with started(handler) as server:
            with await greeted(server):
                report = await server.shutdown(0)
                assert figures(report) == (0, 0, 1, 1)
                assert "1 of them with handlers that do not end" in str(report)
                assert len(server.connections) == 1
                released.append(True)
                await until(lambda: not server.connections)

    run(main)


def test_second_call_hurries_the_first(run, ours):
    """A second call with a smaller grace shortens that of the first, one with a larger does not
    lengthen it; all get one report."""
    handler = Greeter()

    async def main():
        async with started(handler) as server:
            with await greeted(server):
                first = asyncio.create_task(server.shutdown(10))
                await until(server.draining.is_set)
                second = asyncio.create_task(server.shutdown(0.1))
                third = asyncio.create_task(server.shutdown(15))
                fourth = asyncio.create_task(server.shutdown())
                reports = await asyncio.gather(first, second, third, fourth)
                assert all(report is reports[0] for report in reports)
                assert figures(reports[0]) == (0, 1, 0, 0)
                assert reports[0].seconds < 2
                assert await server.shutdown(0) is reports[0]

    run(main)


def test_cancelled_shutdown_goes_on(run, ours):
    """A task that waits in shutdown() can be cancelled: the server is shut down all the same, and
    another call gets the report."""
    handler = Greeter()

    async def main():
        async with started(handler) as server:
            with await greeted(server):
                task = asyncio.create_task(server.shutdown(0.1))
                await until(server.draining.is_set)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert handler.ends == []
                assert figures(await server.shutdown()) == (0, 1, 0, 0)

    run(main)


def test_shutdown_before_the_start(run, ours):
    """What needs a server that was started raises before that, and leaves it fit to be started."""
    handler = Greeter()

    async def main():
        several = headrace.serve(handler, LOOPBACK, 0, workers=2)
        server = headrace.serve(handler, LOOPBACK, 0)
        for call in (
            server.shutdown,
            server.serve_forever,
            several.shutdown,
            several.serve_forever,
            several.renew,
        ):
            with pytest.raises(RuntimeError, match="was not started"):
                await call()
        assert not several.draining.is_set()
        async with server:
            assert not server.draining.is_set()
            (await greeted(server)).close()

    run(main)


def test_shutdown_without_connections(run, ours):
    """A server without connections is shut down at once, whatever the grace, also by a handler that
    was the last."""
    reports = []

    async def handler(reader, writer):
        server = headrace.current_connection().server
        reports.append(asyncio.create_task(server.shutdown(10)))

    async def main():
        async with started(Greeter()) as server:
            assert (await server.shutdown(10)).seconds < 1
        async with started(handler) as server:
            with await connected(server) as sock:
                assert await receive(sock) == b""
                report = await reports[0]
                assert figures(report) == (1, 0, 0, 0)
                assert report.seconds < 1

    run(main)


def test_connections_that_wait_are_served(run, ours):
    """Clients whose connections the system has accepted, and the server not yet, when it is shut
    down, get their answers."""

    async def handler(reader, writer):
        writer.write((await reader.readline()).upper())

    async def main():
        async with started(handler) as server:
            address = server.sockets[0].getsockname()
            socks = [socket.create_connection(address) for _ in range(50)]
            for number, sock in enumerate(socks):
                sock.send(b"client %d\n" % number)
            report = await server.shutdown(5)
            assert [sock.recv(100) for sock in socks] == [
                b"CLIENT %d\n" % number for number in range(50)
            ]
            for sock in socks:
                sock.close()
            assert figures(report) == (50, 0, 0, 0)

    run(main)


def test_connections_that_wait_and_end_at_once_are_counted(run, ours):
    """Those accepted by a shutdown whose handlers end at once are among the finished."""

    async def handler(reader, writer):
        writer.write(b"full")

    async def main():
        async with started(handler) as server:
            socks = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(5)]
            report = await server.shutdown(5)
            assert [sock.recv(100) for sock in socks] == [b"full"] * 5
            for sock in socks:
                sock.close()
            assert figures(report) == (5, 0, 0, 0)

    run(main)


def test_shutdown_asked_for_by_one_that_waited(run, ours):
    """A handler that asks for a shutdown while one begins to accept it joins that one: it ends with
    the last connection."""
    asked = []

    async def handler(reader, writer):
        asked.append(asyncio.ensure_future(headrace.current_connection().server.shutdown(10)))
        await asyncio.sleep(0.05)

    async def main():
        async with started(handler) as server:
            with socket.create_connection(server.sockets[0].getsockname()):
                async with asyncio.timeout(2):
                    report = await server.shutdown(10)
                assert figures(report) == (1, 0, 0, 0)
                assert [await each for each in asked] == [report]

    run(main)


def test_under_load(run, ours):
    """Whoever was answered when the server was shut down got whole answers, and every answer that a
    handler wrote."""
    written = []

    async def handler(reader, writer):
        draining = headrace.current_connection().server.draining
        while not draining.is_set() and (line := await reader.readline()):
            writer.write(line.strip() * 5000 + b"\n")
            written.append(line)
            await writer.drain()

    async def talk(server, number, answers):
        reader, writer = await ours.open_connection(*server.sockets[0].getsockname(), limit=MIB)
        word = b"%02d" % number
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(word + b"\n")
                answer = await reader.readline()
                if not answer:
                    break
                assert answer == word * 5000 + b"\n"
                answers.append(word + b"\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def main():
        answers = []
        async with started(handler) as server:
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(talk(server, number, answers))
                # All of them are served: one that still connects would be refused.
                await until(lambda: len(answers) > 200 and len(set(answers)) == 20)
                report = await server.shutdown(5)
            assert figures(report) == (20, 0, 0, 0)
        assert sorted(answers) == sorted(written)

    run(main)


def test_nothing_is_left(run, ours, caplog):
    """After a shutdown no task, Connection or server is left, however its connections ended."""
    caplog.set_level(logging.CRITICAL, "headrace.server")  # records keep what was raised

    async def handler(reader, writer):
        connections.add(headrace.current_connection())
        writer.write(b"hi")
        word = await reader.read(5)
        if word == b"fail":
            raise LookupError
        await reader.read()

    async def life():
        async with headrace.serve(handler, LOOPBACK, 0, grace=0.1) as server:
            socks = [await greeted(server) for _ in range(6)]
            for sock, word in zip(socks, (b"fail", b"wait", b"go", b"fail"), strict=False):
                sock.send(word)
            socks[2].close()
            await until(lambda: server.statistics().handler_errors >= 2)
        for sock in socks:
            sock.close()
        assert server.statistics().handled == 6
        return weakref.ref(server)

    async def main():
        gone = await life()
        await asyncio.sleep(0)
        gc.collect()
        assert (gone(), list(connections)) == (None, [])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    connections = weakref.WeakSet()
    run(main)
