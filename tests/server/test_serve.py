"""serve(): the life of a connection: its handler and how it ends, logs and counts, and its context
variables."""

import asyncio
import contextlib
import contextvars
import logging
import socket

import pytest
from support.connections import LOOPBACK, receive, reset, until
from support.serving import ask, connected

import headrace

MIB = 1 << 20
colour = contextvars.ContextVar("colour", default="none")


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def failures(caplog):
    """Return the records of errors that the server has logged."""
    return [
        record
        for record in caplog.records
        if record.name == "headrace.server" and record.levelno >= logging.WARNING
    ]


# ---- handlers


def test_what_was_written_arrives_before_the_close(run, ours):
    """A handler that returns at once has all that it wrote sent, however slow the peer is; then its
    writer is closed."""
    writers = []

    async def handler(reader, writer):
        writers.append(writer)
        writer.write(b"x" * 4 * MIB)

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            with await connected(server) as sock:
                await until(lambda: writers and writers[0].is_closing())
                assert len(server.connections) == 1
                assert len(await receive(sock)) == 4 * MIB
            await until(lambda: not server.connections)
            await writers[0].wait_closed()

    run(main)


def test_handler_that_never_reads(run, ours):
    """What a handler wrote arrives although it has read nothing of what the peer sent, and the
    connection ends."""

    async def handler(reader, writer):
        writer.write(b"no")

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            with await connected(server) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"x" * 65536)
                assert await receive(sock, 2) == b"no"
                await until(lambda: not server.connections)

    run(main)


def test_handler_that_raises(run, ours, caplog):
    """An exception of a handler is logged once, with the server, connection and peer, counted, and
    given to on_error; others go on."""
    caplog.set_level(logging.INFO, "headrace.server")
    told = []

    async def handler(reader, writer):
        data = await reader.read(100)
        writer.write(data)
        if data == b"fail":
            raise LookupError("nothing there")

    async def main():
        async with headrace.serve(
            handler, LOOPBACK, 0, name="shop", on_error=lambda *both: told.append(both)
        ) as server:
            assert await ask(server, b"good") == b"good"
            with await connected(server) as sock:
                sock.send(b"fail")
                assert await receive(sock) == b"fail"
                peer = sock.getsockname()
            assert await ask(server, b"good") == b"good"
            await until(lambda: server.statistics().handled == 3)
            assert server.statistics().handler_errors == 1
        [record] = failures(caplog)
        assert (record.levelno, record.server, record.connection, record.peer) == (
            logging.ERROR,
            "shop",
            2,
            peer,
        )
        assert record.exc_info[0] is LookupError
        assert "shop" in record.getMessage()
        [(connection, error)] = told
        assert (connection.id, connection.peername, str(error)) == (2, peer, "nothing there")

    run(main)


@pytest.mark.parametrize("grouped", [False, True])
def test_what_the_peer_breaks_is_no_failure(run, ours, caplog, grouped):
    """A reset or an early end that a handler lets through, itself or from a group of tasks, is
    logged at INFO, and no error."""
    caplog.set_level(logging.INFO, "headrace.server")

    async def handler(reader, writer):
        if not grouped:
            await reader.readexactly(10)
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.readexactly(10))

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            assert await ask(server, b"short") == b""
            sock = await connected(server)
            await until(lambda: server.statistics().accepted == 2 and server.connections)
            reset(sock)
            await until(lambda: server.statistics().handled == 2)
            assert (server.statistics().handler_errors, server.statistics().errors) == (0, {})
        assert failures(caplog) == []
        broken = [
            record for record in caplog.records if "broke the connection" in record.getMessage()
        ]
        assert [(record.connection, record.peer[0]) for record in broken] == [
            (1, LOOPBACK),
            (2, LOOPBACK),
        ]

    run(main)


def test_what_a_backend_breaks_is_a_failure(run, ours, caplog):
    """A ConnectionError that is not of the peer's connection, such as a database's that refuses, is
    logged as an error."""

    async def handler(reader, writer):
        await reader.read(1)
        raise ConnectionRefusedError("the database")

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            with await connected(server) as sock:
                sock.send(b"x")
                assert await receive(sock) == b""
        assert [record.exc_info[0] for record in failures(caplog)] == [ConnectionRefusedError]

    run(main)


def test_on_error_that_raises(run, ours, caplog):
    """What on_error raises is logged beside what it was called for; the connection is closed, and
    others go on."""

    async def handler(reader, writer):
        raise LookupError

    def on_error(connection, error):
        raise ArithmeticError

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0, on_error=on_error) as server:
            assert await ask(server) == b""
            assert await ask(server) == b""
            await until(lambda: not server.connections)
            assert server.statistics().handler_errors == 2
        assert [record.exc_info[0] for record in failures(caplog)] == [
            LookupError,
            ArithmeticError,
        ] * 2

    run(main)


def test_handler_that_is_cancelled(run, ours, caplog):
    """A handler whose task is cancelled, by itself or otherwise, ends its connection and is no
    error."""
    told = []

    async def handler(reader, writer):
        writer.write(b"bye")
        asyncio.current_task().cancel()
        await reader.read()

    async def main():
        async with headrace.serve(
            handler, LOOPBACK, 0, on_error=lambda *both: told.append(both)
        ) as server:
            with await connected(server) as sock:
                assert await receive(sock) == b"bye"
            await until(lambda: not server.connections)
            assert (server.statistics().handled, server.statistics().handler_errors) == (1, 0)
        assert (failures(caplog), told) == ([], [])

    run(main)


@pytest.mark.parametrize("kind", ["raises", "nothing", "number"])
def test_handler_that_is_no_coroutine_function(run, ours, caplog, kind):
    """A function that raises, or returns nothing to await, is an error like any other: logged,
    counted, and its connection closed."""

    def handler(reader, writer) -> object:
        if kind == "raises":
            raise TypeError("raised")
        return None if kind == "nothing" else 7

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            assert await ask(server) == b""
            await until(lambda: not server.connections)
            assert (server.statistics().handled, server.statistics().handler_errors) == (1, 1)
            assert server.statistics().errors == {"TypeError": 1}
        assert [record.exc_info[0] for record in failures(caplog)] == [TypeError]

    run(main)


def test_handler_that_returns_a_future(run, ours):
    """Any awaitable is waited for: a connection stays until the future is done that its handler has
    returned."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        async with headrace.serve(lambda reader, writer: future, LOOPBACK, 0) as server:
            with await connected(server) as sock:
                await until(lambda: server.connections)
                await asyncio.sleep(0.01)
                assert len(server.connections) == 1
                future.set_result(None)
                assert await receive(sock) == b""

    run(main)


# ---- current_connection() and contexts


def test_current_connection(run, ours):
    """A handler, its tasks and its threads know their connection; nobody else has one."""
    seen = []

    async def inner():
        return headrace.current_connection()

    async def handler(reader, writer):
        seen.append(headrace.current_connection())
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(inner()),
                group.create_task(asyncio.to_thread(headrace.current_connection)),
            ]
        seen.extend(task.result() for task in tasks)

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            assert await ask(server) == b""
            assert len(seen) == 3
            assert set(seen) == {seen[0]}
            assert seen[0].server is server
            assert seen[0].proxy is None
            assert repr(seen[0]).startswith(f"<Connection 1 of {server.name} with ('{LOOPBACK}', ")
            with pytest.raises(LookupError, match=r"no handler of headrace\.serve"):
                headrace.current_connection()
        seen.clear()

    run(main)


@pytest.mark.parametrize("most", [None, 1])
def test_context_variables_are_a_connections_own(run, ours, most):
    """What a handler sets is not seen by a later one, also where accepting had to wait until what
    the first wrote was sent."""
    seen = []

    async def handler(reader, writer):
        seen.append(colour.get())
        colour.set((await reader.read(10)).decode())
        writer.write(b"x" * 4 * MIB)

    async def main():
        colour.set("started")
        async with headrace.serve(handler, LOOPBACK, 0, max_connections=most) as server:
            for word in (b"red", b"green", b"blue"):
                assert len(await ask(server, word)) == 4 * MIB
        assert seen == ["started"] * 3

    run(main)


def test_context_of_a_shutdown_is_not_that_of_connections(run, ours):
    """Connections that wait until a shutdown accepts them do not see the variables of the task that
    asked for it."""
    seen = []

    async def handler(reader, writer):
        seen.append(colour.get())
        await reader.read()

    async def stop(server):
        colour.set("the task's")
        # Connected by the system, and not accepted before the shutdown: the loop has no turn in
        # between.
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.shutdown(socket.SHUT_WR)
            await server.shutdown()

    async def main():
        server = headrace.serve(handler, LOOPBACK, 0, grace=5)
        await server.start()
        await asyncio.create_task(stop(server))
        assert seen == ["none"]

    run(main)


# ---- what is counted


def test_statistics_are_exact(run, ours):
    """Bytes are counted both ways, each once, while connections are there and after; connections is
    those that are open."""

    async def main():
        async with headrace.serve(echo, LOOPBACK, 0) as server:
            loop = asyncio.get_running_loop()
            with await connected(server) as first, await connected(server) as second:
                for sock, size in ((first, 300_000), (second, 7)):
                    sending = asyncio.ensure_future(loop.sock_sendall(sock, b"x" * size))
                    assert len(await receive(sock, size)) == size
                    await sending
                assert sorted(each.id for each in server.connections) == [1, 2]
                figures = server.statistics()
                assert (
                    figures.accepted,
                    figures.open,
                    figures.handled,
                    figures.buffered_bytes,
                ) == (2, 2, 0, 0)
                assert (figures.received_bytes, figures.sent_bytes) == (300_007, 300_007)
                assert (figures.draining, figures.drain_seconds, figures.negotiating) == (
                    False,
                    None,
                    0,
                )
            await until(lambda: not server.connections)
        figures = server.statistics()
        assert (figures.accepted, figures.open, figures.handled, figures.handler_errors) == (
            2,
            0,
            2,
            0,
        )
        assert (figures.received_bytes, figures.sent_bytes) == (300_007, 300_007)
        assert (figures.refused, figures.ended, figures.failed) == ({}, {}, {})
        assert figures.draining
        assert figures.drain_seconds >= 0

    run(main)


def test_bytes_of_a_lost_connection_count_once(run, ours):
    """While a handler outlives its connection, what that has carried is counted once, and nothing
    of it is buffered."""

    async def handler(reader, writer):
        writer.write(await reader.readexactly(5))
        with contextlib.suppress(OSError):
            await reader.read()
        await over.wait()

    async def main():
        nonlocal over
        over = asyncio.Event()
        async with headrace.serve(handler, LOOPBACK, 0) as server:
            sock = await connected(server)
            sock.send(b"x" * 5)
            assert await receive(sock, 5) == b"x" * 5
            [connection] = server.connections
            reset(sock)
            await until(lambda: connection.lost)
            during = server.statistics()
            over.set()
            await until(lambda: not server.connections)
            after = server.statistics()
        assert [(each.received_bytes, each.sent_bytes) for each in (during, after)] == [(5, 5)] * 2

    over = None
    run(main)
