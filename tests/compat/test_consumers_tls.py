"""TLS put under streams by hand, in the ways that released programs do it. See `consumers.md`."""

import asyncio
import contextlib
import os
import socket
import ssl
from asyncio import sslproto

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, client, finish, until


def test_loop_start_tls_onto_streams_made_by_hand(run, streams, tls):
    """loop.start_tls() of writer.transport with a second protocol, and a new reader and writer over
    the result."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams) as (reader, writer, sock):
            sock.send(b"INFO {}\r\n")
            assert await reader.readline() == b"INFO {}\r\n"
            inner = streams.StreamReader(loop=loop)
            protocol = streams.StreamReaderProtocol(inner, loop=loop)
            upgrading = asyncio.ensure_future(
                loop.start_tls(writer.transport, protocol, tls.client, server_hostname=HOST)
            )
            peer = TlsPeer(sock, tls.server)
            await peer.handshake()
            transport = await upgrading
            secure = streams.StreamWriter(transport, protocol, inner, loop)
            secure.write(b"CONNECT\r\n")
            assert await peer.read(100) == b"CONNECT\r\n"
            await peer.write(b"PONG\r\n")
            assert await inner.readline() == b"PONG\r\n"
            assert secure.get_extra_info("cipher")
            await finish(secure)
            writer._protocol.connection_lost(None)

    run(main)


@pytest.mark.defect("the end of TLS made by hand is warned of")
@pytest.mark.parametrize(
    "how", ["a new protocol", "the same protocol", "the same protocol and writer", "_over_ssl"]
)
def test_the_end_of_tls_made_by_hand_is_silent(run, streams, tls, caplog, how):
    """The peer's end over loop.start_tls() closes the transport, and no loop warns of
    eof_received() that returns true."""

    async def main():
        loop = asyncio.get_running_loop()
        async with client(streams) as (reader, writer, sock):
            protocol = writer.transport.get_protocol()
            if how == "a new protocol":
                reader = streams.StreamReader(loop=loop)
                protocol = streams.StreamReaderProtocol(reader, loop=loop)
            upgrading = asyncio.ensure_future(
                loop.start_tls(writer.transport, protocol, tls.client, server_hostname=HOST)
            )
            peer = TlsPeer(sock, tls.server)
            await peer.handshake()
            transport = await upgrading
            if how == "the same protocol and writer":
                secure = writer
                writer._transport = transport
            elif how == "_over_ssl":
                secure = transport
                protocol._over_ssl = True
            else:
                secure = streams.StreamWriter(transport, protocol, reader, loop)
            secure.write(b"data")
            assert await peer.read(4) == b"data"
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()
            await loop.sock_sendall(sock, peer.outgoing.read())
            assert await reader.read() == b""
            await until(transport.is_closing)
            assert "eof_received" not in caplog.text
            secure.close()
            if how == "a new protocol":
                writer._protocol.connection_lost(None)

    run(main)


def test_ssl_protocol_put_under_a_stream_protocol(run, streams, tls):
    """set_protocol(SSLProtocol) and connection_made() by hand; the stream protocol's own
    connection_made comes a second time."""

    class Session(streams.StreamReaderProtocol):
        made = 0
        upgraded = None

        def connection_made(self, transport):
            self.made += 1
            if self.made == 1:
                super().connection_made(transport)
                return
            self._reader._transport = transport
            self._writer._transport = transport
            self._reader._buffer.clear()
            self._over_ssl = True

        def remember(self, reader, writer):
            self._reader = reader
            self._writer = writer

    async def main():
        loop = asyncio.get_running_loop()
        sessions = []

        def factory():
            session = Session(
                streams.StreamReader(loop=loop),
                lambda reader, writer: session.remember(reader, writer),
                loop,
            )
            sessions.append(session)
            return session

        server = await loop.create_server(factory, LOOPBACK, 0)
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            await until(lambda: sessions and sessions[0].made)
            session = sessions.pop()
            sock.send(b"STARTTLS\r\nINJECTED\r\n")
            assert await session._reader.readline() == b"STARTTLS\r\n"
            await until(lambda: session._reader._buffer)
            raw = session._writer.transport
            waiter = loop.create_future()
            layer = sslproto.SSLProtocol(loop, session, tls.server, waiter, server_side=True)
            raw.set_protocol(layer)
            layer.connection_made(raw)
            peer = TlsPeer(sock, tls.client)
            await peer.handshake()
            await waiter
            assert session.made == 2
            await peer.write(b"EHLO\r\n")
            assert await session._reader.readline() == b"EHLO\r\n"
            session._writer.write(b"250 ok\r\n")
            await session._writer.drain()
            assert await peer.read(100) == b"250 ok\r\n"
            await peer.write(bytes(500000))
            assert await session._reader.readexactly(500000) == bytes(500000)
            session._writer.transport.abort()
            await until(lambda: session._closed.done())
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    run(main)


def test_descriptor_taken_over_by_dup_for_tls(run, streams, tls):
    """The socket of a stream, duplicated after pause_reading() and close(), goes on as a TLS
    connection."""

    async def main():
        async with client(streams) as (reader, writer, sock):
            sock.send(b"greeting")
            assert await reader.readexactly(8) == b"greeting"
            writer.write(b"upgrade")
            await writer.drain()
            transport = writer.transport
            transport.pause_reading()
            raw = transport.get_extra_info("socket")
            duplicate = socket.socket(raw.family, raw.type, raw.proto, fileno=os.dup(raw.fileno()))
            duplicate.setblocking(False)
            transport.close()
            assert await asyncio.get_running_loop().sock_recv(sock, 7) == b"upgrade"
            peer = TlsPeer(sock, tls.server)
            opening = asyncio.ensure_future(
                streams.open_connection(sock=duplicate, ssl=tls.client, server_hostname=HOST)
            )
            await peer.handshake()
            secure_reader, secure = await opening
            await peer.write(b"hello")
            assert await secure_reader.readexactly(5) == b"hello"
            secure.write(b"bye")
            assert await peer.read(3) == b"bye"
            await finish(secure)

    run(main)
