"""How connections of serve() end: no written byte is lost, connections that stay are ended, and
errors reach the side that they concern."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from support.connections import LOOPBACK, receive, until
from support.serving import connected

import headrace
from headrace._server import monitor
from headrace._transport import backend

BIG = bytes(3_000_000)

only_native = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


@only_native
def test_an_answer_to_a_peer_that_sends_on(run, native):
    """A handler that returns before it has read everything loses nothing of its answer: the peer
    would get a reset in the middle of it."""

    async def handler(reader, writer):
        await reader.readline()
        writer.write(BIG)

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            for _ in range(5):
                with await connected(server) as sock:
                    await asyncio.get_running_loop().sock_sendall(
                        sock, b"a line\n" + bytes(200_000)
                    )
                    assert len(await receive(sock)) == len(BIG)
            await until(lambda: not server.connections)

    run(main)


@only_native
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_abort_while_a_close_waits(run, native, tls, secure):
    """abort() ends a close that waits for a peer who takes nothing, at once."""

    async def handler(reader, writer):
        await reader.readline()
        writer.write(bytes(20_000_000))

    async def main():
        server = headrace.serve(handler, LOOPBACK, 0, ssl=tls.server if secure else None)
        async with server:
            options = {"ssl": tls.client, "server_hostname": "localhost"} if secure else {}
            reader, writer = await headrace.open_connection(
                *server.sockets[0].getsockname(), limit=1, **options
            )
            writer.write(b"a line\n")
            await writer.drain()
            await until(lambda: server.statistics().handled)
            began = asyncio.get_running_loop().time()
            (connection,) = server.connections
            connection.writer.transport.abort()
            await until(lambda: not server.connections)
            assert asyncio.get_running_loop().time() - began < 2
            writer.transport.abort()

    run(main)


@pytest.mark.parametrize("before", [0, 2])
def test_a_full_server_that_is_shut_down(run, ours, before):
    """A shutdown accepts nobody beyond max_connections of those who wait in the queue, whether it
    was full *before* or not."""
    begun = []

    async def handler(reader, writer):
        begun.append(writer)
        await reader.read()

    async def main():
        server = headrace.serve(handler, LOOPBACK, 0, max_connections=2, grace=0.1)
        await server.start()
        socks = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(10)]
        await until(lambda: len(begun) >= before)
        report = await server.shutdown()
        assert len(begun) == 2
        assert (report.cancelled, report.aborted) == (2, 8)
        for sock in socks:
            sock.close()

    run(main)


@pytest.mark.parametrize("place", ["tcp", "tls", "unix"])
@pytest.mark.parametrize(
    "bound",
    [{"max_connections": 1}, {"accept_rate": 20.0}, {"max_buffered_bytes": 100_000}],
    ids=lambda bound: next(iter(bound)),
)
def test_the_queue_of_a_server_that_accepts_nothing(run, ours, tls, tmp_path, place, bound):
    """Who waits in the queue when a server shuts down that accepts nothing for now comes in when
    there is room, within the grace."""
    most, queued, release = [], [], asyncio.Event()

    async def handler(reader, writer):
        server = headrace.current_connection().server
        most.append(sum(each.handled_at is not None for each in server.connections))
        line = await reader.readline()
        if line == b"first\n":
            await release.wait()
        writer.write(line.upper())

    async def client(address, number):
        options = {"ssl": tls.client, "server_hostname": "localhost"} if place == "tls" else {}
        line = b"first\n" if number == 0 else b"client %d\n" % number
        sock = await connected(address)
        queued.append(number)
        if place == "unix":
            reader, writer = await headrace.open_unix_connection(sock=sock)
        else:
            reader, writer = await headrace.open_connection(sock=sock, **options)
        writer.write(line)
        answer = await reader.read()
        writer.close()
        assert answer == line.upper()

    async def main():
        where = {"path": tmp_path / "socket"} if place == "unix" else {"host": LOOPBACK, "port": 0}
        server = headrace.serve(
            handler, **where, ssl=tls.server if place == "tls" else None, grace=15, **bound
        )
        await server.start()
        address = server.sockets[0].getsockname()
        clients = [asyncio.create_task(client(address, 0))]
        await until(lambda: most)
        server._listeners.hold("a test")
        clients += [asyncio.create_task(client(address, number)) for number in range(1, 30)]
        # They are connected as far as the system is concerned: a listening socket that closes would
        # refuse them.
        await until(lambda: len(queued) == 30)
        with (
            await connected(address),
            socket.socket(socket.AF_UNIX if place == "unix" else socket.AF_INET) as late,
        ):
            shutdown = asyncio.create_task(server.shutdown())
            await until(lambda: len(server._listeners.waiting) >= 30)
            assert len(most) == 1
            with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                late.connect(address)
        server._listeners.release("a test")
        release.set()
        await asyncio.gather(*clients)
        report = await shutdown
        assert (report.cancelled, report.aborted) == (0, 0)
        if "max_connections" in bound:
            assert max(most) == 1

    run(main)


def test_who_was_refused_and_does_not_go(run, ours, monkeypatch):
    """A connection that was turned away and takes nothing of what it is told is cut off, and its
    place is free."""
    monkeypatch.setattr(monitor, "REFUSED_SECONDS", 0.1)

    async def handler(reader, writer):
        await reader.read()

    async def main():
        server = headrace.serve(
            handler,
            LOOPBACK,
            0,
            max_connections=1,
            refusal=bytes(20_000_000),
            first_byte_timeout=None,
            stall_timeout=0.3,
        )
        async with server:
            with await connected(server), await connected(server, 4096):
                await until(lambda: server.statistics().refused == {"full": 1})
                await until(lambda: len(server.connections) == 1)

    run(main)


def test_a_handler_that_fails_after_it_was_told(run, ours, caplog):
    """A handler's own fault is logged even after the server ended its connection; the error that
    says so is not."""

    async def handler(reader, writer):
        try:
            await reader.read()
        except ConnectionAbortedError:
            if (await asyncio.sleep(0, headrace.current_connection())).id == 1:
                raise KeyError("a fault of its own") from None
            raise

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0, idle_timeout=0.1) as server:
            with await connected(server), await connected(server):
                await until(lambda: server.statistics().handled == 2)
            assert server.statistics().errors == {"KeyError": 1}

    run(main)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.connection for record in errors] == [1]


def test_on_error_knows_the_connection(run, ours, caplog):
    """on_error() is called where current_connection() is the one it is about, and what it sets is
    not seen by the next call."""
    known = []

    def on_error(connection, error):
        known.append((headrace.current_connection() is connection, str(error)))

    async def handler(reader, writer):
        raise ValueError("a fault")

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0, on_error=on_error) as server:
            with await connected(server) as sock:
                assert await receive(sock) == b""

    run(main)
    assert known == [(True, "a fault")]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"on_error": connected}, TypeError, "on_error is called, not awaited"),
        ({"refusal": "no"}, TypeError, "refusal must be bytes, not 'str'"),
        ({"grace": float("nan")}, ValueError, "grace must be 0 or more"),
        ({"keep_alive": 0}, ValueError, "keep_alive must be a number of seconds above 0"),
        (
            {"keep_alive": float("inf")},
            ValueError,
            "keep_alive must be a number of seconds above 0",
        ),
        (
            {"keep_alive": 40000},
            ValueError,
            "keep_alive must be .* at most 32,767",
        ),
        ({"max_connections": 1.5}, ValueError, "max_connections must be a whole number above 0"),
        ({"proxies": "127.0.0.1"}, TypeError, "proxies must be a list of networks"),
    ],
)
def test_arguments_that_cannot_be(options, error, words):
    """Arguments that make no sense are refused at once, with what would be right."""
    with pytest.raises(error, match=words):
        headrace.serve(connected, LOOPBACK, 0, **options)
