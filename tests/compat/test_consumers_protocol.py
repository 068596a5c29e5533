"""What released programs do with the protocols of streams: subclass them, make them by hand, put
them elsewhere. See `consumers.md`."""

import asyncio
import inspect
import os
import weakref

import pytest
from support.connections import LOOPBACK, client, finish, receive, until


class Peer(asyncio.Protocol):
    """A protocol on a plain transport."""

    def connection_made(self, transport):
        self.transport = transport


def test_protocol_subclass_as_a_servers_factory(run, streams):
    """aiosmtpd's shape: the callback has run when super().connection_made() returns; own
    eof_received; own attribute names."""
    made = []

    class Session(streams.StreamReaderProtocol):
        def __init__(self, loop):
            self.loop = loop
            super().__init__(
                streams.StreamReader(loop=loop, limit=1001),
                client_connected_cb=self._connected,
                loop=loop,
            )
            self.transport = None
            self.session = None
            self.ended = False
            self.lost = []
            made.append(self)

        def _connected(self, reader, writer):
            self._reader = reader
            self._writer = writer

        def connection_made(self, transport):
            super().connection_made(transport)
            assert self._writer.get_extra_info("peername")
            self.transport = transport
            self.session = self.loop.create_task(self._serve())

        async def _serve(self):
            async for line in self._reader:
                self._writer.write(b"250 " + line)
                await self._writer.drain()

        def eof_received(self):
            self.ended = True
            return super().eof_received()

        def connection_lost(self, exc):
            self.lost.append(exc)
            super().connection_lost(exc)
            self.transport = None

        def __del__(self):
            closed = getattr(self, "_closed", None)
            if closed is not None and closed.done() and not closed.cancelled():
                closed.exception()

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(loop), LOOPBACK, 0)
        try:
            reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
            writer.write(b"HELO\r\n")
            assert await reader.readline() == b"250 HELO\r\n"
            session = made.pop()
            assert asyncio.isfuture(session._closed)
            assert not session._closed.done()
            writer.write_eof()
            await session.session
            assert session.ended
            session.transport.close()
            assert await reader.read() == b""
            await asyncio.wait_for(asyncio.shield(session._closed), 5)
            assert session.lost == [None]
            writer.close()
            await writer.wait_closed()
            del session
        finally:
            server.close()
            await server.wait_closed()

    run(main)


def test_connection_lost_overridden(run, streams):
    """A subclass's own connection_lost is called once, with what broke the connection, and reads
    still end."""
    lost = []

    class Protocol(streams.StreamReaderProtocol):
        def connection_lost(self, exc):
            lost.append(exc)
            super().connection_lost(exc)

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Peer, LOOPBACK, 0)
        reader = streams.StreamReader(loop=loop)
        protocol = Protocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, *server.sockets[0].getsockname()
        )
        writer = streams.StreamWriter(transport, protocol, reader, loop)
        waiting = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        writer.transport.abort()
        assert await waiting == b""
        await writer.wait_closed()
        assert lost == [None]
        server.close()
        if hasattr(server, "abort_clients"):
            server.abort_clients()
        await asyncio.sleep(0.001)
        await server.wait_closed()

    run(main)


def test_getmembers_of_a_protocol(run, streams):
    """inspect.getmembers() of a protocol raises for no member, before, during and after a
    connection."""

    class Session(streams.StreamReaderProtocol):
        pass

    async def main():
        loop = asyncio.get_running_loop()
        reader = streams.StreamReader(loop=loop)
        protocol = Session(reader, loop=loop)
        assert dict(inspect.getmembers(protocol))["eof_received"] == protocol.eof_received
        async with client(streams) as (_, writer, _peer):
            inspect.getmembers(writer._protocol)
            inspect.getmembers(writer)
            kept = writer._protocol
        inspect.getmembers(kept)

    run(main)


@pytest.mark.parametrize(
    "name",
    [
        "_reader",
        "_writer",
        "transport",
        "loop",
        "session",
        "_transport",
        "_task",
        "_server",
        "reader",
        "lock",
    ],
)
def test_names_that_subclasses_own(run, streams, name):
    """A protocol subclass may set these names before and after super().__init__()."""

    class Session(streams.StreamReaderProtocol):
        def __init__(self, reader, loop):
            if name != "_transport":
                setattr(self, name, 1)
            super().__init__(reader, loop=loop)
            setattr(self, name, 2)

    async def main():
        loop = asyncio.get_running_loop()
        assert getattr(Session(streams.StreamReader(loop=loop), loop), name) == 2

    run(main)


def test_backpressure_bridged_by_hand(run, streams):
    """protocol.pause_writing() makes drain() wait, also several at once, and resume_writing() lets
    them go on."""

    async def main():
        async with client(streams) as (_, writer, peer):
            protocol = writer._protocol
            await writer.drain()
            protocol.pause_writing()
            writer.write(b"x")
            drains = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
            await asyncio.sleep(0.002)
            assert [each.done() for each in drains] == [False] * 3
            assert await receive(peer, 1) == b"x"
            protocol.resume_writing()
            await asyncio.gather(*drains)

    run(main)


def test_pipes_of_the_process(run, streams):
    """connect_read_pipe over a StreamReaderProtocol and connect_write_pipe over a FlowControlMixin:
    streams of both ends."""

    async def main():
        loop = asyncio.get_running_loop()
        out, into = os.pipe()
        reader = streams.StreamReader()
        read_transport, _ = await loop.connect_read_pipe(
            lambda: streams.StreamReaderProtocol(reader), os.fdopen(out, "rb", 0)
        )
        write_transport, protocol = await loop.connect_write_pipe(
            lambda: streams.FlowControlMixin(loop=loop), os.fdopen(into, "wb", 0)
        )
        writer = streams.StreamWriter(write_transport, protocol, None, loop)
        writer.write(b'{"type": "ping"}\n')
        await writer.drain()
        assert await reader.readline() == b'{"type": "ping"}\n'
        writer.write(bytes(1 << 20))
        draining = asyncio.ensure_future(writer.drain())
        assert await reader.readexactly(1 << 20) == bytes(1 << 20)
        await draining
        writer.close()
        assert await reader.read() == b""
        read_transport.close()
        await asyncio.sleep(0.002)

    run(main)


def test_keyword_arguments(run, streams):
    """The constructors take their parameters by asyncio's names."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams) as (_, first, peer):
            reader = streams.StreamReader(limit=2**10, loop=loop)
            protocol = streams.StreamReaderProtocol(
                stream_reader=reader, client_connected_cb=None, loop=loop
            )
            transport = first.transport
            writer = streams.StreamWriter(
                transport=transport, protocol=protocol, reader=reader, loop=loop
            )
            # A second pair of streams under a live transport, connected by hand: what a proxy hands
            # on.
            protocol.connection_made(transport)
            transport.set_protocol(protocol)
            peer.send(b"to the second\n")
            assert await reader.readline() == b"to the second\n"
            writer.write(b"from it\n")
            await writer.drain()
            assert await receive(peer, 8) == b"from it\n"
            peer.send(bytes(5000))
            assert await reader.readexactly(5000) == bytes(5000)
            writer.close()
            await writer.wait_closed()
            # The first protocol has lost its transport without being told; its stream is only
            # closed.
            first._protocol.connection_lost(None)

    run(main)


def test_flow_control_as_a_base_class(run, streams):
    """A program's own protocol on FlowControlMixin, with a writer over it: drain() follows the
    transport's water marks."""
    closed = []

    class Telnet(streams.FlowControlMixin, asyncio.Protocol):
        def __init__(self, loop):
            super().__init__(loop=loop)
            self.received = []
            self._done = loop.create_future()

        def data_received(self, data):
            self.received.append(data)

        def connection_lost(self, exc):
            super().connection_lost(exc)
            closed.append(exc)
            self._done.set_result(None)

        def _get_close_waiter(self, stream):
            return self._done

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams) as (_, first, peer):
            transport = first.transport
            protocol = Telnet(loop)
            transport.set_protocol(protocol)
            writer = streams.StreamWriter(transport, protocol, None, loop)
            peer.send(b"option")
            await until(lambda: protocol.received)
            writer.write(bytes(8 << 20))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.002)
            assert not draining.done()
            assert len(await receive(peer, 8 << 20)) == 8 << 20
            await draining
            await finish(writer)
            assert closed == [None]
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            first._protocol.connection_lost(None)

    run(main)


def test_protocol_and_reader_are_weakly_referenced(run, streams):
    """Streams and their protocols can be kept in weak collections, as connection pools do."""

    async def main():
        async with client(streams) as (reader, writer, _peer):
            kept = weakref.WeakSet([reader, writer, writer._protocol])
            assert len(kept) == 3
            assert {reader: 1, writer: 2}[writer] == 2

    run(main)
