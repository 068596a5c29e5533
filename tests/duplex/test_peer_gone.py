"""wait_peer_gone(): how a connection ended, seen while nobody reads; it takes no byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, reset, until

import headrace
from headrace import PeerGone
from headrace._duplex import gone

LONG = 30.0
# Longer than it takes to notice anything.
A_WHILE = 0.15


@contextlib.asynccontextmanager
async def tcp_pair(way, tls=None, limit=None):
    """A stream over TCP, and the socket at its other end, which speaks TLS where there is *tls*."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        given = {} if tls is None else {"tls": tls.client, "server_hostname": HOST}
        connecting = asyncio.ensure_future(
            headrace.connect(*listener.getsockname(), way=way, limit=limit, **given)
        )
        listener.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        sock.setblocking(False)
        with sock:
            peer = sock
            if tls is not None:
                peer = TlsPeer(sock, tls.server)
                await peer.handshake()
            stream = await connecting
            yield stream, peer
            stream.abort()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def unix_pair(way):
    """A stream over a Unix socket, and the socket at its other end."""
    ours, peer = socket.socketpair()
    for sock in (ours, peer):
        sock.setblocking(False)
    with peer:
        stream = await headrace.connect(sock=ours, way=way)
        yield stream, peer
        stream.abort()
        await asyncio.sleep(0)


PAIRS = {"tcp": tcp_pair, "unix": unix_pair}


@pytest.fixture(params=PAIRS)
def pair(request, way):
    """What makes a pair of each family."""
    return lambda: PAIRS[request.param](way)


async def still_there(stream):
    """Return wait_peer_gone() as a task, once it has looked and waits."""
    task = asyncio.ensure_future(stream.wait_peer_gone())
    await asyncio.sleep(A_WHILE)
    assert not task.done()
    return task


def close(peer):
    peer.close()


def end_half(peer):
    peer.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("end", [close, end_half], ids=["closed", "ended"])
def test_the_peer_ends(run, pair, end, before):
    """The peer ends its half, or closes: EOF, also where that was before; what it had sent can
    still be read."""

    async def main():
        async with pair() as (stream, peer):
            task = None if before else await still_there(stream)
            peer.send(b"last words")
            end(peer)
            gone = await (stream.wait_peer_gone(timeout=LONG) if before else task)
            assert gone is PeerGone.EOF
            assert await stream.read_all() == b"last words"
            assert await stream.wait_peer_gone() is PeerGone.EOF

    run(main)


def test_both_have_ended(run, pair):
    """Where this side has ended its half before, the end of the peer's is no reset."""

    async def main():
        async with pair() as (stream, peer):
            stream.write_eof()
            peer.send(b"last words")
            task = await still_there(stream)
            peer.shutdown(socket.SHUT_WR)
            assert await task is PeerGone.EOF
            assert await stream.read_all() == b"last words"

    run(main)


def test_a_reset_that_is_about_to_be_told(run):
    """Who has received the error took it from the system, which only says then that all is over: it
    is asked again, once that can have been told."""
    ours, peer = socket.socketpair()
    looks = iter([(False, None, False), (False, ConnectionResetError(), False)])

    class Stream:
        def get_extra_info(self, name):
            return ours

    async def main():
        with ours, peer:
            peer.close()
            assert await gone.watch(Stream(), lambda: next(looks)) is PeerGone.RESET

    run(main)


@pytest.mark.parametrize("before", [False, True])
def test_a_reset(run, way, before):
    """The peer resets the connection: RESET."""

    async def main():
        async with tcp_pair(way) as (stream, peer):
            task = None if before else await still_there(stream)
            reset(peer)
            gone = await (stream.wait_peer_gone(timeout=LONG) if before else task)
            assert gone is PeerGone.RESET
            with pytest.raises(ConnectionResetError):
                await stream.read()
            assert await stream.wait_peer_gone() is PeerGone.RESET

    run(main)


@pytest.mark.parametrize("how", ["end", "reset"])
def test_behind_much_that_is_unread(run, way, how):
    """An end, or a reset, is noticed behind input that nobody reads, and that is more than a stream
    reads ahead; nothing of it is taken."""
    size = 60_000

    async def main():
        async with tcp_pair(way, limit=1000) as (stream, peer):
            assert peer.send(bytes(size)) == size
            await until(lambda: stream.buffered > 0)
            task = await still_there(stream)
            buffered = stream.buffered
            assert buffered < size
            if how == "reset":
                reset(peer)
                assert await task is PeerGone.RESET
            else:
                peer.shutdown(socket.SHUT_WR)
                assert await task is PeerGone.EOF
                assert stream.buffered == buffered
                assert stream.bytes_read == 0
                assert len(await stream.read_all()) == size

    run(main)


async def close_here(stream):
    stream.close()


async def aclose_here(stream):
    await stream.aclose()


async def abort_here(stream):
    stream.abort()


async def close_the_writer(stream):
    stream.writer.close()


async def close_the_transport(stream):
    stream.writer.transport.close()


async def close_and_wait(stream):
    stream.close()
    await stream.writer.wait_closed()


OURS = [
    close_here,
    aclose_here,
    abort_here,
    close_the_writer,
    close_the_transport,
    close_and_wait,
]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("ends", OURS, ids=lambda ends: ends.__name__)
def test_this_side_ends(run, pair, ends, before):
    """This side closes, in whichever way, before or while somebody waits: LOCAL, and that stays."""

    async def main():
        async with pair() as (stream, peer):
            task = None if before else await still_there(stream)
            await ends(stream)
            gone = await (stream.wait_peer_gone(timeout=LONG) if before else task)
            assert gone is PeerGone.LOCAL
            for _ in range(10):
                await asyncio.sleep(0)
            peer.close()
            await asyncio.sleep(0.01)
            assert await stream.wait_peer_gone() is PeerGone.LOCAL

    run(main)


@pytest.mark.parametrize("ends", OURS, ids=lambda ends: ends.__name__)
def test_this_side_ends_after_the_peer(run, pair, ends):
    """What came first counts: the peer had ended before this side closed."""

    async def main():
        async with pair() as (stream, peer):
            peer.close()
            assert await stream.read() == b""
            await ends(stream)
            for _ in range(10):
                await asyncio.sleep(0)
            assert await stream.wait_peer_gone() is PeerGone.EOF

    run(main)


def test_a_close_that_takes_long(run, way):
    """This side has closed, and what it wrote does not leave: LOCAL all the same, and at once."""

    async def main():
        async with tcp_pair(way) as (stream, peer):
            stream.write_nowait(bytes(8 << 20))
            stream.close()
            assert stream.unsent > 0
            assert await stream.wait_peer_gone(timeout=LONG) is PeerGone.LOCAL
            assert peer.recv(10) == bytes(10)

    run(main)


@pytest.mark.parametrize("how", ["end", "close", "reset", "local"])
def test_over_tls(run, way, tls, how):
    """Over TLS: a close_notify is an end, a connection that is cut is one too, a reset is a reset,
    and a close on this side is this side's."""

    async def main():
        async with tcp_pair(way, tls) as (stream, peer):
            task = await still_there(stream)
            if how == "end":
                with pytest.raises(ssl.SSLWantReadError):
                    peer.tls.unwrap()
                peer.sock.send(peer.outgoing.read())
            elif how == "close":
                peer.sock.close()
            elif how == "reset":
                reset(peer.sock)
            else:
                stream.close()
            expected = {"reset": PeerGone.RESET, "local": PeerGone.LOCAL}
            assert await task is expected.get(how, PeerGone.EOF)
            if how != "reset":  # uvloop's own TLS may take that for an end afterwards
                assert await stream.wait_peer_gone() is expected.get(how, PeerGone.EOF)

    run(main)


def test_the_handler_is_over(run, way):
    """A task that a handler of serve() has left behind hears that the server has closed."""
    heard = []

    async def wait(stream):
        heard.append(await stream.wait_peer_gone())

    async def handler(stream):
        tasks.append(asyncio.ensure_future(wait(stream)))
        await stream.read(1)

    tasks = []

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0, way=way) as server:
            port = server.sockets[0].getsockname()[1]
            async with headrace.connect(LOOPBACK, port, way=way) as stream:
                await stream.write(b"!")
                await until(lambda: heard)
        await asyncio.gather(*tasks)

    run(main)
    assert heard == [PeerGone.LOCAL]


def test_cancelled(run, pair):
    """A cancellation leaves everything as it was."""

    async def main():
        async with pair() as (stream, peer):
            peer.send(b"data")
            task = await still_there(stream)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await stream.readexactly(4) == b"data"
            again = await still_there(stream)
            peer.close()
            assert await again is PeerGone.EOF

    run(main)


def test_times(run, pair):
    """A timeout and a deadline end it by errors of their own; the stream goes on."""

    async def main():
        async with pair() as (stream, peer):
            with pytest.raises(headrace.ReadTimeout) as caught:
                await stream.wait_peer_gone(timeout=0.02)
            assert caught.value.operation == "Stream.wait_peer_gone"
            with pytest.raises(headrace.DeadlineExceeded), stream.deadline(0.02):
                await stream.wait_peer_gone()
            peer.send(b"data")
            assert await stream.readexactly(4) == b"data"

    run(main)


def test_beside_a_read(run, pair):
    """A read may wait at the same time, and gets the bytes and the end."""

    async def main():
        async with pair() as (stream, peer):
            reading = asyncio.ensure_future(stream.readline())
            task = await still_there(stream)
            peer.send(b"a line\n")
            assert await reading == b"a line\n"
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            assert not task.done()
            peer.close()
            assert await reading == b""
            assert await task is PeerGone.EOF

    run(main)


@pytest.mark.parametrize("how", ["end", "local"])
def test_a_pair_of_asyncios(run, how):
    """Over asyncio's own streams, too."""

    async def main():
        with socket.create_server((LOOPBACK, 0)) as listener:
            stream = headrace.Stream(
                *await asyncio.open_connection(*listener.getsockname(), limit=1000)
            )
            with listener.accept()[0] as peer:
                task = await still_there(stream)
                if how == "end":
                    peer.shutdown(socket.SHUT_WR)
                    assert await task is PeerGone.EOF
                    await stream.aclose()
                else:
                    await stream.aclose()
                    assert await task is PeerGone.LOCAL
        await asyncio.sleep(0)
        gc.collect()

    run(main)
