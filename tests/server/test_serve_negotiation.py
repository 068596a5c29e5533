"""What comes before a handler of serve(): the PROXY header, TLS, both; how each fails, and what the
server says of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator

import pytest
import trustme
from support.certificates import TlsPeer
from support.connections import LOOPBACK, receive, reset, until

import headrace
from headrace._server.certificates import Certificates

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
CLIENT, SERVER = ("192.0.2.1", 56324), ("198.51.100.7", 443)
CLIENT6, SERVER6 = ("2001:db8::1", 1, 0, 0), ("2001:db8::2", 2, 0, 0)
TRUSTED = ["127.0.0.0/8"]
HANDSHAKE_S = 0.1


def v2(kind, rest, command=0x21):
    return SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(rest)) + rest


def v1_of(host):
    return f"PROXY TCP{6 if ':' in host else 4} {host} {host} 1 2\r\n".encode()


V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = v2(
    0x11,
    socket.inet_aton(CLIENT[0])
    + socket.inet_aton(SERVER[0])
    + struct.pack("!HH", CLIENT[1], SERVER[1]),
)
V1_6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"
HEADERS = {
    "v1": (V1, CLIENT, SERVER),
    "v2": (V2, CLIENT, SERVER),
    "v1-ipv6": (V1_6, CLIENT6, SERVER6),
}
# The proxy speaks for itself, or does not say for whom.
NOBODY = {
    "unknown": b"PROXY UNKNOWN\r\n",
    "local": v2(0, b"", 0x20),
    "local-skipped": v2(0x11, bytes(30), 0x20),
    "unspec": v2(0, b""),
}


async def tell(reader, writer):
    """Say who the client is, and send back each line."""
    connection = headrace.current_connection()
    assert connection.peername == writer.get_extra_info("peername")
    assert connection.proxy is writer.get_extra_info("proxy")
    writer.write(
        f"{writer.get_extra_info('peername')} {writer.get_extra_info('sockname')}\n".encode()
    )
    while line := await reader.readline():
        writer.write(line)


def named(peername, sockname):
    return f"{peername} {sockname}\n".encode()


def serve(handler=tell, **options):
    return headrace.serve(handler, LOOPBACK, 0, **options)


@contextlib.asynccontextmanager
async def dialled(server) -> AsyncIterator[socket.socket]:
    """A plain socket that is connected to *server*."""
    with socket.create_connection(server.sockets[0].getsockname()) as sock:
        sock.setblocking(False)
        yield sock


async def line_of(read, size):
    """Return what read() brings until there are *size* bytes, or the end."""
    data = b""
    while len(data) < size and (part := await read(size - len(data))):
        data += part
    return data


async def failed(server):
    """Wait until a negotiation has failed and its connection is gone; return how many did for which
    cause."""
    await until(lambda: server.statistics().failed and not server.connections)
    assert (server.statistics().negotiating, server.statistics().handled) == (0, 0)
    return server.statistics().failed


# ---- the PROXY header


@pytest.mark.parametrize("header", HEADERS)
def test_header(run, ours, header):
    """The header says who the client is, in every place that shows it; only the bytes behind it
    reach the handler and are counted."""
    data, client, server_name = HEADERS[header]

    async def main():
        async with serve(proxies=TRUSTED) as server:
            async with dialled(server) as sock:
                sock.send(data + b"line\n")
                expected = named(client, server_name) + b"line\n"
                assert await receive(sock, len(expected)) == expected
                (connection,) = server.connections
                assert (connection.proxy.source, connection.proxy.destination) == (
                    client,
                    server_name,
                )
                assert (server.statistics().received_bytes, server.statistics().negotiating) == (
                    5,
                    0,
                )
            await until(lambda: not server.connections)
            assert (server.statistics().received_bytes, server.statistics().failed) == (5, {})

    run(main)


@pytest.mark.parametrize("header", HEADERS)
def test_header_before_tls(run, ours, tls, header):
    """The header and the ClientHello may come in one segment, or in many; the handler sees the
    client, in TLS."""
    data, client, server_name = HEADERS[header]

    async def main():
        async with serve(proxies=TRUSTED, ssl=tls.server) as server:
            for size in (len(data) + 9999, len(data) // 2, len(data)):
                async with dialled(server) as sock:
                    peer = TlsPeer(sock, tls.client)
                    both = data + peer.hello()
                    for part in both[:size], both[size:]:
                        sock.send(part)
                        await asyncio.sleep(0.005)
                    await peer.handshake()
                    await peer.write(b"line\n")
                    expected = named(client, server_name) + b"line\n"
                    assert await line_of(peer.read, len(expected)) == expected
            assert server.statistics().failed == {}

    run(main)


@pytest.mark.parametrize("header", [*HEADERS, *NOBODY])
def test_header_byte_by_byte(run, ours, header):
    """A header that comes a byte at a time is one."""
    data = NOBODY[header] if header in NOBODY else HEADERS[header][0]

    async def main():
        async with serve(proxies=TRUSTED) as server, dialled(server) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, byte in enumerate(data, 1):
                sock.send(bytes([byte]))
                await until(lambda number=number: number == len(data) or server.connections)
                await asyncio.sleep(0)
            expected = (
                named(sock.getsockname(), sock.getpeername())
                if header in NOBODY
                else named(*HEADERS[header][1:])
            )
            assert await receive(sock, len(expected)) == expected

    run(main)


@pytest.mark.parametrize("header", NOBODY)
def test_header_of_nobody(run, ours, header):
    """LOCAL, UNKNOWN and UNSPEC leave the addresses as they are; the header itself is told."""

    async def main():
        async with serve(proxies=TRUSTED) as server, dialled(server) as sock:
            sock.send(NOBODY[header] + b"line\n")
            expected = named(sock.getsockname(), sock.getpeername()) + b"line\n"
            assert await receive(sock, len(expected)) == expected
            (connection,) = server.connections
            assert (connection.proxy.source, connection.proxy.local) == (
                None,
                header.startswith("local"),
            )

    run(main)


@pytest.mark.parametrize("header", HEADERS)
def test_header_from_elsewhere(run, ours, header):
    """A header from outside the trusted networks is data like any other, and changes nothing."""

    async def main():
        async with (
            serve(proxies=["192.0.2.0/24", "::/0", "unix"]) as server,
            dialled(server) as sock,
        ):
            sock.send(HEADERS[header][0] + b"\n")
            expected = named(sock.getsockname(), sock.getpeername()) + HEADERS[header][0] + b"\n"
            assert await receive(sock, len(expected)) == expected
            (connection,) = server.connections
            assert (connection.proxy, connection.peername) == (None, sock.getsockname())

    run(main)


def test_header_at_a_unix_socket(run, ours, tmp_path):
    """The proxy at a Unix socket is trusted by the name "unix"."""

    async def main():
        async with headrace.serve(tell, path=tmp_path / "socket", proxies=["unix"]):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "socket"))
                sock.setblocking(False)
                sock.send(V1)
                assert await receive(sock, len(named(CLIENT, SERVER))) == named(CLIENT, SERVER)

    run(main)


NO_HEADERS = {
    "missing": b"GET / HTTP/1.1\r\n\r\n",
    "short": b"QUIT\n",
    "address": b"PROXY TCP4 192.0.2.1 nowhere 1 2\r\n",
    "not-a-line": b"PROXY TCP4 192.0.2.1\n192.0.2.1 1 2\n",
    "too-long": b"PROXY UNKNOWN " + b"x" * 200,
    "too-long-v2": v2(0x11, bytes(5000)),
    "datagram": v2(0x12, bytes(12)),
    "version": SIGNATURE + b"\x31",
    "length": v2(0x11, b"short"),
}


@pytest.mark.parametrize("data", NO_HEADERS)
def test_no_header(run, ours, data):
    """What is no header ends its connection as soon as that is clear, without a wait for more; it
    is counted, and no handler starts."""

    async def main():
        async with (
            serve(proxies=TRUSTED, refusal=b"refused", handshake_timeout=5) as server,
            dialled(server) as sock,
        ):
            sock.send(NO_HEADERS[data])
            async with asyncio.timeout(1):
                with contextlib.suppress(ConnectionError):
                    assert await receive(sock) == b""
                assert await failed(server) == {"proxy": 1}

    run(main)


@pytest.mark.parametrize(
    "data", [b"", V1[:-1], V2[:5], V2[:-1]], ids=["nothing", "v1", "signature", "v2"]
)
@pytest.mark.parametrize("cause", ["timeout", "closed"])
def test_half_a_header(run, ours, data, cause):
    """An incomplete header is waited for as long as a handshake, or until the proxy leaves."""

    async def main():
        async with (
            serve(proxies=TRUSTED, handshake_timeout=HANDSHAKE_S) as server,
            dialled(server) as sock,
        ):
            sock.send(data)
            await until(lambda: server.statistics().negotiating == 1)
            if cause == "closed":
                sock.shutdown(socket.SHUT_WR)
            assert await failed(server) == {cause: 1}
            with contextlib.suppress(ConnectionError):
                assert await receive(sock) == b""

    run(main)


def test_header_is_not_counted(run, ours):
    """The bytes of a header are at no time among those received: not while it comes, not when it
    fails."""

    async def main():
        async with serve(proxies=TRUSTED) as server, dialled(server) as sock:
            sock.send(V1[:20])
            await until(
                lambda: server.statistics().buffered_bytes or server.statistics().negotiating
            )
            await asyncio.sleep(0.02)
            assert server.statistics().received_bytes == 0
            sock.send(b"x" + V1[20:])
            assert await failed(server) == {"proxy": 1}
            assert server.statistics().received_bytes == 0

    run(main)


def test_peers_behind_a_proxy(run, ours):
    """max_connections_per_peer counts the client that the proxy names, by its /64; the proxy itself
    is not bounded by its checks."""

    async def main():
        async with (
            serve(proxies=TRUSTED, max_connections_per_peer=1, refusal=b"enough\n") as server,
            contextlib.AsyncExitStack() as stack,
        ):

            async def first_byte(header):
                sock = await stack.enter_async_context(dialled(server))
                sock.send(header)
                return await receive(sock, 1, exact=True)

            for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"):
                assert await first_byte(v1_of(host)) == b"("
            for _ in range(3):
                assert await first_byte(NOBODY["local"]) == b"("
            for host in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::2"):
                assert await first_byte(v1_of(host)) == b"e"
            assert server.statistics().refused == {"peer": 3}

    run(main)


# ---- TLS


def test_handler_in_tls(run, ours, tls):
    """The handler of a server with a context talks in TLS; the handshake's bytes are not counted as
    its own."""

    async def main():
        async with serve(ssl=tls.server) as server, dialled(server) as sock:
            peer = TlsPeer(sock, tls.client)
            await peer.handshake()
            await peer.write(b"line\n")
            expected = named(sock.getsockname(), sock.getpeername()) + b"line\n"
            assert await line_of(peer.read, len(expected)) == expected
            assert (server.statistics().received_bytes, server.statistics().sent_bytes) == (
                5,
                len(expected),
            )

    run(main)


def test_data_and_end_with_the_handshake(run, ours, tls, caplog):
    """A client may send all it has, and its goodbye, in one segment with the end of the handshake:
    its handler gets it."""
    got = []

    async def keep(reader, writer):
        got.append(await reader.read())

    async def main():
        async with serve(keep, ssl=tls.server) as server, dialled(server) as sock:
            peer = TlsPeer(sock, tls.client)
            await peer.handshake_but_the_last()
            peer.tls.write(b"all")
            with contextlib.suppress(ssl.SSLError):
                peer.tls.unwrap()
            sock.send(peer.outgoing.read())
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: got)

    run(main)
    assert got == [b"all"]
    assert [
        each.getMessage()
        for each in caplog.records
        if each.name == "asyncio" and each.levelname == "WARNING"
    ] == []


def write(issued, directory, name):
    """Write the certificate and its key into one file; return its path."""
    path = directory / name
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    return path


async def name_served(server, tls, name):
    """Return a connection in TLS that asked for *name*, and the certificate that it was shown."""
    reader, writer = await headrace.open_connection(
        *server.sockets[0].getsockname(), ssl=tls.client, server_hostname=name
    )
    return reader, writer, writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


def test_certificates(run, ours, tls, tmp_path):
    """Clients get the chain of the name they ask for; renew() serves new files to new connections,
    and leaves those that are there."""
    path = write(tls.authority.issue_cert("localhost"), tmp_path, "default")
    certificates = Certificates(path)
    certificates.add(
        "other.example", write(tls.authority.issue_cert("other.example"), tmp_path, "other")
    )

    async def main():
        async with serve(ssl=certificates) as server, contextlib.AsyncExitStack() as stack:

            async def connect(name):
                reader, writer, shown = await name_served(server, tls, name)
                stack.push_async_callback(writer.wait_closed)
                stack.callback(writer.close)
                await reader.readline()
                return reader, writer, shown

            reader, writer, before = await connect("localhost")
            other = (await connect("other.example"))[2]
            write(tls.authority.issue_cert("localhost"), tmp_path, "default")
            await server.renew()
            after = (await connect("localhost"))[2]
            assert len({before, other, after}) == 3
            assert (await connect("other.example"))[2] == other
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"

    run(main)


def tls12(ciphers):
    """Set a context to TLS 1.2 with *ciphers*."""

    def configure(context):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)

    return configure


FAILURES = {
    "cipher": (tls12("ECDHE-ECDSA-AES256-GCM-SHA384"), tls12("ECDHE-ECDSA-AES128-GCM-SHA256")),
    "version": (
        lambda context: setattr(context, "minimum_version", ssl.TLSVersion.TLSv1_3),
        tls12("DEFAULT"),
    ),
}


@pytest.mark.parametrize("cause", FAILURES)
def test_no_common_ground(run, ours, tls, cause):
    """Where the two have no cipher, or no version, in common, that is the cause that is counted."""
    server_context, client = tls.contexts()
    for context, configure in zip((server_context, client), FAILURES[cause], strict=True):
        configure(context)

    async def main():
        async with serve(ssl=server_context) as server, dialled(server) as sock:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await TlsPeer(sock, client).handshake()
            assert await failed(server) == {cause: 1}

    run(main)


@pytest.mark.parametrize("whose", ["none", "wrong", "server's"])
def test_certificates_that_do_not_do(run, ours, tls, whose):
    """A client without a certificate, or with one of a stranger, where one is wanted; and a client
    that does not trust the server's."""
    server_context, client = tls.contexts()
    if whose == "server's":
        client = tls.stranger
    else:
        server_context.verify_mode = ssl.CERT_REQUIRED
        tls.authority.configure_trust(server_context)
    if whose == "wrong":
        trustme.CA().issue_cert("stranger").configure_cert(client)

    async def main():
        async with serve(ssl=server_context) as server, dialled(server) as sock:
            peer = TlsPeer(sock, client)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await peer.handshake()
                await peer.read(1)
            # The alert that tells the server what the client thinks of it.
            sock.send(peer.outgoing.read())
            assert await failed(server) == {"certificate": 1}

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-client\r\n",
        V1,
        bytes(64),
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
)
def test_not_tls(run, ours, tls, data):
    """A client that speaks something else than TLS is closed at once, whatever it speaks; no
    refusal is sent to it in plain text."""

    async def main():
        async with serve(ssl=tls.server, refusal=b"refused") as server, dialled(server) as sock:
            sock.send(data)
            assert await failed(server) == {"not TLS": 1}
            with contextlib.suppress(ConnectionError):
                assert b"refused" not in await receive(sock)

    run(main)


@pytest.mark.parametrize("share", [0, 40, 9999], ids=["nothing", "half", "hello"])
@pytest.mark.parametrize("cause", ["timeout", "closed", "reset"])
def test_handshake_that_stops(run, ours, tls, share, cause):
    """A client that stops in its handshake is waited for until the timeout, or until it leaves, in
    whichever way."""

    async def main():
        async with (
            serve(ssl=tls.server, handshake_timeout=HANDSHAKE_S) as server,
            dialled(server) as sock,
        ):
            sock.send(TlsPeer(sock, tls.client).hello()[:share])
            await until(lambda: server.statistics().negotiating == 1)
            if share > 40:
                await receive(sock, 1)
            if cause == "closed":
                sock.close()
            elif cause == "reset":
                reset(sock)
            assert await failed(server) == {"timeout" if cause == "timeout" else "closed": 1}

    run(main)


def test_header_and_handshake_share_their_time(run, ours, tls):
    """The PROXY header and TLS have handshake_timeout together, not one after the other."""

    async def main():
        loop = asyncio.get_running_loop()
        async with (
            serve(proxies=TRUSTED, ssl=tls.server, handshake_timeout=2 * HANDSHAKE_S) as server,
            dialled(server) as sock,
        ):
            began = loop.time()
            await asyncio.sleep(1.5 * HANDSHAKE_S)
            sock.send(V1)
            assert await failed(server) == {"timeout": 1}
            assert loop.time() - began < 3.4 * HANDSHAKE_S

    run(main)


@pytest.mark.parametrize("proxied", [False, True])
def test_negotiation_at_shutdown(run, ours, tls, proxied):
    """A shutdown gives up clients still in the handshake when its grace is over; no handler starts,
    and it is no failure."""

    async def main():
        server = serve(ssl=tls.server, proxies=TRUSTED if proxied else ())
        async with server, dialled(server) as sock:
            await until(lambda: server.statistics().negotiating == 1)
            report = await server.shutdown(0.05)
            assert (report.finished, report.cancelled, report.aborted, report.stuck) == (0, 1, 0, 0)
            with contextlib.suppress(ConnectionError):
                assert await receive(sock) == b""
            statistics = server.statistics()
            assert (
                statistics.failed,
                statistics.handled,
                statistics.negotiating,
                statistics.open,
            ) == ({}, 0, 0, 0)

    run(main)


def test_handshake_that_ends_in_a_shutdown(run, ours, tls):
    """A client that finishes its handshake within the grace is served."""

    async def main():
        async with serve(ssl=tls.server) as server, dialled(server) as sock:
            await until(lambda: server.statistics().negotiating == 1)
            stopping = asyncio.create_task(server.shutdown(5))
            await server.draining.wait()
            peer = TlsPeer(sock, tls.client)
            await peer.handshake()
            expected = named(sock.getsockname(), sock.getpeername())
            assert await line_of(peer.read, len(expected)) == expected
            sock.shutdown(socket.SHUT_WR)
            assert (await stopping).finished == 1

    run(main)
