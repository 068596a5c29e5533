"""The transport behind ``writer.transport`` and its protocol: which calls come when, and which
never come.

Each test runs on the transports of asyncio's loop and of uvloop, and on ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from support.connections import LOOPBACK, client, receive, reset, serving, until
from support.transports import BIG, BOTH, FIXTURES, Buffered, Recorder, ended, is_libuv, taken
from support.wires import turns

from headrace._core.stock import StockStreamReader, StockStreamWriter

loop_kind, ours, streams = FIXTURES


async def arrived(protocol, size):
    """Wait until *protocol* has been given *size* bytes."""
    await until(lambda: len(protocol.data) == size)


# ---- what is called


@BOTH
@pytest.mark.parametrize("end", ["FIN", "RST", "close"])
def test_from_data_to_the_end(run, streams, kind, end):
    """Data, EOF where there was one, and then the end, once: None after a FIN or our close(), the
    error after a reset."""

    async def main():
        async with taken(streams, kind()) as (transport, protocol, peer):
            assert transport.get_protocol() is protocol
            for count, piece in (6, b"first "), (13, b"second "):
                peer.send(piece)
                await arrived(protocol, count)
            if end == "FIN":
                peer.shutdown(socket.SHUT_WR)
            elif end == "RST":
                reset(peer)
            else:
                transport.close()
            error = await protocol.lost
            assert protocol.data == b"first second "
            assert type(error) is (ConnectionResetError if end == "RST" else type(None))
            assert protocol.calls == [
                *(["eof_received"] if end == "FIN" else []),
                "connection_lost",
            ]
            assert transport.is_closing()
            await turns(2)
            if not is_libuv(transport):
                assert transport.get_protocol() is None

    run(main)


@BOTH
def test_kept_open_after_eof(run, streams, kind):
    """eof_received() that returns true keeps the transport open for writing, for as long as we
    like."""

    async def main():
        async with taken(streams, kind(keep_open=True)) as (transport, protocol, peer):
            peer.send(b"question")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.calls)
            assert (protocol.data, protocol.calls) == (b"question", ["eof_received"])
            await asyncio.sleep(0.005)
            assert not transport.is_closing()
            transport.write(b"answer")
            transport.close()
            assert await receive(peer) == b"answer"
            assert await protocol.lost is None
            assert protocol.calls == ["eof_received", "connection_lost"]

    run(main)


def test_a_protocol_that_leaves_all_to_its_base(run, streams):
    """A protocol with asyncio's own methods drops what arrives and closes at EOF, and nothing is
    reported."""

    class Bare(asyncio.Protocol):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        async with taken(streams, Bare()) as (_, protocol, peer):
            peer.send(b"dropped")
            peer.shutdown(socket.SHUT_WR)
            assert await receive(peer) == b""
            assert await protocol.lost is None

    run(main)


@pytest.mark.parametrize("size", [1, 10, 4096, 1 << 20])
def test_buffers_of_any_size(run, streams, size):
    """What arrives goes into the protocol's own buffer, however small or large, whole and in its
    order."""
    sent = bytes(range(256)) * (8 if size == 1 else 400)

    async def main():
        async with taken(streams, Buffered(size)) as (_, protocol, peer):
            await asyncio.get_running_loop().sock_sendall(peer, sent)
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost
            assert protocol.data == sent

    run(main)


@pytest.mark.parametrize("shape", ["bytearray", "memoryview", "slice", "wide"])
def test_buffers_of_any_kind(run, streams, shape):
    """get_buffer() may return anything writable and contiguous; bytes land at its beginning."""

    class Shaped(Buffered):
        def get_buffer(self, sizehint):
            view = memoryview(self.storage)
            return {
                "bytearray": self.storage,
                "memoryview": view,
                "slice": view[:40],
                "wide": view.cast("I"),
            }[shape]

    async def main():
        async with taken(streams, Shaped(80)) as (transport, protocol, peer):
            if shape == "wide" and is_libuv(transport):
                pytest.skip("uvloop counts items for bytes")
            peer.send(b"abcdefgh" * 15)
            await until(lambda: len(protocol.data) == 120)
            assert protocol.data == b"abcdefgh" * 15

    run(main)


def test_a_buffer_that_its_owner_resizes(run, streams):
    """In buffer_updated() nobody else has the buffer any more: a bytearray that was received into
    may be cut and extended."""

    class Resizing(Buffered):
        def get_buffer(self, sizehint):
            return self.storage

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            del self.storage[:nbytes]
            self.storage.extend(bytes(2 * nbytes))

    async def main():
        async with taken(streams, Resizing(10)) as (transport, protocol, peer):
            if is_libuv(transport):
                pytest.skip("uvloop holds the buffer until after buffer_updated()")
            peer.send(b"x" * 1000)
            await until(lambda: len(protocol.data) == 1000 or protocol.lost.done())
            assert protocol.data == b"x" * 1000

    run(main)


# ---- another protocol


def test_protocols_take_turns(run, streams):
    """Each protocol gets what arrives while it is set, also the stream's own when it is set again,
    and the last one the end."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            transport = writer.transport
            first = transport.get_protocol()
            peer.send(b"one")
            assert await reader.readexactly(3) == b"one"
            plain, buffered = Recorder(), Buffered()
            for protocol in plain, buffered:
                transport.set_protocol(protocol)
                assert transport.get_protocol() is protocol
                peer.send(b"two")
                await arrived(protocol, 3)
            transport.set_protocol(first)
            peer.send(b"three")
            assert await reader.readexactly(5) == b"three"
            transport.set_protocol(plain)
            writer.write(b"written")
            assert await receive(peer, 7) == b"written"
            peer.shutdown(socket.SHUT_WR)
            await plain.lost
            assert plain.calls == ["eof_received", "connection_lost"]
            assert not buffered.lost.done()
            assert (plain.data, buffered.data) == (b"two", b"two")
            first.connection_lost(None)  # it was not told, and wait_closed() waits for it

    run(main)


@pytest.mark.parametrize("paused", [True, False])
@BOTH
def test_set_while_data_is_in_the_kernel(run, streams, kind, paused):
    """What was sent before set_protocol(), and not yet given to anybody, is the new protocol's."""

    async def main():
        async with taken(streams) as (transport, first, peer):
            if paused:
                transport.pause_reading()
            peer.send(b"sent before")
            if paused:
                await asyncio.sleep(0.002)
            transport.set_protocol(second := kind())
            if paused:
                transport.resume_reading()
            await until(lambda: second.data)
            assert (first.data, second.data) == (b"", b"sent before")
            transport.set_protocol(first)

    run(main)


@BOTH
def test_set_inside_a_callback(run, streams, kind):
    """A protocol that sets another while it is given data has had its last: what follows is the
    other's, whole and in order."""
    sent = bytes(range(256)) * 1000

    async def main():
        second = kind()

        class First(Recorder):
            def data_received(self, data):
                super().data_received(data)
                transport_of[0].set_protocol(second)

        transport_of = []
        async with taken(streams, First()) as (transport, first, peer):
            transport_of.append(transport)
            await asyncio.get_running_loop().sock_sendall(peer, sent)
            await until(lambda: len(first.data) + len(second.data) == len(sent))
            assert first.data + second.data == sent
            assert len(first.data) > 0
            transport.set_protocol(first)

    run(main)


def test_asyncios_streams_over_it(run, streams):
    """asyncio's own reader, protocol and writer, put together by hand, work over the transport,
    back-pressure included."""

    async def main():
        loop = asyncio.get_running_loop()
        sent = b"%040000d\n" % 7
        async with taken(streams) as (transport, first, peer):
            reader = StockStreamReader(limit=1000, loop=loop)
            protocol = asyncio.streams.StreamReaderProtocol(reader, loop=loop)
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            writer = StockStreamWriter(transport, protocol, reader, loop)
            writer.write(sent)
            await writer.drain()
            assert await receive(peer, len(sent)) == sent
            await loop.sock_sendall(peer, sent)
            await asyncio.sleep(0.002)
            assert await reader.readexactly(len(sent)) == sent
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            first.connection_lost(None)

    run(main)


def test_a_server_waits_for_transports(run, streams):
    """Server.wait_closed() returns when the connections are gone, also those whose handlers have
    set another protocol."""

    async def main():
        kept = []

        def connected(reader, writer):
            kept.append((reader, writer))
            writer.transport.set_protocol(Recorder())

        async with contextlib.AsyncExitStack() as stack:
            address = await stack.enter_async_context(serving(streams, connected))
            with socket.create_connection(address):
                await until(lambda: kept)
            # Leaving the block closes the server, and waits for it for 2 s.

    run(main)


@pytest.mark.parametrize("call", ["close_clients", "abort_clients"])
def test_a_server_ends_transports(run, streams, call):
    """close_clients() and abort_clients() end a connection whose handler has set another protocol
    too, and wait_closed() waits for it."""

    async def main():
        kept = []

        def connected(reader, writer):
            kept.append((reader, writer, Recorder()))
            writer.transport.set_protocol(kept[0][2])

        server = await streams.start_server(connected, LOOPBACK, 0)
        try:
            with socket.create_connection(server.sockets[0].getsockname()) as peer:
                await until(lambda: kept)
                server.close()
                waiting = asyncio.ensure_future(server.wait_closed())
                await asyncio.sleep(0.002)
                assert not waiting.done()
                getattr(server, call)()
                await asyncio.wait_for(waiting, 5)
                assert kept[0][2].calls == ["connection_lost"]
                assert peer.recv(1) == b""
        finally:
            server.close()

    if streams.name == "stock" and (run.kind == "uvloop" or sys.version_info < (3, 13)):
        pytest.skip("a server of asyncio's own, of Python 3.13")
    run(main)


WITHIN = {
    "write": lambda transport: transport.write(b"more"),
    "writelines": lambda transport: transport.writelines([b"mo", b"re"]),
    "write_eof": lambda transport: transport.write_eof(),
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "set_write_buffer_limits": lambda transport: transport.set_write_buffer_limits(high=1),
    "pause_reading": lambda transport: transport.pause_reading(),
    "set_protocol": lambda transport: transport.set_protocol(transport.get_protocol()),
}


@pytest.mark.defect("asyncio ends a connection twice that is closed in resume_writing()")
@pytest.mark.parametrize("call", WITHIN)
@pytest.mark.parametrize(
    "name", ["pause_writing", "resume_writing", "data_received", "eof_received", "connection_lost"]
)
def test_callbacks_that_call_back(run, streams, name, call):
    """A callback may use the transport: what was written arrives, unless it aborts, and the
    protocol is told of the end, once."""
    transport_of = []
    got = bytearray()

    def calling(self, *arguments):
        result = getattr(Recorder, name)(self, *arguments)
        if not transport_of[1:]:
            transport_of.append(None)
            WITHIN[call](transport_of[0])
        return result

    async def main():
        async with taken(
            streams, type("Calling", (Recorder,), {name: calling})(keep_open=True)
        ) as (transport, protocol, peer):
            transport_of.append(transport)
            transport.write(bytes(BIG))
            receiving = asyncio.ensure_future(ended(peer, got))
            await until(lambda: len(got) >= BIG or receiving.done())
            if not transport.is_closing():
                peer.send(b"data")
                peer.shutdown(socket.SHUT_WR)
                await until(lambda: "eof_received" in protocol.calls or not transport.is_reading())
            transport.close()
            await asyncio.wait_for(receiving, 5)
            assert await asyncio.wait_for(protocol.lost, 5) is None
            await turns(2)
            assert protocol.calls.count("connection_lost") == 1
            if call != "abort":
                assert got[:BIG] == bytes(BIG)
                assert got[BIG:] in (b"", b"more")
            if call.startswith("write") and call != "write_eof" and name != "connection_lost":
                assert got[BIG:] == b"more"

    run(main)


# ---- pausing


def test_pausing_and_resuming(run, streams):
    """While reading is paused nothing is passed on, is_reading() says so, and nothing is lost;
    twice is the same as once."""

    async def main():
        async with taken(streams) as (transport, protocol, peer):
            transport.resume_reading()
            assert transport.is_reading()
            for index in range(3):
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                peer.send(b"%d" % index)
                await asyncio.sleep(0.002)
                assert len(protocol.data) == index
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
                await arrived(protocol, index + 1)
            for _ in range(5):
                transport.pause_reading()
                transport.resume_reading()
            peer.send(b"3")
            await until(lambda: protocol.data == b"0123")

    run(main)


@BOTH
@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("data", [b"", b"data"])
def test_an_end_while_paused(run, streams, kind, end, data):
    """While reading is paused no data and no EOF are passed on; after resuming come the data, then
    the end, with its error."""

    async def main():
        async with taken(streams, kind()) as (transport, protocol, peer):
            transport.pause_reading()
            if data:
                peer.send(data)
                await asyncio.sleep(0.002)
            if end == "RST":
                reset(peer)
            else:
                peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.005)
            assert protocol.data == b""
            assert "eof_received" not in protocol.calls
            transport.resume_reading()
            error = await protocol.lost
            assert type(error) is (ConnectionResetError if end == "RST" else type(None))
            assert protocol.data == data

    run(main)


@BOTH
def test_paused_inside_a_callback(run, streams, kind):
    """A protocol that pauses while it is given data gets nothing more until it resumes, then the
    rest, then the end."""
    sent = bytes(range(256)) * 2000

    class Pausing(kind):
        def data_received(self, data):
            super().data_received(data)
            transport_of[0].pause_reading()

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            transport_of[0].pause_reading()

    transport_of = []

    async def main():
        protocol = Pausing() if kind is Recorder else Pausing(65536)
        async with taken(streams, protocol) as (transport, protocol, peer):
            transport_of.append(transport)
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(peer, sent))
            sending.add_done_callback(lambda _: peer.shutdown(socket.SHUT_WR))
            while not protocol.lost.done():
                await asyncio.sleep(0.001)
                if not transport.is_reading():
                    got = len(protocol.data)
                    await turns(3)
                    assert got == len(protocol.data)
                    transport.resume_reading()
            assert protocol.data == sent
            assert protocol.calls == ["eof_received", "connection_lost"]

    run(main)
