"""Server: serving, closing and waiting, as asyncio does it on Python 3.13, on every version and
loop."""

import asyncio
import contextlib
import gc
import os
import socket
import sys

import pytest
from support.connections import LOOPBACK, receive, until

import headrace
from headrace._transport import backend


def modern(streams, loop_kind):
    """Skip asyncio's own server where it is not that of Python 3.13."""
    if streams.name == "stock" and (loop_kind == "uvloop" or sys.version_info < (3, 13)):
        pytest.skip("new in asyncio's server of Python 3.13")


async def until_eof(reader, writer):
    """A handler that ends with its client."""
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def client(server):
    """Return a plain socket that is connected to *server*."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.sockets[0].getsockname())
    return sock


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_states(run, streams):
    """is_serving() and sockets follow start_serving(), close(), and a second close(), which does
    nothing."""

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0, start_serving=False)
        assert isinstance(server.sockets[0].getsockname()[1], int)
        assert not server.is_serving()
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        assert "sockets=" in repr(server)
        server.close()
        server.close()
        assert not server.is_serving()
        assert len(server.sockets) == 0
        await server.wait_closed()

    run(main)


def test_names_that_asyncio_tests_read(run, ours):
    """_sockets and _waiters are None once the server is closed and its connections are gone; the
    server is an AbstractServer."""

    async def main():
        server = await ours.start_server(until_eof, LOOPBACK, 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server.sockets, tuple)
        assert len(server._sockets) == 1
        assert server._waiters == []
        server.close()
        assert server.sockets == ()
        assert server._sockets is None
        assert server._waiters is None

    run(main)


def test_closed_server_does_not_serve(run, ours):
    """start_serving() and serve_forever() of a closed server raise RuntimeError."""

    async def main():
        server = await ours.start_server(until_eof, LOOPBACK, 0)
        server.close()
        for method in (server.start_serving, server.serve_forever):
            with pytest.raises(RuntimeError, match="is closed"):
                await method()

    run(main)


def test_serve_forever_once(run, streams):
    """A second serve_forever() is refused; cancelling the first closes the server."""

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0, start_serving=False)
        task = asyncio.create_task(server.serve_forever())
        await until(server.is_serving)
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(main)


def test_close_ends_serve_forever(run, streams, loop_kind):
    """close() cancels serve_forever(), which then waits for the connections."""
    modern(streams, loop_kind)
    if streams.name == "stock" and sys.version_info >= (3, 14):
        pytest.skip("asyncio's closes the connections then too from Python 3.14 on")

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0)
        task = asyncio.create_task(server.serve_forever())
        with await client(server) as sock:
            await turns()
            server.close()
            await turns()
            assert not task.done()
            sock.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


@pytest.mark.parametrize("how", ["alone", "in a block", "with close()", "after close()"])
def test_cancelled_with_an_idle_client(run, streams, loop_kind, how):
    """A cancellation of serve_forever() closes the connections: an idle client does not keep it
    waiting."""
    modern(streams, loop_kind)
    if streams.name == "stock" and sys.version_info < (3, 14):
        pytest.skip("asyncio's hangs before Python 3.14")

    async def serve(server):
        if how == "alone":
            await server.serve_forever()
        async with server:
            await server.serve_forever()

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0)
        task = asyncio.create_task(serve(server))
        with await client(server) as sock:
            await turns(10)
            if "close()" in how:
                server.close()
            if how == "after close()":
                await turns()
                assert streams.name == "stock" or not task.done()
            task.cancel()
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    await task
                if how == "after close()":  # the wait was given up, as it always could be
                    server.close_clients()
                assert await receive(sock) == b""
                await server.wait_closed()

    run(main)


def test_wait_closed_waits_for_both(run, streams, loop_kind):
    """wait_closed() returns when the server is closed and the last connection is gone, for every
    caller at any time."""
    modern(streams, loop_kind)

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0)
        first = asyncio.create_task(server.wait_closed())
        with await client(server) as sock:
            await turns()
            assert not first.done()
            server.close()
            second = asyncio.create_task(server.wait_closed())
            await turns()
            assert not first.done()
            assert not second.done()
            sock.shutdown(socket.SHUT_WR)
            await first
            await second
            await server.wait_closed()

    run(main)


def test_with_block_waits_for_connections(run, streams, loop_kind):
    """Leaving ``async with server`` closes it and waits until its connections are gone."""
    modern(streams, loop_kind)
    done = []

    async def serve(reader, writer):
        await until_eof(reader, writer)
        done.append(True)

    async def main():
        async with await streams.start_server(serve, LOOPBACK, 0) as server:
            sock = await client(server)
            asyncio.get_running_loop().call_later(0.01, sock.close)
        await turns()
        assert done == [True]

    run(main)


def test_cancelled_wait_leaves_others_alone(run, ours):
    """A wait_closed() that times out does not end the others."""

    async def main():
        server = await ours.start_server(until_eof, LOOPBACK, 0)
        other = asyncio.create_task(server.wait_closed())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 0.001)
        assert not other.done()
        assert len(server._waiters) == 1
        server.close()
        await other

    run(main)


def test_close_clients(run, streams, loop_kind):
    """close_clients() ends idle connections, so that wait_closed() returns."""
    modern(streams, loop_kind)

    async def main():
        server = await streams.start_server(until_eof, LOOPBACK, 0)
        with await client(server) as one, await client(server) as two:
            await turns(10)
            server.close()
            server.close_clients()
            await server.wait_closed()
            assert await receive(one) == b""
            assert await receive(two) == b""

    run(main)


def test_close_clients_loses_nothing(run, streams, loop_kind):
    """What a handler wrote in the step that calls close_clients() is sent; what it writes after
    that is not."""
    modern(streams, loop_kind)

    async def main():
        async def serve(reader, writer):
            assert await reader.readexactly(2) == b"go"
            writer.write(b"before")
            server.close()
            server.close_clients()
            if (
                streams.name == "headrace"
            ):  # asyncio sends it where something is still queued (gh-115514)
                writer.write(b"after")

        server = await streams.start_server(serve, LOOPBACK, 0)
        with await client(server) as sock:
            sock.send(b"go")
            assert await receive(sock) == b"before"
        await server.wait_closed()

    run(main)


def test_close_clients_of_tls(run, ours, tls):
    """close_clients() says goodbye in TLS: the client sees an end, not a broken connection."""

    async def main():
        async with await ours.start_server(until_eof, LOOPBACK, 0, ssl=tls.server) as server:
            reader, writer = await ours.open_connection(
                *server.sockets[0].getsockname(), ssl=tls.client, server_hostname="localhost"
            )
            await until(
                lambda: server._h_clients and all(client.connected for client in server._h_clients)
            )
            server.close()
            server.close_clients()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)


def test_abort_clients(run, streams, loop_kind):
    """abort_clients() ends a connection whose client reads nothing, and forgets what was written to
    it."""
    modern(streams, loop_kind)

    async def main():
        connected = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            writer.write(bytes(8 << 20))
            connected.set_result(writer.transport.get_write_buffer_size())
            await reader.read()
            writer.close()

        server = await streams.start_server(serve, LOOPBACK, 0)
        with await client(server) as sock:
            assert await connected > 0
            server.close()
            server.abort_clients()
            await server.wait_closed()
            assert sock.fileno() >= 0

    run(main)


def test_clients_in_their_handshake_are_given_up(run, ours, tls):
    """close_clients() does not wait for an unfinished TLS handshake; its handler never starts."""
    # In debug mode the loop tells of a connection that ended before it began.
    run.expect_errors()
    called = []

    async def main():
        server = await ours.start_server(
            lambda *streams: called.append(streams), LOOPBACK, 0, ssl=tls.server
        )
        with await client(server) as sock:
            await until(lambda: server._h_clients)
            server.close()
            waiting = asyncio.create_task(server.wait_closed())
            await turns()
            assert not waiting.done()
            server.close_clients()
            await waiting
            # The client may still go on with its handshake, to no avail; ssl.SSLError is an
            # OSError.
            with contextlib.suppress(OSError):
                reader, writer = await ours.open_connection(
                    sock=sock, ssl=tls.client, server_hostname="localhost"
                )
                with contextlib.closing(writer.transport):
                    assert await reader.read() == b""
        await turns()

    run(main)
    assert called == []


def test_failed_handshake_is_no_connection(run, ours, tls):
    """A client that fails its TLS handshake does not keep wait_closed() waiting."""
    run.expect_errors()

    async def main():
        async with await ours.start_server(until_eof, LOOPBACK, 0, ssl=tls.server) as server:
            with await client(server) as sock:
                sock.send(b"this is no handshake, whatever else it may be\n" * 10)
                await receive(sock)

    run(main)


def test_handshake_holds_wait_closed(run, ours, tls):
    """A connection in its TLS handshake is one: close() lets it finish, and wait_closed() waits for
    it."""

    async def serve(reader, writer):
        writer.write(b"served")
        writer.close()

    async def main():
        server = await ours.start_server(serve, LOOPBACK, 0, ssl=tls.server)
        with await client(server) as sock:
            await until(lambda: server._h_clients)
            server.close()
            waiting = asyncio.create_task(server.wait_closed())
            reader, writer = await ours.open_connection(
                sock=sock, ssl=tls.client, server_hostname="localhost"
            )
            assert not waiting.done()
            assert await reader.read() == b"served"
            writer.close()
            await writer.wait_closed()
            await waiting

    run(main)


@pytest.mark.defect("gh-109564")
def test_close_right_after_the_accept(run, ours, loop_kind):
    """A connection that was accepted in the turn in which the server closes is closed in order, and
    no error is reported."""
    between = []

    async def main():
        loop = asyncio.get_running_loop()
        server = await ours.start_server(until_eof, LOOPBACK, 0)

        def close_first(loop, coroutine, **options):
            # asyncio accepts, and a task then makes the transport: the server closes between the
            # two.
            if "accept" in getattr(coroutine, "__qualname__", ""):
                between.append(loop.call_soon(server.close))
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(close_first)
        with await client(server) as sock:
            await turns(20)
            server.close()
            sock.shutdown(socket.SHUT_WR)
            assert await receive(sock) == b""
        await server.wait_closed()
        gc.collect()
        await turns()

    # Not on asyncio's streams: what they leave half made is found, with its warnings, by the tests
    # that follow.
    run(main)
    assert between or loop_kind == "uvloop" or os.environ[backend.VARIABLE] == "native"


def test_late_client_is_not_served(run, ours, loop_kind):
    """A connection that reaches a server nobody waits for any more is closed, and its handler never
    starts."""
    called = []

    async def main():
        server = await ours.start_server(lambda *streams: called.append(streams), LOOPBACK, 0)
        loop = asyncio.get_running_loop()
        server.close()
        await server.wait_closed()
        here, there = socket.socketpair()
        with here:
            here.setblocking(False)
            transport, _ = await loop.connect_accepted_socket(server._h_make_protocol, there)
            assert await receive(here) == b""
            transport.abort()
        await turns()

    run(main)
    assert called == []


def test_dropped_writer_is_noticed(run, streams, loop_kind):
    """A server keeps no writer alive: one that its handler drops is closed with a ResourceWarning,
    and counts no more."""
    modern(streams, loop_kind)

    async def main():
        async def serve(reader, writer):
            await reader.readexactly(1)

        with pytest.warns(ResourceWarning, match="unclosed"):
            async with asyncio.timeout(1):
                async with await streams.start_server(serve, LOOPBACK, 0) as server:
                    with await client(server) as sock:
                        sock.send(b"x")
                        assert await receive(sock) == b""
        gc.collect()

    run(main)


def test_protocol_that_was_replaced(run, streams, loop_kind):
    """A connection whose protocol somebody has replaced counts until it is closed."""
    modern(streams, loop_kind)

    async def main():
        lost = asyncio.Event()

        class Other(asyncio.Protocol):
            def connection_lost(self, exc):
                lost.set()

        def serve(reader, writer):
            writer.transport.set_protocol(Other())
            kept.append(writer)

        kept = []
        server = await streams.start_server(serve, LOOPBACK, 0)
        with await client(server):
            await until(lambda: kept)
            server.close()
            waiting = asyncio.create_task(server.wait_closed())
            await turns()
            assert not waiting.done()
            writer = kept.pop()
            writer.transport.close()
            del writer
            await lost.wait()
            gc.collect()
            await waiting

    run(main)


@pytest.mark.parametrize("unix", [False, True])
def test_kind(run, streams, loop_kind, unix, tmp_path):
    """A server is an asyncio.Server, as the documentation says."""
    if streams.name == "stock" and loop_kind == "uvloop":
        pytest.skip("uvloop has a class of its own")

    async def main():
        where = (str(tmp_path / "socket"),) if unix else ("127.0.0.1", 0)
        start = streams.start_unix_server if unix else streams.start_server
        async with await start(print, *where) as server:
            assert isinstance(server, asyncio.Server)

    run(main)


def test_nothing_of_asyncios_server_is_inherited():
    """What asyncio's class does, ours does itself, in this version of Python as well: the state of
    the two differs."""
    theirs = {name for name in vars(asyncio.Server) if not name.startswith("__")}
    assert theirs <= set(vars(headrace.Server))
    assert not hasattr(object.__new__(headrace.Server), "_wakeup")
