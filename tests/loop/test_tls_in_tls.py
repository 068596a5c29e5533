"""TLS in TLS on headrace.EventLoop: one transport, two sessions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import open_descriptors
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK

import headrace
from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the transports are asyncio's here, and so is TLS in TLS"
)

TIMEOUT_S = 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize(
    ("around", "inside"),
    [(outer, inner) for outer in VERSIONS for inner in VERSIONS],
    ids=["1.2 in 1.2", "1.3 in 1.2", "1.2 in 1.3", "1.3 in 1.3"],
)


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], Awaitable[Any]]], Any]]:
    """Run a coroutine on our loop; nothing is reported, and no descriptor left open."""
    errors: list[dict[str, Any]] = []
    before = open_descriptors()

    def on_our_loop(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: errors.append(context))
            return await asyncio.wait_for(main(), TIMEOUT_S)

        return headrace.run(bounded())

    yield on_our_loop
    gc.collect()
    assert open_descriptors() - before == set()
    assert errors == []


class Keeping(asyncio.Protocol):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def has(self, data: bytes) -> None:
        """Wait until *data* is what has come."""
        while len(self.data) < len(data):
            assert not self.lost.done()
            await asyncio.sleep(0.001)
        assert self.data == data


class InnerPeer(TlsPeer):
    """The other end of a session inside that of *outer*."""

    def __init__(self, outer: TlsPeer, context: ssl.SSLContext) -> None:
        TlsPeer.__init__(self, outer.sock, context)
        self.outer = outer

    async def _run(self, call: Callable[..., Any], *args: Any) -> Any:
        while True:
            wants = False
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                wants = True
            finally:
                if self.outgoing.pending:
                    await self.outer.write(self.outgoing.read())
            if not wants:
                return result
            data = await self.outer.read(65536)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()


@contextlib.asynccontextmanager
async def secured(contexts: Any) -> Any:
    """(transport, protocol, peer): a client of ours over TLS, and the TlsPeer of its server."""
    server, client = contexts
    loop = asyncio.get_running_loop()
    with socket.create_server((LOOPBACK, 0)) as listener:
        connecting = asyncio.ensure_future(
            loop.create_connection(
                Keeping, *listener.getsockname(), ssl=client, server_hostname=HOST
            )
        )
        listener.setblocking(False)
        sock, _ = await loop.sock_accept(listener)
    with sock:
        peer = TlsPeer(sock, server)
        await peer.handshake()
        transport, protocol = await connecting
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            await protocol.lost


@contextlib.asynccontextmanager
async def twice(outer: Any, inner: Any) -> Any:
    """The same once more over TLS: (transport, protocol, the inner peer)."""
    async with secured(outer) as (transport, protocol, around):
        loop = asyncio.get_running_loop()
        peer = InnerPeer(around, inner[0])
        upgraded, _ = await asyncio.gather(
            loop.start_tls(transport, protocol, inner[1], server_hostname=HOST), peer.handshake()
        )
        assert upgraded is transport
        yield transport, protocol, peer


@both_versions
@pytest.mark.parametrize("layers", [2, 3])
def test_streams(run, tls, around, inside, layers):
    """asyncio's streams upgrade both ends once more, and again; every size comes back, and the end
    reaches both."""
    outer, inner = tls.contexts(around), tls.contexts(inside)
    sizes = [1, 1023, 16383, 16384, 16385, 100_000, 700_000]

    async def main():
        async def echo(reader, writer):
            for _ in range(layers - 1):
                await writer.start_tls(inner[0])
            while data := await reader.read(50_000):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, LOOPBACK, 0, ssl=outer[0])
        async with server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=outer[1], server_hostname=HOST
            )
            before = writer.get_extra_info("ssl_object")
            for _ in range(layers - 1):
                await writer.start_tls(inner[1], server_hostname=HOST)
            assert writer.get_extra_info("ssl_object") is not before
            for size in sizes:
                sent = bytes(range(251)) * (size // 251 + 1)
                writer.write(sent)
                assert await reader.readexactly(len(sent)) == sent
            writer.close()
            await writer.wait_closed()

    run(main)


@both_versions
def test_what_the_transport_says(run, tls, around, inside):
    """It is the same transport, which tells of the inner session and can go on once more."""

    async def main():
        inner = tls.contexts(inside)
        async with twice(tls.contexts(around), inner) as (transport, protocol, peer):
            assert transport._start_tls_compatible
            assert transport.get_extra_info("sslcontext") is inner[1]
            session = transport.get_extra_info("ssl_object")
            assert isinstance(session, ssl.SSLObject)
            assert session.version() == peer.tls.version()
            assert transport.get_extra_info("cipher") == session.cipher()
            assert transport.get_extra_info("peercert") == session.getpeercert() != {}
            assert transport.get_extra_info("close_notify") is None
            assert "SSL" in transport.__class__.__name__
            assert not transport.can_write_eof()
            transport.write(b"words")
            assert await peer.read(100) == b"words"
            await peer.write(b"answer")
            await protocol.has(b"answer")

    run(main)


@both_versions
def test_close(run, tls, around, inside):
    """close() sends what was written, and close_notify of both."""

    async def main():
        async with twice(tls.contexts(around), tls.contexts(inside)) as (transport, protocol, peer):
            transport.write(b"x" * 300_000)
            transport.close()
            transport.close()
            came = b""
            while data := await peer.read(65536):
                came += data
            assert came == b"x" * 300_000
            assert await peer.outer.read(100) == b""
            assert await protocol.lost is None

    run(main)


@pytest.mark.parametrize("end", ["inner", "outer", "fin", "half a record"])
def test_how_it_ended(run, tls, end):
    """What came before the end is delivered; only close_notify of the inner session is an end that
    the peer itself has made."""

    async def main():
        async with twice((tls.server, tls.client), (tls.server, tls.client)) as (
            transport,
            protocol,
            peer,
        ):
            await peer.write(b"last")
            if end == "inner":
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.tls.unwrap()
                await peer.outer.write(peer.outgoing.read())
            elif end == "half a record":
                peer.tls.write(b"never whole")
                await peer.outer.write(peer.outgoing.read()[:-1])
            if end != "fin":
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.outer.tls.unwrap()
                peer.sock.send(peer.outer.outgoing.read())
            if end in ("fin", "half a record"):
                peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.data == b"last"
            assert protocol.ended
            assert transport.get_extra_info("close_notify") is (end == "inner")

    run(main)


@both_versions
def test_a_byte_at_a_time(run, tls, around, inside):
    """However the two handshakes and the data are cut, all of it arrives, and nothing more."""

    async def main():
        async with secured(tls.contexts(around)) as (transport, protocol, outer):
            loop = asyncio.get_running_loop()
            server, client = tls.contexts(inside)
            peer = InnerPeer(outer, server)
            whole = outer.write

            async def in_pieces(data):
                """A record for each byte or so, each sent byte by byte."""
                step = max(1, len(data) // 100)
                for at in range(0, len(data), step):
                    outer.tls.write(data[at : at + step])
                    for byte in outer.outgoing.read():
                        await loop.sock_sendall(outer.sock, bytes([byte]))

            outer.write = in_pieces
            await asyncio.gather(
                loop.start_tls(transport, protocol, client, server_hostname=HOST), peer.handshake()
            )
            await peer.write(b"slow words")
            outer.write = whole
            await peer.write(b", and fast ones")
            await protocol.has(b"slow words, and fast ones")

    run(main)


def test_many_records_at_once(run, tls):
    """Records of several sizes, the inner ones across the outer ones' borders."""
    sizes = [1, 5, 100, 16384, 3, 20_000, 1, 70_000, 2]

    async def main():
        async with twice((tls.server, tls.client), (tls.server, tls.client)) as (
            _,
            protocol,
            peer,
        ):
            sent = b""
            for number, size in enumerate(sizes):
                data = bytes([number]) * size
                for at in range(0, size, 16384):
                    peer.tls.write(data[at : at + 16384])
                sent += data
            records = peer.outgoing.read()
            for at in range(0, len(records), 777):
                peer.outer.tls.write(records[at : at + 777])
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer.sock, peer.outer.outgoing.read())
            await protocol.has(sent)

    run(main)


def test_a_reader_that_is_paused(run, tls):
    """What a paused protocol has not got waits, encrypted, and loses nothing."""
    sent = bytes(range(256)) * 4096

    async def main():
        async with twice((tls.server, tls.client), (tls.server, tls.client)) as (
            transport,
            protocol,
            peer,
        ):

            class Stopping(Keeping):
                def data_received(self, data):
                    Keeping.data_received(self, data)
                    transport.pause_reading()
                    loop.call_later(0.001, transport.resume_reading)

            loop = asyncio.get_running_loop()
            stopping = Stopping()
            stopping.lost = protocol.lost
            transport.set_protocol(stopping)
            writing = asyncio.ensure_future(peer.write(sent))
            await stopping.has(sent)
            await writing

    run(main)


@pytest.mark.parametrize("peer_does", ["refuses", "is silent", "ends outer", "ends", "talks"])
def test_a_handshake_that_fails(run, tls, peer_does):
    """The errors of asyncio; the connection is closed."""
    expected = {
        "refuses": ssl.SSLCertVerificationError,
        "is silent": ConnectionAbortedError,
        "ends outer": ConnectionResetError,
        "ends": ConnectionResetError,
        "talks": ssl.SSLError,
    }[peer_does]

    async def main():
        async with secured((tls.server, tls.client)) as (transport, protocol, outer):
            loop = asyncio.get_running_loop()
            peer = InnerPeer(outer, tls.server)
            upgrading = asyncio.ensure_future(
                loop.start_tls(
                    transport,
                    protocol,
                    tls.stranger if peer_does == "refuses" else tls.client,
                    server_hostname=HOST,
                    ssl_handshake_timeout=0.05 if peer_does == "is silent" else None,
                )
            )
            if peer_does == "refuses":
                with pytest.raises(ssl.SSLError, match="(?i)unknown.ca"):
                    await peer.handshake()
                    await peer.read(1)
            elif peer_does == "ends outer":
                await asyncio.sleep(0.01)
                with contextlib.suppress(ssl.SSLWantReadError):
                    outer.tls.unwrap()
                outer.sock.send(outer.outgoing.read())
            elif peer_does == "ends":
                outer.sock.shutdown(socket.SHUT_WR)
            elif peer_does == "talks":
                await outer.write(b"HTTP/1.1 400 no TLS here\r\n\r\n")
            with pytest.raises(expected):
                await upgrading
            await protocol.lost
            assert transport.is_closing()

    run(main)


def test_cancelled(run, tls):
    """A start_tls() that is cancelled closes the connection."""

    async def main():
        async with secured((tls.server, tls.client)) as (transport, protocol, outer):
            loop = asyncio.get_running_loop()
            upgrading = asyncio.ensure_future(
                loop.start_tls(transport, protocol, tls.client, server_hostname=HOST)
            )
            assert await outer.read(1) == b"\x16"  # a handshake has begun
            upgrading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upgrading
            assert await protocol.lost is None

    run(main)


@pytest.mark.parametrize("cut", [0, 1, 5, 100])
def test_a_hello_that_comes_early(run, tls, cut):
    """A client's hello in the record of the word before it, or partly there, begins the handshake:
    what asyncio's reader has of it is not lost."""

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        async def handle(reader, writer):
            assert await reader.readexactly(9) == b"STARTTLS\n"
            await asyncio.sleep(0.01)
            await writer.start_tls(tls.server)
            writer.write(await reader.readexactly(5))
            writer.close()
            await writer.wait_closed()
            done.set_result(None)

        server = await asyncio.start_server(handle, LOOPBACK, 0, ssl=tls.server)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.setblocking(False)
                outer = TlsPeer(sock, tls.client)
                await outer.handshake()
                peer = InnerPeer(outer, tls.client)
                hello = peer.hello()
                await outer.write(b"STARTTLS\n" + hello[:cut])
                if cut:
                    await asyncio.sleep(0.005)
                await outer.write(hello[cut:])
                await peer.handshake()
                await peer.write(b"words")
                assert await peer.read(5) == b"words"
                assert await peer.read(5) == b""
            await done

    run(main)


@pytest.mark.parametrize("layer", ["inner", "outer"])
def test_a_mangled_record(run, tls, layer):
    """What came before it is delivered, then the session has failed."""

    async def main():
        async with twice((tls.server, tls.client), (tls.server, tls.client)) as (
            _,
            protocol,
            peer,
        ):
            await peer.write(b"good")
            peer.tls.write(b"bad")
            record = bytearray(peer.outgoing.read())
            if layer == "inner":
                record[-1] ^= 1
            peer.outer.tls.write(record)
            sent = bytearray(peer.outer.outgoing.read())
            if layer == "outer":
                sent[-1] ^= 1
            peer.sock.send(sent)
            error = await protocol.lost
            assert isinstance(error, ssl.SSLError)
            assert protocol.data == b"good"

    run(main)


def test_abort(run, tls):
    """abort() forgets what was not sent, and the peer sees no end of a stream."""

    async def main():
        async with twice((tls.server, tls.client), (tls.server, tls.client)) as (
            transport,
            protocol,
            peer,
        ):
            transport.abort()
            assert await protocol.lost is None
            with pytest.raises((ssl.SSLError, ConnectionError)):
                assert await peer.outer.read(1) != b""

    run(main)
