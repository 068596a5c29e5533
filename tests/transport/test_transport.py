"""The transport behind ``writer.transport``: what it knows, its water marks, and how it ends.
`test_transport_*.py` have the rest.

Each test runs on the transports of asyncio's loop and of uvloop, and on ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import warnings

import pytest
from conftest import open_descriptors
from support.connections import LOOPBACK, client, finish, receive, until
from support.transports import BIG, FIXTURES, Recorder, is_libuv, stuffed, taken
from support.wires import tcp_pair, turns

loop_kind, ours, streams = FIXTURES


# ---- what it is, and what it knows


def test_is_an_asyncio_transport(run, streams):
    """It is an instance of all of asyncio's transport classes, and none of its methods is the
    abstract one."""

    async def main():
        async with taken(streams) as (transport, protocol, _):
            if not is_libuv(transport):
                for kind in (
                    asyncio.BaseTransport,
                    asyncio.ReadTransport,
                    asyncio.WriteTransport,
                    asyncio.Transport,
                ):
                    assert isinstance(transport, kind)
                assert issubclass(transport.__class__, asyncio.Transport)
            assert transport.get_protocol() is protocol
            assert transport.can_write_eof()
            assert transport.is_reading()
            assert not transport.is_closing()
            assert transport.get_write_buffer_size() == 0

    run(main)


HOSTS = {"ipv4": LOOPBACK, "ipv6": "::1"}
ABSTRACT = f"\0headrace-{os.getpid()}"


def longest(directory):
    """Return a path in *directory* of 107 bytes, the most that fit into an address."""
    return f"{directory}/".ljust(107, "x")


def both_ends(kind, tmp_path):
    """Return the connected sockets of *kind*."""
    if kind == "pair":
        return socket.socketpair()
    if kind in ("ipv4", "ipv6"):
        family = socket.AF_INET6 if kind == "ipv6" else socket.AF_INET
        with socket.create_server((HOSTS[kind], 0), family=family) as listener:
            return socket.create_connection(listener.getsockname()[:2]), listener.accept()[0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(longest(tmp_path) if kind == "unix" else ABSTRACT)
        listener.listen()
        client = socket.socket(socket.AF_UNIX)
        client.connect(listener.getsockname())
        return client, listener.accept()[0]


KINDS = ["ipv4", "ipv6", "unix", "abstract", "pair"]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_names_of_a_socket(run, streams, kind, side, tmp_path):
    """sockname and peername are what the socket module says, before the end and after it; a socket
    without a name has ''."""

    async def main():
        ends = both_ends(kind, tmp_path)
        ours, peer = ends[side], ends[1 - side]
        names = ours.getsockname(), ours.getpeername()
        async with taken(streams, ends=(ours, peer)) as (transport, protocol, _):
            assert (
                transport.get_extra_info("sockname"),
                transport.get_extra_info("peername"),
            ) == names
            transport.close()
            await protocol.lost
            await turns(2)
            assert (
                transport.get_extra_info("sockname"),
                transport.get_extra_info("peername"),
            ) == names

    run(main)


@contextlib.asynccontextmanager
async def accepted(streams, kind, tmp_path, named=True):
    """(writer, peer) of a connection of *kind* that a server has accepted from *peer*, a socket,
    with a name of its own if *named*."""
    arrived = asyncio.get_running_loop().create_future()
    path = longest(tmp_path) if kind == "unix" else ABSTRACT
    if kind in HOSTS:
        server = await streams.start_server(lambda *both: arrived.set_result(both), HOSTS[kind], 0)
    else:
        server = await streams.start_unix_server(lambda *both: arrived.set_result(both), path)
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        if kind in HOSTS:
            peer = stack.enter_context(
                socket.create_connection(server.sockets[0].getsockname()[:2])
            )
        else:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            if named:
                peer.bind(str(tmp_path / "peer"))
            peer.connect(path)
        _, writer = await arrived
        try:
            yield writer, peer
        finally:
            await finish(writer)
    await server.wait_closed()


@pytest.mark.parametrize("asked", ["open", "closed"])
@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "unix", "abstract"])
def test_names_of_an_accepted_connection(run, streams, kind, asked, tmp_path):
    """A server's connection knows both names too, also where they are asked for only when it is
    closed."""

    async def main():
        async with accepted(streams, kind, tmp_path) as (writer, peer):
            names = peer.getpeername(), peer.getsockname()
            if asked == "closed":
                if is_libuv(writer.transport):
                    return  # it asks the system each time
                writer.close()
                await writer.wait_closed()
            assert (writer.get_extra_info("sockname"), writer.get_extra_info("peername")) == names

    if kind == "abstract" and streams.name == "stock" and run.kind == "uvloop":
        pytest.skip("uvloop has no abstract sockets")
    run(main)


def test_an_accepted_connection_from_nowhere(run, streams, tmp_path):
    """The client of a Unix server that has not bound its socket has the name ''."""

    async def main():
        async with accepted(streams, "unix", tmp_path, named=False) as (writer, peer):
            assert writer.get_extra_info("peername") == peer.getsockname() == ""

    run(main)


def test_unknown_information(run, streams):
    """What a transport does not know is the default, None if none is given; over plain TCP that is
    everything about TLS."""

    async def main():
        default = object()
        async with taken(streams) as (transport, *_):
            for name in (
                "nothing",
                "sslcontext",
                "ssl_object",
                "peercert",
                "cipher",
                "compression",
                "pipe",
                "",
            ):
                assert transport.get_extra_info(name) is None
                assert transport.get_extra_info(name, default) is default

    run(main)


@pytest.mark.parametrize("made", ["connected", "accepted"])
def test_the_socket_for_looking_at(run, streams, made, tmp_path):
    """'socket' is an asyncio.trsock.TransportSocket, the same each time, that works and ends with
    the connection: fileno() is -1 then."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            if made == "connected":
                transport, protocol, _ = await stack.enter_async_context(taken(streams))
            else:
                writer, _ = await stack.enter_async_context(accepted(streams, "ipv4", tmp_path))
                transport = writer.transport
            shown = transport.get_extra_info("socket")
            assert shown.family == socket.AF_INET
            assert shown.type == socket.SOCK_STREAM
            assert shown.fileno() >= 0
            assert shown.getsockname() == transport.get_extra_info("sockname")
            assert shown.getpeername() == transport.get_extra_info("peername")
            assert shown.gettimeout() == 0
            assert shown.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert transport.get_extra_info("socket") is shown
            if is_libuv(transport):
                return
            assert type(shown) is asyncio.trsock.TransportSocket
            transport.close()
            await until(lambda: shown.fileno() == -1)
            assert transport.get_extra_info("socket").fileno() == -1

    run(main)


@pytest.mark.parametrize("made", ["connected", "accepted"])
def test_the_socket_asked_for_after_the_end(run, ours, made, tmp_path):
    """Asked for only when the connection is over, 'socket' is one whose fileno() is -1, and no
    descriptor is made for it."""

    async def main():
        async with (
            client(ours) if made == "connected" else accepted(ours, "ipv4", tmp_path) as ends
        ):
            writer = ends[1] if made == "connected" else ends[0]
            transport = writer.transport
            await finish(writer)
            before = open_descriptors()
            assert transport.get_extra_info("socket").fileno() == -1
            assert open_descriptors() == before

    run(main)


def test_a_copy_of_the_socket(run, streams):
    """shown.dup() is a descriptor of its own: closing it does not disturb the connection."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            transport.get_extra_info("socket").dup().close()
            transport.write(b"still there")
            assert await receive(peer, 11) == b"still there"
            peer.send(b"and here")
            await until(lambda: protocol.data == b"and here")

    run(main)


# ---- the water marks


def test_limits(run, streams):
    """The water marks are asyncio's: 64 KiB and a quarter by default; one follows from the other
    where only one is given."""

    async def main():
        async with taken(streams) as (transport, *_):
            if not is_libuv(transport):  # (16, 65536)
                assert transport.get_write_buffer_limits() == (16384, 65536)
            for given, limits in [
                ({"high": 1000}, (250, 1000)),
                ({"low": 1000}, (1000, 4000)),
                ({"high": 1000, "low": 999}, (999, 1000)),
                ({"high": 7}, (1, 7)),
                ({"high": 0}, (0, 0)),
                ({"low": 0}, (0, 0)),
                ({"high": 5, "low": 5}, (5, 5)),
                ({}, (16384, 65536)),
            ]:
                transport.set_write_buffer_limits(**given)
                assert transport.get_write_buffer_limits() == limits
            transport.set_write_buffer_limits(2000, 3)
            for high, low in (1, 2), (-1, None), (None, -1), (5, -1):
                with pytest.raises(ValueError, match="must be >="):
                    transport.set_write_buffer_limits(high, low)
            with pytest.raises(TypeError):
                transport.set_write_buffer_limits("1", "1")
            assert transport.get_write_buffer_limits() == (3, 2000)

    run(main)


def test_no_limit(run, streams):
    """A limit that no queue ever reaches may be any number: a program without back-pressure makes
    it that large."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            if is_libuv(transport):
                pytest.skip("uvloop's limits are C integers")
            transport.set_write_buffer_limits(high=sys.maxsize)
            await stuffed(transport)
            transport.set_write_buffer_limits(low=sys.maxsize)
            transport.set_write_buffer_limits(high=1 << 70)
            await stuffed_more(transport)
            assert protocol.calls == []

    run(main)


async def stuffed_more(transport):
    before = transport.get_write_buffer_size()
    transport.write(bytes(1000))
    assert transport.get_write_buffer_size() == before + 1000


def test_paused_and_resumed_at_the_marks(run, streams):
    """The protocol is paused once when more than the high mark is unsent, not at it, and resumed
    once at the low mark or below."""

    class Marks(Recorder):
        def pause_writing(self):
            self.calls.append(("pause_writing", transport_of[0].get_write_buffer_size()))

        def resume_writing(self):
            self.calls.append(("resume_writing", transport_of[0].get_write_buffer_size()))

    transport_of = []

    async def main():
        async with taken(streams, Marks()) as (transport, protocol, peer):
            transport_of.append(transport)
            await fill_the_kernel(transport)
            unsent = transport.get_write_buffer_size()
            protocol.calls.clear()
            transport.set_write_buffer_limits(high=unsent + 1000, low=unsent // 2)
            transport.write(bytes(1000))
            assert protocol.calls == []
            transport.write(b"1")
            assert protocol.calls == [("pause_writing", unsent + 1001)]
            transport.write(bytes(5000))
            transport.writelines([bytes(5000)])
            assert len(protocol.calls) == 1
            left = transport.get_write_buffer_size()
            assert left == unsent + 11001
            while len(protocol.calls) == 1:
                # uvloop counts first, and tells the protocol a turn later.
                assert transport.get_write_buffer_size() > unsent // 2 or is_libuv(transport)
                await receive(peer, 1)
            assert protocol.calls[1][0] == "resume_writing"
            assert protocol.calls[1][1] <= unsent // 2
            transport.close()
            await receive(peer)
            await protocol.lost
            assert [call for call in protocol.calls[2:] if call != "connection_lost"] == []

    async def fill_the_kernel(transport):
        transport.set_write_buffer_limits(high=1 << 30)
        await stuffed(transport)

    run(main)


def test_limits_that_are_exceeded_already(run, streams):
    """Setting a high mark below what is unsent pauses the protocol at once; raising it resumes
    nothing before data leaves."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=BIG)
            await stuffed(transport)
            assert protocol.calls == []
            transport.set_write_buffer_limits(high=1000)
            assert protocol.calls == ["pause_writing"]
            transport.set_write_buffer_limits(high=500)
            transport.set_write_buffer_limits(high=2 * BIG, low=BIG)
            await turns(3)
            assert protocol.calls == ["pause_writing"]
            await receive(peer, BIG)
            await until(lambda: "resume_writing" in protocol.calls)
            assert protocol.calls == ["pause_writing", "resume_writing"]

    run(main)


def test_a_high_mark_of_zero(run, streams):
    """With a high mark of 0 any unsent byte pauses the protocol, and only an empty queue resumes
    it."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            await stuffed(transport)
            assert protocol.calls == ["pause_writing"]
            await receive(peer, BIG)
            await until(lambda: len(protocol.calls) == 2)
            assert protocol.calls == ["pause_writing", "resume_writing"]
            assert transport.get_write_buffer_size() == 0

    run(main)


def test_the_count_of_what_is_unsent(run, streams):
    """get_write_buffer_size() is exactly what was written and neither arrived nor is in the kernel;
    it goes down to 0."""

    async def main():
        async with taken(streams) as (transport, _, peer):
            await stuffed(transport)
            kernel = BIG - transport.get_write_buffer_size()
            for size in 1, 100, 65536:
                before = transport.get_write_buffer_size()
                transport.write(bytes(size))
                assert transport.get_write_buffer_size() == before + size
                transport.writelines([bytes(size), b"", bytes(size)][: 1 if size == 1 else 3])
                assert transport.get_write_buffer_size() == before + (2 if size == 1 else 3) * size
            assert kernel > 0
            total = BIG + 2 + 3 * 100 + 3 * 65536
            assert len(await receive(peer, total)) == total
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(main)


# ---- as an object


def test_repr(run, ours):
    """repr() says what state a transport is in: reading, paused, how much is unsent, closing,
    closed."""

    async def main():
        async with taken(ours) as (transport, protocol, peer):
            number = transport.get_extra_info("socket").fileno()
            assert repr(transport) == f"<SocketTransport fd={number} reading unsent=0>"
            transport.pause_reading()
            assert repr(transport) == f"<SocketTransport fd={number} paused unsent=0>"
            transport.resume_reading()
            await stuffed(transport)
            assert (
                repr(transport) == f"<SocketTransport fd={number} reading "
                f"unsent={transport.get_write_buffer_size()}>"
            )
            transport.close()
            assert repr(transport).startswith(f"<SocketTransport closing fd={number} ")
            transport.abort()
            assert repr(transport).startswith(f"<SocketTransport closing fd={number} ")
            await protocol.lost
            await turns(2)
            assert repr(transport) == "<SocketTransport closed>"

    run(main)


def test_cannot_be_made_by_hand(run, ours):
    """Calling a transport's type is a TypeError: transports are made by connecting and
    accepting."""

    async def main():
        async with taken(ours) as (transport, *_):
            with pytest.raises(TypeError, match="made by"):
                type(transport)()
            with pytest.raises((TypeError, AttributeError)):
                type(transport).__new__(type(transport)).write(b"x")

    run(main)


def test_dropped_with_its_loop(run, streams):
    """A transport that nobody closed warns when its loop is closed and both are dropped, and its
    socket is closed."""
    sockets = list(tcp_pair())
    peer = sockets.pop()

    async def main():
        _, writer = await streams.open_connection(sock=sockets.pop())
        transport = writer.transport
        transport.set_protocol(asyncio.Protocol())
        peer.settimeout(5)
        asyncio.get_running_loop().kept = (writer, transport)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        run(main)
        gc.collect()
    if run.kind != "uvloop" or streams.name != "stock":
        assert [each for each in heard if each.category is ResourceWarning]
    assert peer.recv(1) == b""
    peer.close()
