"""start_server(): addresses, socket options, arguments, and what is left when it fails."""

import asyncio
import contextvars
import errno
import functools
import socket
import struct
import sys

import pytest
from support.connections import LOOPBACK, receive, until
from support.refusals import OF_TCP, refuses


async def quiet(reader, writer):
    writer.close()
    await writer.wait_closed()


def lacks(streams, loop_kind, since=(3, 11)):
    """Skip asyncio's own functions where the loop or the version does not have what the test is
    about."""
    if streams.name == "stock" and (loop_kind == "uvloop" or sys.version_info < since):
        pytest.skip("not in asyncio's streams here")


def free_port():
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return sock.getsockname()[1]


def test_several_hosts(run, streams):
    """host may be several addresses: each gets a socket, of its own family."""

    async def main():
        async with await streams.start_server(
            quiet, [LOOPBACK, "::1"], 0, start_serving=False
        ) as server:
            return sorted(sock.getsockname()[0] for sock in server.sockets)

    assert run(main) == [LOOPBACK, "::1"]


def test_each_address_is_bound_once(run, streams, loop_kind):
    """An address that is named twice, if by another name, gets one socket."""
    lacks(streams, loop_kind)

    async def main():
        hosts = (LOOPBACK, "localhost", LOOPBACK)
        async with await streams.start_server(
            quiet, hosts, 0, family=socket.AF_INET, start_serving=False
        ) as server:
            return [sock.getsockname()[0] for sock in server.sockets]

    assert run(main) == [LOOPBACK]


@pytest.mark.parametrize("host", [None, ""])
def test_all_interfaces(run, streams, host):
    """host=None and host="" mean every interface."""

    async def main():
        async with await streams.start_server(quiet, host, 0, start_serving=False) as server:
            return {sock.getsockname()[0] for sock in server.sockets}

    assert "0.0.0.0" in run(main)


def test_any_port(run, streams):
    """port=None is a free port, as port=0 is."""

    async def main():
        async with await streams.start_server(quiet, LOOPBACK, start_serving=False) as server:
            return server.sockets[0].getsockname()[1]

    assert run(main) > 0


def test_bound_socket(run, streams):
    """A bound socket that is passed is listened on, and closed with the server."""

    async def main():
        sock = socket.socket()
        sock.bind((LOOPBACK, 0))
        address = sock.getsockname()
        async with await streams.start_server(quiet, sock=sock):
            reader, writer = await streams.open_connection(*address)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0)
        assert sock.fileno() == -1

    run(main)


def test_taken_address(run, streams):
    """An address that somebody listens on is named in the error, whose errno is EADDRINUSE."""

    async def main():
        async with await streams.start_server(quiet, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(
                OSError, match=f"error while attempting to bind on address .*{port}"
            ) as info:
                await streams.start_server(quiet, LOOPBACK, port)
            assert info.value.errno == errno.EADDRINUSE

    run(main)


@pytest.mark.parametrize("how", ["start_server", "start_serving", "serve_forever"])
def test_address_taken_between_bind_and_listen(run, streams, loop_kind, how):
    """A listen() that the system refuses raises, also on uvloop, and nothing is left listening."""
    lacks(streams, loop_kind)

    async def main():
        with socket.create_server((LOOPBACK, 0)) as first, socket.socket() as second:
            # Two sockets that do not listen may share an address.
            port = free_port()
            for sock in (third := socket.socket(), second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
                sock.bind((LOOPBACK, port))
            third.listen()
            with third, pytest.raises(OSError, match="in use"):
                server = await streams.start_server(
                    quiet, sock=second, start_serving=how == "start_server"
                )
                try:
                    await getattr(server, how)()
                finally:
                    server.close()
            assert first.fileno() >= 0

    run(main)


def test_options_of_the_sockets(run, streams, loop_kind):
    """SO_REUSEADDR is set by default, and SO_REUSEPORT on request: two servers then share an
    address."""

    def option(server, name):
        return server.sockets[0].getsockopt(socket.SOL_SOCKET, name)

    async def main():
        async with await streams.start_server(quiet, LOOPBACK, 0, reuse_port=True) as one:
            port = one.sockets[0].getsockname()[1]
            assert option(one, socket.SO_REUSEADDR)
            assert option(one, socket.SO_REUSEPORT)
            async with await streams.start_server(quiet, LOOPBACK, port, reuse_port=True):
                pass
        async with await streams.start_server(quiet, LOOPBACK, 0, reuse_address=False) as two:
            assert not option(two, socket.SO_REUSEPORT)
            if loop_kind != "uvloop":  # libuv sets it whatever one asks
                assert not option(two, socket.SO_REUSEADDR)

    run(main)


@pytest.mark.parametrize("keep_alive", [True, None])
def test_keep_alive(run, streams, loop_kind, keep_alive):
    """keep_alive=True sets SO_KEEPALIVE on every connection, on every loop and version."""
    lacks(streams, loop_kind, (3, 13))

    async def main():
        found = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            found.set_result(
                writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            )
            await quiet(reader, writer)

        async with await streams.start_server(serve, LOOPBACK, 0, keep_alive=keep_alive) as server:
            with socket.create_connection(server.sockets[0].getsockname()):
                return await found

    # uvloop itself sets it on every connection: so that of a server that does not ask is the loop's
    # own affair.
    assert bool(run(main)) == bool(keep_alive) or (loop_kind == "uvloop" and not keep_alive)


def test_backlog(run, streams):
    """backlog reaches the system, which tells it in tcpi_sacked of a listening socket's struct
    tcp_info."""

    async def main():
        found = []
        for options in ({}, {"backlog": 7}):
            async with await streams.start_server(quiet, LOOPBACK, 0, **options) as server:
                information = server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
                found.append(struct.unpack_from("I", information, 28)[0])
        return found

    assert run(main) == [100, 7]


def test_start_serving_later(run, streams):
    """With start_serving=False nothing is accepted, or even listened to, until start_serving()."""

    async def main():
        async with await streams.start_server(quiet, LOOPBACK, 0, start_serving=False) as server:
            address = server.sockets[0].getsockname()
            with pytest.raises(ConnectionRefusedError):
                await streams.open_connection(*address)
            await server.start_serving()
            reader, writer = await streams.open_connection(*address)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)


def test_limit_is_the_readers(run, ours):
    """limit reaches the readers; None and no limit are 64 KiB."""

    async def main():
        limits = []

        async def serve(reader, writer):
            limits.append(reader._limit)
            await quiet(reader, writer)

        for options in ({}, {"limit": None}, {"limit": 77}):
            async with await ours.start_server(serve, LOOPBACK, 0, **options) as server:
                with socket.create_connection(server.sockets[0].getsockname()) as sock:
                    sock.setblocking(False)
                    await receive(sock)
        return limits

    assert run(main) == [65536, 65536, 77]


def test_impossible_limit(run, ours):
    """A limit that no reader can have is refused at once, not when the first client comes, as in
    asyncio."""

    async def main():
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            await ours.start_server(quiet, LOOPBACK, 0, limit=0)

    run(main)


CONTRADICTIONS = [
    *OF_TCP,
    (dict(), ValueError, "Neither host/port nor sock were specified"),
    (
        dict(host=LOOPBACK, port=0, ssl=True),
        TypeError,
        "ssl argument must be an SSLContext or None",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), CONTRADICTIONS)
def test_contradictions_are_refused(run, streams, options, error, message):
    """Arguments that contradict each other raise asyncio's errors, and a socket that was passed
    stays open."""

    async def main():
        start = functools.partial(streams.start_server, quiet)
        await refuses(start, options, error, message)

    run(main)


def test_wrong_kind_of_socket_is_refused(run, streams):
    """A datagram socket cannot be listened on."""

    async def main():
        with (
            socket.socket(type=socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match="A Stream Socket was expected"),
        ):
            await streams.start_server(quiet, sock=sock)

    run(main)


def test_cancelled_start(run, ours, loop_kind):
    """A start that is cancelled, at whichever of its steps, leaves nothing listening."""

    async def main():
        port = free_port()
        finished = False
        # A name is looked up in a thread, which takes as many turns as it takes.
        for steps in (*range(1, 20), 100, 1000, 10000):
            task = asyncio.create_task(ours.start_server(quiet, LOOPBACK, port))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                server = await task
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                with pytest.raises(ConnectionRefusedError):
                    await ours.open_connection(LOOPBACK, port)
            else:
                finished = True
                server.close()
        return finished

    assert run(main)


def test_context_of_the_handlers(run, streams):
    """Handlers run in a copy of the context in which the server was started, one each."""
    variable = contextvars.ContextVar("variable", default="nothing")
    found = []

    async def serve(reader, writer):
        value = variable.get()
        variable.set("a handler's own")
        await quiet(reader, writer)
        found.append(value)

    async def main():
        variable.set("the server's")
        server = await streams.start_server(serve, LOOPBACK, 0)
        variable.set("later")
        async with server:
            for count in (1, 2):
                with socket.create_connection(server.sockets[0].getsockname()):
                    await until(lambda count=count: len(found) == count)

    run(main)
    assert found == ["the server's", "the server's"]


def test_handshake_timeout(run, streams, tls):
    """ssl_handshake_timeout ends the connection of a client that says nothing."""
    run.expect_errors()

    async def main():
        options = {"ssl": tls.server, "ssl_handshake_timeout": 0.01, "ssl_shutdown_timeout": 1}
        async with await streams.start_server(quiet, LOOPBACK, 0, **options) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.setblocking(False)
                assert await receive(sock) == b""

    run(main)
