"""What asyncio's start_tls() gets wrong, and ours does not. `defects.md` has one row for each."""

import asyncio
import ssl

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import client, pair, patience, receive, served, until

PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"


@pytest.mark.defect("gh-142352")
@pytest.mark.parametrize("late", [0, 1, 100], ids=["whole", "last_byte_later", "half_later"])
@pytest.mark.parametrize("header", [PROXY, b"STARTTLS\r\n"], ids=["proxy", "starttls"])
def test_hello_that_came_with_the_request(run, streams, tls, header, late):
    """A ClientHello received together with what precedes it, whole or in part, goes into the
    server's handshake."""

    async def main():
        async with served(streams) as (reader, writer, sock):
            peer = TlsPeer(sock, tls.client)
            hello = peer.hello()
            cut = len(hello) - late
            sock.send(header + hello[:cut])
            assert await reader.readuntil(b"\r\n") == header
            await until(lambda: len(reader._buffer) == cut)
            async with asyncio.timeout(patience(streams)):
                upgrading = asyncio.ensure_future(writer.start_tls(tls.server))
                await asyncio.sleep(0.002)
                sock.send(hello[cut:])
                await asyncio.gather(peer.handshake(), upgrading)
            await peer.write(b"inside\n")
            assert await reader.readline() == b"inside\n"
            writer.write(b"answer")
            assert await peer.read(100) == b"answer"

    run(main)


@pytest.mark.defect("gh-118642")
def test_no_injection_into_a_client(run, streams, tls):
    """A client that holds plain bytes refuses to upgrade: an ssl.SSLError that says how many, and
    the connection is closed."""

    async def main():
        async with client(streams) as (reader, writer, sock):
            sock.send(b"220 go ahead\r\n250 INJECTED\r\n")
            assert await reader.readline() == b"220 go ahead\r\n"
            await until(lambda: len(reader._buffer) == 14)
            with pytest.raises(ssl.SSLError, match="14 bytes arrived in plain text") as caught:
                async with asyncio.timeout(patience(streams)):
                    await writer.start_tls(tls.client, server_hostname=HOST)
            assert type(caught.value).__name__ == "UpgradeError"
            assert caught.value.plaintext_bytes == 14
            assert writer.is_closing()
            assert await reader.read() == b""
            assert await receive(sock) == b""

    run(main)


@pytest.mark.defect("gh-118642")
def test_no_injection_into_a_server(run, streams, tls):
    """Plain bytes left on a server are read as TLS, which they are not: the handshake fails, and
    nothing of them is ever read."""
    run.expect_errors()

    async def main():
        async with served(streams) as (reader, writer, sock):
            sock.send(b"STARTTLS\r\nMAIL FROM:<injected@evil>\r\n")
            assert await reader.readline() == b"STARTTLS\r\n"
            await until(lambda: reader._buffer)
            with pytest.raises((ssl.SSLError, OSError)):
                async with asyncio.timeout(patience(streams)):
                    await writer.start_tls(tls.server)
            assert writer.is_closing()
            with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)

    run(main)


async def upgraded(writer, sock, tls):
    """Upgrade a client's *writer*; return the peer."""
    peer = TlsPeer(sock, tls.server)
    await asyncio.gather(peer.handshake(), writer.start_tls(tls.client, server_hostname=HOST))
    return peer


@pytest.mark.defect("gh-152431")
def test_reader_follows_its_transport(run, streams, tls):
    """After start_tls the reader pauses and resumes the TLS transport, and everything arrives."""

    async def main():
        async with client(streams, limit=1000) as (reader, writer, sock):
            peer = await upgraded(writer, sock, tls)
            assert reader._transport is writer.transport
            await peer.write(bytes(16000))
            await until(lambda: reader._paused)
            assert not writer.transport.is_reading()
            assert await reader.readexactly(16000) == bytes(16000)
            assert writer.transport.is_reading()

    run(main, patience(streams) * 2)


def test_writes_around_a_handshake(run, streams, tls):
    """What is written before start_tls leaves in plain text before it, what is written after goes
    through TLS."""

    async def main():
        async with client(streams) as (_, writer, sock):
            writer.write(b"plain" * 10000)
            upgrading = asyncio.ensure_future(writer.start_tls(tls.client, server_hostname=HOST))
            assert await receive(sock, 50000, exact=True) == b"plain" * 10000
            peer = TlsPeer(sock, tls.server)
            await peer.handshake()
            await upgrading
            writer.write(b"secret")
            assert await peer.read(100) == b"secret"

    run(main)


@pytest.mark.defect("writes during start_tls leave in plain text")
def test_writes_during_a_handshake(run, streams, tls):
    """What another task writes while the handshake goes on is kept, and sent through TLS after
    it."""

    async def main():
        async with client(streams) as (_, writer, sock):
            upgrading = asyncio.ensure_future(writer.start_tls(tls.client, server_hostname=HOST))
            await asyncio.sleep(0.005)
            writer.write(b"early ")
            writer.writelines([b"bird"])
            peer = TlsPeer(sock, tls.server)
            async with asyncio.timeout(patience(streams)):
                await peer.handshake()
                await upgrading
                writer.write(b"!")
                got = b""
                while len(got) < 11:
                    got += await peer.read(100)
                assert got == b"early bird!"

    run(main)


@pytest.mark.defect("gh-109051")
def test_start_tls_while_writing_is_paused(run, streams, tls):
    """start_tls() with a full queue waits until it is sent, then upgrades, and drain() works on."""

    async def main():
        async with client(streams) as (_, writer, sock):
            writer.write(bytes(12 << 20))
            assert writer._protocol._paused
            upgrading = asyncio.ensure_future(writer.start_tls(tls.client, server_hostname=HOST))
            assert await receive(sock, 12 << 20, exact=True) == bytes(12 << 20)
            peer = TlsPeer(sock, tls.server)
            await asyncio.gather(peer.handshake(), upgrading)
            writer.write(b"x")
            await writer.drain()
            assert await peer.read(9) == b"x"

    run(main)


@pytest.mark.defect("a failed handshake leaves wait_closed() waiting")
def test_a_failed_handshake_closes(run, streams, tls):
    """A certificate that is not trusted: start_tls raises, the connection is closed, and nothing is
    left open."""

    async def main():
        async with client(streams) as (_, writer, sock):
            peer = TlsPeer(sock, tls.server)
            answered = asyncio.ensure_future(peer.handshake())
            with pytest.raises(ssl.SSLCertVerificationError):
                await writer.start_tls(tls.stranger, server_hostname=HOST)
            assert writer.is_closing()
            writer.write(b"dropped")
            await asyncio.gather(answered, return_exceptions=True)

    run(main)


@pytest.mark.defect("a failed handshake leaves wait_closed() waiting")
def test_a_peer_that_does_not_speak_tls(run, streams, tls):
    """An answer that is not TLS ends start_tls with ssl.SSLError and closes the connection."""

    async def main():
        async with client(streams) as (_, writer, sock):
            upgrading = asyncio.ensure_future(writer.start_tls(tls.client, server_hostname=HOST))
            await asyncio.sleep(0.002)
            sock.send(b"454 TLS not available\r\n")
            with pytest.raises(ssl.SSLError):
                await upgrading
            assert writer.is_closing()

    run(main)


@pytest.mark.parametrize("way", ["cancelled", "timed out", "peer left"])
@pytest.mark.defect("a cancelled start_tls leaves the transport open")
def test_an_interrupted_handshake_closes(run, streams, tls, way):
    """A handshake that is cancelled, times out or loses its peer raises, closes the connection and
    sends nothing more."""

    async def main():
        async with client(streams) as (_, writer, sock):
            timeout = 0.01 if way == "timed out" else None
            upgrading = asyncio.ensure_future(
                writer.start_tls(tls.client, server_hostname=HOST, ssl_handshake_timeout=timeout)
            )
            await asyncio.sleep(0.005)
            writer.write(b"never in plain text")
            if way == "cancelled":
                upgrading.cancel()
            elif way == "peer left":
                sock.close()
            with pytest.raises((asyncio.CancelledError, OSError)):
                await upgrading
            assert writer.is_closing()
            if way != "peer left":
                async with asyncio.timeout(patience(streams)):
                    assert b"plain" not in await receive(sock)

    run(main)


def test_start_tls_without_a_name(run, ours, tls):
    """A client whose context checks names needs server_hostname: ValueError, and the stream goes
    on."""

    async def main():
        async with client(ours) as (_, writer, sock):
            with pytest.raises(ValueError, match="server_hostname"):
                await writer.start_tls(tls.client)
            assert not writer.is_closing()
            peer = await upgraded(writer, sock, tls)
            writer.write(b"fine")
            assert await peer.read(9) == b"fine"

    run(main)


@pytest.mark.defect(
    "start_tls() succeeds on a connection that was closed meanwhile, and wait_closed() hangs on "
    "uvloop"
)
@pytest.mark.parametrize("how", ["close", "abort"])
def test_closed_by_another_task_during_the_handshake(run, streams, tls, how):
    """start_tls() on a connection that another task closes meanwhile raises or succeeds, and what
    waits for the end comes to it."""

    async def main():
        for count in range(1, 10):
            async with pair(streams) as both:
                upgrades = asyncio.gather(
                    both.writer.start_tls(tls.client, server_hostname="localhost"),
                    both.server_writer.start_tls(tls.server),
                    return_exceptions=True,
                )
                for _ in range(count):
                    await asyncio.sleep(0)
                if how == "close":
                    both.server_writer.close()
                else:
                    both.server_writer.transport.abort()
                await asyncio.wait_for(upgrades, 5)

    errors = run.expect_errors()
    run(main)
    assert [
        context for context in errors if not isinstance(context.get("exception"), OSError)
    ] == []
