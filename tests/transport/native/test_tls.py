"""TLS on the native way: what it promises beyond asyncio's, and every argument that it takes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import struct
from asyncio.trsock import TransportSocket

import pytest
from conftest import open_descriptors
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, client, echo, finish, pair, receive, reset, serving, until
from support.wires import turns

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
# A record's first five bytes: what is in it, the version, its length (RFC 8446, 5.1).
APPLICATION_DATA = 23


@contextlib.asynccontextmanager
async def secured(streams, contexts, **options):
    """(reader, writer, peer) of a client over TLS; *peer* is a server's TlsPeer."""
    server, ours = contexts
    with socket.create_server((LOOPBACK, 0)) as listener:
        connecting = asyncio.ensure_future(
            streams.open_connection(
                *listener.getsockname(), ssl=ours, server_hostname=HOST, **options
            )
        )
        listener.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    try:
        peer = TlsPeer(sock, server)
        await peer.handshake()
        reader, writer = await connecting
        try:
            yield reader, writer, peer
        finally:
            await finish(writer)
    finally:
        sock.close()


def test_it_is_native(run, native, tls):
    """Both ends are ours, and the transport is the one that speaks to the socket."""

    async def main():
        async with pair(native, (tls.server, tls.client)) as both:
            for writer in both.writer, both.server_writer:
                assert backend.native is not None
                assert type(writer.transport) is backend.native.SocketTransport
                assert "tls=TLSv1" in repr(writer.transport)

    run(main)


# ---- every byte


@versions
def test_every_size(run, native, tls, version):
    """Messages of every size come back as they were, however they fall into records and
    receives."""
    sizes = [1, 2, 1023, 16383, 16384, 16385, 40000, 65535, 65536, 65537, 300_000, 3_000_000]

    async def main():
        async with pair(native, tls.contexts(version)) as both:
            serving = asyncio.create_task(echo(both.server_reader, both.server_writer))
            for size in sizes:
                data = os.urandom(size)
                both.writer.write(data)
                assert await both.reader.readexactly(size) == data
            both.writer.close()
            await both.writer.wait_closed()
            await serving

    run(main)


@versions
def test_both_directions_at_once(run, native, tls, version):
    """Two floods pass each other, with small limits and water marks, and nothing is lost."""
    data = os.urandom(1 << 20) * 4

    async def main():
        async with pair(native, tls.contexts(version), limit=5000) as both:

            async def send(writer):
                for at in range(0, len(data), 77_777):
                    writer.write(data[at : at + 77_777])
                    await writer.drain()

            async def take(reader):
                return b"".join([await reader.readexactly(1 << 16) for _ in range(len(data) >> 16)])

            results = await asyncio.gather(
                send(both.writer),
                send(both.server_writer),
                take(both.reader),
                take(both.server_reader),
            )
            assert results[2] == results[3] == data

    run(main)


@versions
@pytest.mark.parametrize("side", ["client", "server"])
def test_one_byte_at_a_time(run, native, tls, version, side):
    """A handshake and a message that arrive byte by byte are a handshake and a message."""
    contexts = tls.contexts(version)

    async def trickle(source, target):
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 65536):
                for octet in data:
                    await loop.sock_sendall(target, bytes([octet]))
                    await turns(2)

    async def main():
        loop = asyncio.get_running_loop()
        async with serving(native, echo, ssl=contexts[0]) as address:
            with (
                socket.create_server((LOOPBACK, 0)) as listener,
                socket.create_connection(address) as up,
            ):
                listener.setblocking(False)
                up.setblocking(False)
                connecting = asyncio.create_task(
                    native.open_connection(
                        *listener.getsockname(), ssl=contexts[1], server_hostname=HOST
                    )
                )
                down, _ = await loop.sock_accept(listener)
                with down:
                    whole = asyncio.create_task(
                        loop_through(down, up) if side == "client" else trickle(down, up)
                    )
                    small = asyncio.create_task(
                        trickle(up, down) if side == "client" else loop_through(up, down)
                    )
                    reader, writer = await connecting
                    writer.write(b"x" * 300)
                    assert await reader.readexactly(300) == b"x" * 300
                    writer.close()
                    await writer.wait_closed()
                    for task in whole, small:
                        task.cancel()
                    await asyncio.gather(whole, small, return_exceptions=True)

    async def loop_through(source, target):
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 65536):
                await loop.sock_sendall(target, data)

    run(main)


def test_a_large_readexactly(run, native, tls):
    """What a large readexactly() collects is decrypted into its result, and what comes behind it
    stays."""
    data = os.urandom(1 << 20) * 6 + b"tail"

    async def main():
        async with pair(native, (tls.server, tls.client)) as both:
            both.server_writer.write(data)
            assert await both.reader.readexactly(6 << 20) == data[:-4]
            assert await both.reader.readexactly(4) == b"tail"

    run(main)


@pytest.mark.parametrize("limit", [100, 4096, 65536])
def test_a_reader_that_is_slow(run, native, tls, limit):
    """A paused reader gets everything when it goes on, also what had been received and not
    decrypted."""
    data = os.urandom(1 << 20)

    async def main():
        async with pair(native, (tls.server, tls.client), limit=limit) as both:
            both.server_writer.write(data)
            await until(lambda: both.reader._paused)
            got = bytearray()
            while len(got) < len(data):
                got += await both.reader.read(7777)
                if len(got) % 5 == 0:
                    await asyncio.sleep(0)
            assert got == data

    run(main)


def test_water_marks(run, native, tls):
    """drain() waits above the high-water mark for a peer that does not read, and goes on when it
    does."""

    async def main():
        async with pair(native, (tls.server, tls.client)) as both:
            both.server_reader._transport.pause_reading()
            both.writer.write(bytes(20 << 20))
            assert both.writer.transport.get_write_buffer_size() > 64 * 1024
            draining = asyncio.create_task(both.writer.drain())
            await asyncio.sleep(0.01)
            assert not draining.done()
            both.server_reader._transport.resume_reading()
            assert await both.server_reader.readexactly(20 << 20) == bytes(20 << 20)
            await draining
            assert both.writer.transport.get_write_buffer_size() <= 16 * 1024

    run(main)


@versions
def test_data_right_behind_the_handshake(run, native, tls, version):
    """A client's first messages that come in one piece with the end of its handshake are all there,
    at once."""
    server, ours = tls.contexts(version)

    async def main():
        loop = asyncio.get_running_loop()
        async with serving(native, echo, ssl=server) as address:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                peer = TlsPeer(sock, ours)
                await (
                    peer.handshake_but_the_last() if version == VERSIONS[1] else peer.handshake()
                )
                sent = b""
                for number in range(20):
                    sent += b"%d," % number
                    peer.tls.write(b"%d," % number)
                await loop.sock_sendall(sock, peer.outgoing.read())
                async with asyncio.timeout(5):
                    got = b""
                    while len(got) < len(sent):
                        got += await peer.read(100)
                assert got == sent

    run(main)


# ---- the end


def test_half_close(run, native, tls):
    """With TLS 1.3 write_eof() ends one direction, and the other goes on until it is ended too."""

    async def main():
        async with pair(native, tls.contexts(ssl.TLSVersion.TLSv1_3)) as both:
            both.writer.write(b"question")
            assert both.writer.can_write_eof()
            both.writer.write_eof()
            with pytest.raises(RuntimeError, match="write_eof"):
                both.writer.write(b"more")
            assert await both.server_reader.read() == b"question"
            both.server_writer.write(b"answer" * 50_000)
            both.server_writer.close()
            assert await both.reader.read() == b"answer" * 50_000
            assert both.writer.get_extra_info("close_notify") is True
            both.writer.close()
            await both.writer.wait_closed()
            await both.server_writer.wait_closed()

    run(main)


def test_half_close_with_unread_input(run, native, tls):
    """What had come when write_eof() was called is not lost by it, however much the reader had
    taken."""
    data = os.urandom(1 << 20)

    async def main():
        async with pair(native, tls.contexts(ssl.TLSVersion.TLSv1_3), limit=1000) as both:
            both.server_writer.write(data)
            await until(lambda: both.reader._paused)
            both.writer.write_eof()
            assert await both.server_reader.read() == b""
            assert await both.reader.readexactly(len(data)) == data

    run(main)


def test_half_close_with_the_end_behind_unread_input(run, native, tls):
    """The peer's end, which had come behind unread data when write_eof() was called, is seen behind
    that data."""

    async def main():
        async with secured(native, tls.contexts(ssl.TLSVersion.TLSv1_3), limit=20_000) as (
            reader,
            writer,
            peer,
        ):
            for _ in range(4):
                peer.tls.write(bytes(16_000))
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()
            await asyncio.get_running_loop().sock_sendall(peer.sock, peer.outgoing.read())
            await until(lambda: reader._paused)
            writer.write_eof()
            async with asyncio.timeout(5):
                assert await reader.read() == bytes(64_000)
            assert writer.get_extra_info("close_notify") is True

    run(main)


@pytest.mark.parametrize("end", ["goodbye", "fin", "reset"])
def test_how_it_ended(run, native, tls, end):
    """get_extra_info('close_notify') tells a stream that was ended from a connection that was cut;
    the reader sees the end of both."""

    async def main():
        async with secured(native, (tls.server, tls.client)) as (reader, writer, peer):
            await peer.write(b"data")
            assert await reader.readexactly(4) == b"data"
            assert writer.get_extra_info("close_notify") is None
            if end == "goodbye":
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.tls.unwrap()
                await asyncio.get_running_loop().sock_sendall(peer.sock, peer.outgoing.read())
            elif end == "fin":
                peer.sock.shutdown(socket.SHUT_WR)
            else:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.sock.close()
            if end == "reset":
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:
                assert await reader.read() == b""
            assert writer.get_extra_info("close_notify") is (end == "goodbye")

    run(main)


@versions
def test_close_does_not_wait_for_the_peer(run, native, tls, version):
    """close() sends what was written and close_notify, and does not wait for an answer; a second
    close() does nothing."""

    async def main():
        async with secured(native, tls.contexts(version)) as (reader, writer, peer):
            writer.write(b"last words")
            writer.close()
            writer.close()
            async with asyncio.timeout(2):
                await writer.wait_closed()
            writer.close()
            assert writer.get_extra_info("sslcontext") is not None
            assert await peer.read(100) == b"last words"
            assert await peer.read(100) == b""

    run(main)


def test_close_of_a_peer_that_does_not_read(run, native, tls):
    """ssl_shutdown_timeout bounds how long close() tries to send what was written."""

    async def main():
        async with secured(native, (tls.server, tls.client), ssl_shutdown_timeout=0.05) as (
            reader,
            writer,
            peer,
        ):
            writer.write(bytes(30 << 20))
            assert writer.transport.get_write_buffer_size() > 0
            writer.close()
            async with asyncio.timeout(5):
                await writer.wait_closed()

    run(main)


def test_goodbyes_that_cross(run, native, tls):
    """What was written before close() arrives, although the peer says something, close_notify,
    after the close and before it has read."""
    data = os.urandom(1 << 20)

    async def main():
        loop = asyncio.get_running_loop()
        async with secured(native, tls.contexts(ssl.TLSVersion.TLSv1_3)) as (_, writer, peer):
            writer.write(data)
            while writer.transport.get_write_buffer_size():
                peer.incoming.write(await loop.sock_recv(peer.sock, 65536))
            writer.close()
            await asyncio.sleep(0.01)
            with contextlib.suppress(ssl.SSLError):
                peer.tls.unwrap()
            await loop.sock_sendall(peer.sock, peer.outgoing.read())
            await asyncio.sleep(0.01)
            size = peer.incoming.pending
            while received := await loop.sock_recv(peer.sock, 65536):
                size += len(received)
            assert size > len(data)
            await writer.wait_closed()

    run(main)


def test_a_rude_peer(run, native, tls):
    """wait_closed() raises nothing where the peer was gone before it got our close_notify."""

    async def main():
        async with secured(native, (tls.server, tls.client)) as (reader, writer, peer):
            await peer.write(b"bye")
            peer.sock.close()
            assert await reader.read() == b"bye"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_abort(run, native, tls):
    """abort() ends at once, with everything unsent forgotten, also in the middle of a handshake."""

    async def main():
        async with secured(native, (tls.server, tls.client)) as (reader, writer, peer):
            writer.write(bytes(30 << 20))
            writer.transport.abort()
            async with asyncio.timeout(2):
                await writer.wait_closed()
            assert writer.transport.get_write_buffer_size() == 0

    run(main)


# ---- the handshake


def test_nobody_answers(run, native, tls):
    """A peer that says nothing is given up after ssl_handshake_timeout, with asyncio's error, and
    nothing is left of the connection."""

    async def main():
        with socket.create_server((LOOPBACK, 0)) as listener:
            before = open_descriptors()
            with pytest.raises(
                ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.05 seconds"
            ):
                await native.open_connection(
                    *listener.getsockname(),
                    ssl=tls.client,
                    server_hostname=HOST,
                    ssl_handshake_timeout=0.05,
                )
            assert open_descriptors() == before

    run(main)


def test_a_client_that_says_nothing(run, native, tls):
    """A server gives it up after ssl_handshake_timeout, and never calls its callback."""
    called = []

    async def main():
        async with serving(
            native, lambda *both: called.append(both), ssl=tls.server, ssl_handshake_timeout=0.05
        ) as address:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                async with asyncio.timeout(5):
                    assert await receive(sock) == b""
        assert called == []

    run(main)


@pytest.mark.parametrize("what", ["nothing", "half", "http"])
def test_a_client_that_does_not_speak_tls(run, native, tls, caplog, what):
    """It is refused, and the others are served; the server counts it, and logs the first, with the
    peer's bytes."""

    async def main():
        async with await native.start_server(echo, LOOPBACK, 0, ssl=tls.server) as server:
            address = server.sockets[0].getsockname()
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                said = {
                    "nothing": b"",
                    "half": b"\x16\x03\x01\x02",
                    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                }[what]
                sock.send(said)
                if what != "http":
                    sock.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(5):
                    await receive(sock)
            reader, writer = await native.open_connection(
                *address, ssl=tls.client, server_hostname=HOST
            )
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            assert server.handshake_failures == 1
            with pytest.raises(ssl.SSLError):
                await native.open_connection(*address, ssl=tls.stranger, server_hostname=HOST)
            await until(lambda: server.handshake_failures == 2)

    run(main)
    logged = [
        record.getMessage() for record in caplog.records if "handshake" in record.getMessage()
    ]
    assert len(logged) == 1
    assert ("GET / HTTP/1.1" in logged[0]) is (what == "http")


def test_a_server_that_does_not_speak_tls(run, native, tls):
    """The client gets an ssl.SSLError; where the server closes, a ConnectionResetError."""

    async def main():
        for answer, error in (
            (b"220 mail.example.com ESMTP\r\n", ssl.SSLError),
            (b"", ConnectionResetError),
        ):

            async def plain(reader, writer, answer=answer):
                writer.write(answer)
                await reader.read(10)
                writer.close()

            async with serving(native, plain) as address:
                with pytest.raises(error) as info:
                    await native.open_connection(*address, ssl=tls.client, server_hostname=HOST)
                notes = "".join(getattr(info.value, "__notes__", ()))
                assert ("220 mail.example.com" in notes) is bool(answer)

    run(main)


def test_a_certificate_that_nobody_knows(run, native, tls):
    """The client's error says what was not verified, and the server gets the alert."""

    async def main():
        async with client(native) as (_, writer, sock):
            upgrading = asyncio.create_task(writer.start_tls(tls.stranger, server_hostname=HOST))
            peer = TlsPeer(sock, tls.server)
            with pytest.raises(ssl.SSLError, match="(?i)unknown.ca|alert"):
                await peer.handshake()
            with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
                await upgrading

    run(main)


def test_a_name_that_is_another(run, native, tls):
    """The error names the name."""

    async def main():
        async with serving(native, echo, ssl=tls.server) as address:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.org"):
                await native.open_connection(
                    *address, ssl=tls.client, server_hostname="example.org"
                )

    run(main)


def test_no_version_in_common(run, native, tls):
    """Both sides fail, at once."""

    async def main():
        async with serving(native, echo, ssl=tls.contexts(VERSIONS[0])[0]) as address:
            with pytest.raises(ssl.SSLError, match="(?i)version|alert"):
                await native.open_connection(
                    *address, ssl=tls.contexts(VERSIONS[1])[1], server_hostname=HOST
                )

    run(main)


@pytest.mark.parametrize("after", range(12))
def test_cancelled_anywhere(run, native, tls, after):
    """A connect that is cancelled, after whatever number of turns, leaves nothing."""

    async def main():
        async with serving(native, echo, ssl=tls.server) as address:
            before = open_descriptors()
            connecting = asyncio.create_task(
                native.open_connection(*address, ssl=tls.client, server_hostname=HOST)
            )
            await turns(after)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                _, writer = await connecting
                writer.close()
                await writer.wait_closed()
            del connecting
            gc.collect()
            await until(lambda: open_descriptors() <= before)

    run(main)


def test_a_cancelled_handshake_and_the_next_connection(run, native, tls, tmp_path):
    """A connection that is made right after a cancelled handshake, and so gets the same descriptor,
    is served."""
    mute, good = str(tmp_path / "mute"), str(tmp_path / "good")

    async def main():
        async with await native.start_unix_server(echo, good, ssl=tls.server):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(mute)
                listener.listen()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await native.open_unix_connection(
                            mute, ssl=tls.client, server_hostname=HOST
                        )
                async with asyncio.timeout(5):
                    reader, writer = await native.open_unix_connection(
                        good, ssl=tls.client, server_hostname=HOST
                    )
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
                    writer.close()
                    await writer.wait_closed()

    run(main)


# ---- what is asked of a connection


def test_what_a_writer_knows(run, native, tls):
    """get_extra_info() has asyncio's keys, on both sides."""

    async def main():
        async with pair(native, (tls.server, tls.client)) as both:
            info = both.writer.get_extra_info
            assert info("sslcontext") is tls.client
            assert isinstance(info("ssl_object"), ssl.SSLObject)
            assert info("peercert")["subjectAltName"] == (("DNS", HOST),)
            assert info("cipher") == info("ssl_object").cipher()
            assert info("compression") is None
            assert info("nonsense", 5) == 5
            assert both.server_writer.get_extra_info("sslcontext") is tls.server
            assert info("peername") == both.server_writer.get_extra_info("sockname")
            assert isinstance(info("socket"), TransportSocket)

    run(main)


@versions
def test_names_protocols_and_certificates(run, native, tls, version):
    """SNI, ALPN and a client's certificate go through to the context and to the handler."""
    server, ours = tls.contexts(version)
    named = []
    server.sni_callback = lambda session, name, context: named.append(name)
    server.set_alpn_protocols(["h2", "echo"])
    ours.set_alpn_protocols(["echo"])
    tls.certificate.configure_cert(ours)
    tls.authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED

    async def main():
        async with pair(native, (server, ours)) as both:
            assert named == [HOST]
            assert both.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "echo"
            assert both.server_writer.get_extra_info("peercert")["subjectAltName"] == (
                ("DNS", HOST),
            )

    run(main)


def test_the_default_context(run, native, tls, monkeypatch):
    """ssl=True is create_default_context(), which does not trust our authority; with no name to
    check it checks none."""

    async def main():
        async with serving(native, echo, ssl=tls.server) as address:
            with pytest.raises(ssl.SSLCertVerificationError):
                await native.open_connection(*address, ssl=True)
            made = ssl.create_default_context()
            tls.authority.configure_trust(made)
            monkeypatch.setattr(ssl, "create_default_context", lambda: made)
            reader, writer = await native.open_connection(*address, ssl=True, server_hostname="")
            assert made.check_hostname is False
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()

    run(main)


@versions
def test_sessions_are_resumed(run, native, tls, version):
    """A client that brings its session back is recognised: what a server needs for it is sent, and
    nothing else is disturbed."""
    server, ours = tls.contexts(version)

    async def main():
        loop = asyncio.get_running_loop()
        async with serving(native, echo, ssl=server) as address:
            session = None
            for reused in False, True:
                with socket.create_connection(address) as sock:
                    sock.setblocking(False)
                    peer = TlsPeer(sock, ours)
                    peer.tls = ours.wrap_bio(peer.incoming, peer.outgoing, False, HOST, session)
                    await peer.handshake()
                    await peer.write(b"hello")
                    assert await peer.read(5) == b"hello"
                    assert peer.tls.session_reused is reused
                    session = peer.tls.session
                    with contextlib.suppress(ssl.SSLWantReadError):
                        peer.tls.unwrap()
                    await loop.sock_sendall(sock, peer.outgoing.read())
                    assert await receive(sock) != b"never"

    run(main)


@versions
@pytest.mark.parametrize("how", ["open_connection", "start_tls"])
def test_a_client_resumes_a_session(run, native, tls, version, how):
    """A session of an earlier connection spares the server its certificate, in a connection that
    begins with TLS or turns to it."""
    server, ours = tls.contexts(version)

    async def upgrading(reader, writer):
        await writer.start_tls(server)
        await echo(reader, writer)

    async def connect(address, session):
        if how == "open_connection":
            return await native.open_connection(
                *address, ssl=ours, server_hostname=HOST, ssl_session=session
            )
        reader, writer = await native.open_connection(*address)
        await writer.start_tls(ours, server_hostname=HOST, ssl_session=session)
        return reader, writer

    async def main():
        handler, options = (echo, {"ssl": server}) if how == "open_connection" else (upgrading, {})
        async with serving(native, handler, **options) as address:
            session = None
            for reused in False, True:
                reader, writer = await connect(address, session)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                used = writer.get_extra_info("ssl_object")
                assert used.session_reused is reused
                session = used.session
                await finish(writer)

    run(main)


def test_a_session_of_another_context(run, native, tls):
    """A session does not fit a connection without TLS, nor the default context, and another context
    than its own refuses it."""
    _, ours = tls.contexts(ssl.TLSVersion.TLSv1_3)

    async def main():
        async with serving(native, echo, ssl=tls.server) as address:
            reader, writer = await native.open_connection(*address, ssl=ours, server_hostname=HOST)
            writer.write(b"hello")
            await reader.readexactly(5)
            session = writer.get_extra_info("ssl_object").session
            await finish(writer)
            for context in None, True:
                with pytest.raises(ValueError, match="ssl_session is only meaningful with"):
                    await native.open_connection(*address, ssl=context, ssl_session=session)
            with pytest.raises(ValueError, match="different SSLContext"):
                await native.open_connection(
                    *address, ssl=tls.client, server_hostname=HOST, ssl_session=session
                )

    run(main)


def test_tls_in_tls(run, native, tls):
    """A stream over TLS can be upgraded once more."""

    async def main():
        async def twice(reader, writer):
            await writer.start_tls(tls.server)
            await echo(reader, writer)

        async with serving(native, twice, ssl=tls.server) as address:
            reader, writer = await native.open_connection(
                *address, ssl=tls.client, server_hostname=HOST
            )
            await writer.start_tls(tls.client, server_hostname=HOST)
            writer.write(b"hello" * 10_000)
            assert await reader.readexactly(50_000) == b"hello" * 10_000
            writer.transport.abort()

    run(main)


class Plain(asyncio.Protocol):
    def __init__(self):
        self.got = b""
        self.ended = []

    def data_received(self, data):
        self.got += data

    def eof_received(self):
        self.ended.append("eof")

    def connection_lost(self, error):
        self.ended.append(error)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer = bytearray(1000)
        self.got = b""
        self.ended = []

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, size):
        self.got += self.buffer[:size]

    eof_received = Plain.eof_received
    connection_lost = Plain.connection_lost


@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_another_protocol(run, native, tls, kind):
    """set_protocol() takes any protocol, which is called as asyncio's transports call it."""

    async def main():
        async with pair(native, (tls.server, tls.client)) as both:
            protocol = kind()
            first = both.writer.transport.get_protocol()
            both.writer.transport.set_protocol(protocol)
            both.server_writer.write(b"abc" * 20_000)
            both.server_writer.close()
            await until(lambda: len(protocol.ended) == 2)
            assert protocol.got == b"abc" * 20_000
            assert protocol.ended == ["eof", None]
            first.connection_lost(None)  # for the writer, whose end was told to the other

    run(main)


@pytest.mark.parametrize(
    "what", [b"please corrupt the connection", b"\x17\x03\x03\xff\xff", b"\x80\x03\x03\x00\x01?"]
)
def test_no_record_at_all(run, native, tls, what):
    """Plain bytes in the midst of TLS end the connection with an ssl.SSLError at once, however long
    a record they would be."""

    async def main():
        async with secured(native, (tls.server, tls.client)) as (reader, writer, peer):
            await peer.write(b"good")
            assert await reader.readexactly(4) == b"good"
            await asyncio.get_running_loop().sock_sendall(peer.sock, what)
            async with asyncio.timeout(5):
                with pytest.raises(ssl.SSLError):
                    await reader.read()
                with pytest.raises(ssl.SSLError):
                    await writer.wait_closed()

    run(main)


def test_a_mangled_record(run, native, tls):
    """A record that was changed on its way ends the connection with an ssl.SSLError; what came
    before it can be read."""

    async def main():
        async with secured(native, (tls.server, tls.client)) as (reader, writer, peer):
            await peer.write(b"good")
            peer.tls.write(b"bad")
            record = bytearray(peer.outgoing.read())
            assert record[0] == APPLICATION_DATA
            record[-1] ^= 1
            await asyncio.get_running_loop().sock_sendall(peer.sock, record)
            assert await reader.readexactly(4) == b"good"
            with pytest.raises(ssl.SSLError):
                await reader.read()
            with pytest.raises(ssl.SSLError):
                await writer.wait_closed()

    run(main)


@pytest.mark.parametrize("how", ["pause_reading", "abort", "close"])
def test_a_protocol_that_has_enough(run, native, tls, how):
    """A protocol gets no more calls once it has paused, aborted or closed, though its buffer is
    small and more was decrypted."""

    class Enough(Buffered):
        def buffer_updated(self, size):
            super().buffer_updated(size)
            getattr(transport, how)()

    async def main():
        nonlocal transport
        async with pair(native, (tls.server, tls.client)) as both:
            transport = both.writer.transport
            first, protocol = transport.get_protocol(), Enough()
            transport.set_protocol(protocol)
            both.server_writer.write(bytes(10_000))
            await until(lambda: protocol.got)
            await asyncio.sleep(0.02)
            assert len(protocol.got) == 1000
            if how == "pause_reading":
                how_often = 0
                while len(protocol.got) < 10_000:
                    how_often += 1
                    transport.resume_reading()
                    await asyncio.sleep(0.001)
                assert how_often >= 9
            transport.abort()
            await until(lambda: protocol.ended)
            first.connection_lost(None)

    transport = None
    run(main)


def test_a_close_in_connection_made(run, native, tls, monkeypatch):
    """A callback that closes at once gets nothing that came with the end of the handshake, and its
    own bytes are sent."""
    heard = []

    def callback(reader, writer):
        writer.write(b"busy")
        writer.close()
        heard.append(reader)

    async def main():
        async with serving(
            native, callback, ssl=tls.contexts(ssl.TLSVersion.TLSv1_3)[0]
        ) as address:
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                peer = TlsPeer(sock, tls.client)
                await peer.handshake_but_the_last()
                peer.tls.write(b"early")
                await loop.sock_sendall(sock, peer.outgoing.read())
                assert await peer.read(100) == b"busy"
                assert await peer.read(100) == b""
        assert await heard[0].read() == b""

    run(main)


def test_connection_lost_that_raises(run, native, tls):
    """start_tls() ends, and says why, where the protocol's connection_lost() raises."""
    run.expect_errors()

    async def main():
        async with client(native) as (_, writer, sock):
            protocol = writer.transport.get_protocol()
            upgrading = asyncio.create_task(writer.start_tls(tls.client, server_hostname=HOST))
            await turns(3)

            class Raising(Plain):
                def connection_lost(self, error):
                    protocol.connection_lost(error)
                    raise RuntimeError

            writer.transport.set_protocol(Raising())
            reset(sock)
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await upgrading

    run(main)


def test_start_tls_after_the_end(run, native, tls):
    """start_tls() fails at once where the peer has ended the connection."""

    async def main():
        async with client(native) as (reader, writer, sock):
            sock.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await writer.start_tls(tls.client, server_hostname=HOST)

    run(main)


def test_a_mangled_record_behind_a_pause(run, native, tls):
    """A bad record that waits for a paused reader when the connection is reset does not keep the
    loop busy; what came before is read."""

    async def main():
        async with secured(native, (tls.server, tls.client), limit=20_000) as (
            reader,
            writer,
            peer,
        ):
            for _ in range(4):
                peer.tls.write(bytes(16_000))
            records = bytearray(peer.outgoing.read())
            records[-1] ^= 1
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer.sock, records)
            await until(lambda: reader._paused)
            reset(peer.sock)
            began = loop.time()
            await until(lambda: reader.exception() is not None)
            assert loop.time() - began < 2
            assert await reader.readexactly(48_000) == bytes(48_000)
            with pytest.raises(ssl.SSLError, match=r"(?i)mac|decryption|record layer"):
                await reader.read(1)

    run(main)


@versions
@pytest.mark.parametrize("how", ["open_connection", "start_tls"])
@pytest.mark.parametrize("failure", ["EPIPE", "ECONNRESET"])
def test_the_alert_behind_a_failed_send(run, native, tls, version, how, failure):
    """A write that fails for a peer that sent an alert first: what came before is read, then the
    alert is the error."""

    async def main():
        contexts = tls.contexts(version)
        async with contextlib.AsyncExitStack() as stack:
            if how == "start_tls":
                reader, writer, sock = await stack.enter_async_context(client(native))
                starting = asyncio.ensure_future(
                    writer.start_tls(contexts[1], server_hostname=HOST)
                )
                peer = TlsPeer(sock, contexts[0])
                await peer.handshake()
                await starting
            else:
                reader, writer, peer = await stack.enter_async_context(secured(native, contexts))
            await peer.write(b"ready")
            assert await reader.readexactly(5) == b"ready"
            # Nothing runs but this, so that the write meets the loss before the loop does.
            peer.tls.write(b"before")
            data = peer.outgoing.read() + alert(peer)
            peer.sock.sendall(data)
            if failure == "EPIPE":
                peer.sock.close()
                writer.write(b"answered by a reset")
                take_error(writer.transport)
            else:
                reset(peer.sock)
            writer.write(b"lost")
            assert await reader.readexactly(6) == b"before"
            for _ in range(2):
                with pytest.raises(ssl.SSLError, match="(?i)alert"):
                    await reader.read()
            for call in writer.drain, writer.wait_closed:
                with pytest.raises(ssl.SSLError, match="(?i)alert"):
                    await call()

    run(main)


def alert(peer):
    """Return the alert of *peer* for something that is no record."""
    peer.incoming.write(bytes(5))
    with pytest.raises(ssl.SSLError):
        peer.tls.do_handshake()
        peer.tls.read(1)
    return peer.outgoing.read()


def take_error(transport):
    """Take the error of the socket from the system, so that the next send says EPIPE."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (
            errno.ECONNRESET,
            errno.EPIPE,
        )


@versions
def test_the_alert_behind_a_failed_handshake(run, native, tls, version):
    """The same where the last message of the handshake cannot be sent."""

    async def main():
        contexts = tls.contexts(version)
        async with client(native) as (reader, writer, sock):
            peer = TlsPeer(sock, contexts[0])
            starting = asyncio.ensure_future(writer.start_tls(contexts[1], server_hostname=HOST))
            loop = asyncio.get_running_loop()
            peer.incoming.write(await loop.sock_recv(sock, 65536))
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            flight = peer.outgoing.read()
            sock.sendall(flight + alert(peer))
            reset(sock)
            with pytest.raises(ssl.SSLError, match="(?i)alert"):
                await starting

    run(main)


@pytest.mark.parametrize("call", ["close_clients", "abort_clients"])
def test_served_and_refused(run, native, tls, call):
    """A server that is closed with a handshake going on ends it, and itself; that is no failure."""

    async def main():
        server = await native.start_server(echo, LOOPBACK, 0, ssl=tls.server)
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            await asyncio.sleep(0.01)
            server.close()
            getattr(server, call)()
            async with asyncio.timeout(5):
                await server.wait_closed()
                assert await receive(sock) == b""
            assert server.handshake_failures == 0

    run(main)
