"""TLS of protocols on headrace.EventLoop, with a peer that decides about every record and byte."""

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
from support.certificates import TlsPeer
from support.connections import LOOPBACK

import headrace

TIMEOUT_S = 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
RECORD_BYTES = 16384
HEADER_BYTES = 5


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
    """Keeps what it is told."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.data = b""
        self.ended = False
        self.made: asyncio.Future[Any] = loop.create_future()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        assert not self.ended
        self.data += data

    def eof_received(self) -> None:
        assert not self.ended
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def has(self, data: bytes) -> None:
        """Wait until *data* is what has come."""
        while len(self.data) < len(data):
            assert not self.lost.done()
            await asyncio.sleep(0.001)
        assert self.data == data


@contextlib.asynccontextmanager
async def served(contexts: Any, session: ssl.SSLSession | None = None) -> Any:
    """(transport, protocol, peer): the server's end on our loop, and its client as a TlsPeer, after
    the handshake."""
    server_context, client_context = contexts
    loop = asyncio.get_running_loop()
    protocol = Keeping()
    server = await loop.create_server(lambda: protocol, LOOPBACK, 0, ssl=server_context)
    with socket.create_connection(server.sockets[0].getsockname()) as sock:
        sock.setblocking(False)
        peer = TlsPeer(sock, client_context)
        if session is not None:
            peer.tls.session = session
        await peer.handshake()
        transport = await protocol.made
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            await protocol.lost
            server.close()
            await server.wait_closed()


def records_of(data: bytes) -> list[int]:
    """Return the length of each record in *data*, all of them whole."""
    sizes = []
    while data:
        size = HEADER_BYTES + int.from_bytes(data[3:5], "big")
        assert len(data) >= size
        sizes.append(size)
        data = data[size:]
    return sizes


@pytest.mark.parametrize("number", [0, 1, 2, 5])
@pytest.mark.parametrize("answers", [True, False])
def test_tickets(run, tls, number, answers):
    """As many tickets as the context says leave in front of the first data, and without any data
    too."""

    async def main():
        contexts = tls.contexts(ssl.TLSVersion.TLSv1_3)
        contexts[0].num_tickets = number
        async with served(contexts) as (transport, _, peer):
            loop = asyncio.get_running_loop()
            if answers:
                transport.write(b"words")
            elif number == 0:
                await asyncio.sleep(0.01)
                transport.write(b"words")
            came = b""
            expected = number + (answers or number == 0)
            while len(came) < HEADER_BYTES or len(records_of(came)) < expected:
                came += await loop.sock_recv(peer.sock, 65536)
            assert len(records_of(came)) == expected
            peer.incoming.write(came)
            if answers or number == 0:
                assert await peer.read(100) == b"words"
            else:
                with pytest.raises(ssl.SSLWantReadError):
                    peer.tls.read(100)
            assert peer.tls.session is None or peer.tls.session.has_ticket == (number > 0)

    run(main)


@versions
def test_a_session_is_resumed(run, tls, version):
    """A client that has a ticket does a short handshake."""

    async def main():
        contexts = tls.contexts(version)
        session = None
        for resumed in (False, True):
            async with served(contexts, session) as (transport, _, peer):
                assert peer.tls.session_reused is resumed
                assert transport.get_extra_info("ssl_object").session_reused is resumed
                transport.write(b"words")
                assert await peer.read(100) == b"words"
                session = peer.tls.session

    run(main)


@versions
def test_records_of_every_size(run, tls, version):
    """Small and large records, sent at once, in pieces of a prime number of bytes, and byte by
    byte, give the same data."""
    sizes = [1, 2, 16384, 5, 1000, 16383, 1, 1, 8192, 3]

    async def main():
        loop = asyncio.get_running_loop()
        async with served(tls.contexts(version)) as (_, protocol, peer):
            sent = b""
            for piece in (1 << 20, 997, 1):
                for number, size in enumerate(sizes if piece > 1 else [1, 300, 2]):
                    data = bytes([65 + number]) * size
                    peer.tls.write(data)
                    sent += data
                records = peer.outgoing.read()
                for at in range(0, len(records), piece):
                    await loop.sock_sendall(peer.sock, records[at : at + piece])
                    if piece == 1:
                        await asyncio.sleep(0)
                await protocol.has(sent)

    run(main)


@versions
@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 100_000, 1_000_000])
def test_a_large_write(run, tls, version, size):
    """A write over 16 KiB leaves in full records, in its order, and alone."""

    async def main():
        loop = asyncio.get_running_loop()
        contexts = tls.contexts(version)
        if version == ssl.TLSVersion.TLSv1_3:
            contexts[0].num_tickets = 0
        async with served(contexts) as (transport, _, peer):
            sent = bytes(range(253)) * (size // 253 + 1)
            sent = sent[:size]
            transport.write(sent)
            count = -(-size // RECORD_BYTES)
            came = b""
            while len(came) < size + count * HEADER_BYTES or not whole(came, count):
                came += await loop.sock_recv(peer.sock, 1 << 20)
            assert len(records_of(came)) == count
            peer.incoming.write(came)
            plain = b""
            while len(plain) < size:
                plain += peer.tls.read(1 << 20)
            assert plain == sent

    def whole(data, count):
        at = 0
        for _ in range(count):
            if len(data) < at + HEADER_BYTES:
                return False
            at += HEADER_BYTES + int.from_bytes(data[at + 3 : at + 5], "big")
        return len(data) >= at

    run(main)


@versions
@pytest.mark.parametrize("behind", [b"", b"\x17\x03\x03\x00\x05words", b"GET / HTTP/1.1\r\n\r\n"])
def test_the_peers_close_notify(run, tls, version, behind):
    """It ends the stream behind what came before it; nothing that lies behind it is delivered, and
    the answer to it is our own."""

    async def main():
        async with served(tls.contexts(version)) as (transport, protocol, peer):
            transport.write(b"answer")
            peer.tls.write(b"last words")
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
                peer.tls.unwrap()
            await asyncio.get_running_loop().sock_sendall(peer.sock, peer.outgoing.read() + behind)
            assert await protocol.lost is None
            assert (protocol.data, protocol.ended) == (b"last words", True)
            if not behind:
                assert await peer.read(100) == b"answer"
                assert await peer.read(100) == b""

    run(main)


@versions
@pytest.mark.parametrize("missing", ["close_notify", "a byte", "all but a byte"])
def test_a_connection_that_was_cut(run, tls, version, missing):
    """An end without close_notify, between two records or in the midst of one, is an end; what was
    not whole is not delivered."""

    async def main():
        async with served(tls.contexts(version)) as (transport, protocol, peer):
            await peer.write(b"whole")
            peer.tls.write(b"never whole")
            record = peer.outgoing.read()
            size = {"close_notify": 0, "a byte": len(record) - 1, "all but a byte": 1}[missing]
            peer.sock.send(record[:size])
            peer.sock.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert (protocol.data, protocol.ended) == (b"whole", True)
            if type(transport).__module__.startswith("headrace."):
                assert transport.get_extra_info("close_notify") is False

    run(main)


@versions
def test_close(run, tls, version):
    """close() sends what was written, then close_notify, and takes nothing any more."""

    async def main():
        async with served(tls.contexts(version)) as (transport, protocol, peer):
            transport.write(b"x" * 100_000)
            transport.close()
            transport.write(b"too late")
            came = b""
            while data := await peer.read(65536):
                came += data
            assert came == b"x" * 100_000
            with contextlib.suppress(ssl.SSLError):
                peer.tls.unwrap()
            peer.sock.close()
            assert await protocol.lost is None
            # asyncio's transport waits for the peer's end, and tells of it.
            assert not protocol.ended or not type(transport).__module__.startswith("headrace.")

    run(main)
