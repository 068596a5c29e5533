"""What a stream knows of its connection: names, TLS, credentials, figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys

import pytest
from support.certificates import HOST
from support.connections import LOOPBACK, reset, until

import headrace
from headrace._duplex import facts

LONG = 30.0


@contextlib.asynccontextmanager
async def pair(way, family=socket.AF_INET, host=LOOPBACK):
    """A stream, and the socket at its other end."""
    with socket.create_server((host, 0), family=family) as listener:
        address = listener.getsockname()
        async with headrace.connect(*address[:2], way=way) as stream:
            with listener.accept()[0] as peer:
                peer.setblocking(False)
                yield stream, peer


async def received(sock, size):
    """Receive *size* bytes from *sock*."""
    data = b""
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(sock, size - len(data))
    return data


# ---- names


def test_names_over_tcp(run, way):
    """peername and sockname are those of the socket module."""

    async def main():
        async with pair(way) as (stream, peer):
            assert stream.peername == peer.getsockname()
            assert stream.sockname == peer.getpeername()
            assert stream.peername == stream.get_extra_info("peername")
            assert f"peername={stream.peername!r}" in repr(stream)

    run(main)


def test_names_over_ipv6(run, way):
    """An address of IPv6 has its four parts."""
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")

    async def main():
        async with pair(way, socket.AF_INET6, "::1") as (stream, peer):
            assert stream.peername == peer.getsockname()
            assert len(stream.peername) == len(stream.sockname) == 4

    run(main)


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_names_over_a_unix_socket(run, way, tmp_path):
    """A client of a Unix socket knows the path; its server's peer has no name."""
    path = str(tmp_path / "s")
    seen = []

    async def handler(stream):
        seen.append((stream.peername, stream.sockname))

    async def main():
        async with headrace.serve(handler, path=path, way=way):
            async with headrace.connect(path=path, way=way) as stream:
                assert stream.peername == path
                assert not stream.sockname
                assert await stream.read() == b""

    run(main)
    ((peername, sockname),) = seen
    assert not peername
    assert sockname == path


# ---- TLS


class Seen:
    """A handler that notes the TLSInfo of its side, before it answers and behind the end."""

    def __init__(self):
        self.infos = []
        self.last = []

    async def __call__(self, stream):
        self.infos.append(stream.tls)
        await stream.write(b"hello\n")
        await stream.read_all()
        self.last.append(stream.tls)


@contextlib.asynccontextmanager
async def over_tls(way, contexts, seen, **options):
    """A client's stream to a server with *seen* for its handler, which has said hello."""
    server_context, client_context = contexts
    async with headrace.serve(seen, LOOPBACK, 0, ssl=server_context, way=way) as server:
        port = server.sockets[0].getsockname()[1]
        async with headrace.connect(
            LOOPBACK, port, tls=client_context, server_hostname=HOST, way=way, **options
        ) as stream:
            assert await stream.readline() == b"hello\n"
            yield stream
        await until(lambda: not server.connections)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_each_field_of_tls(run, way, tls, version):
    """TLSInfo says, on either side, version, cipher, protocol, certificate, name."""
    contexts = tls.contexts(getattr(ssl.TLSVersion, version.replace(".", "_")))
    for context in contexts:
        context.set_alpn_protocols(["b", "a"])
    contexts[1].set_alpn_protocols(["x", "a"])
    der = ssl.PEM_cert_to_DER_cert(tls.certificate.cert_chain_pems[0].bytes().decode())
    seen = Seen()

    async def main():
        async with over_tls(way, contexts, seen) as stream:
            info = stream.tls
            session = stream.get_extra_info("ssl_object")
            assert isinstance(info, headrace.TLSInfo)
            assert info.version == version
            assert info.cipher == session.cipher()[0]
            assert info.alpn == "a"
            assert info.server_hostname == HOST
            assert info.peer_certificate["subjectAltName"] == (("DNS", HOST),)
            assert info.peer_certificate_der == der
            assert info.resumed is False
            assert info.close_notify is None
            assert repr(info) == f"TLSInfo({version}, {info.cipher}, alpn='a')"

    run(main)
    (info,) = seen.infos
    assert (info.version, info.alpn, info.server_hostname) == (version, "a", None)
    assert (info.peer_certificate, info.peer_certificate_der) == (None, None)


def test_a_client_that_shows_a_certificate(run, way, tls):
    """A server sees the certificate that it has verified."""
    server, client = tls.contexts()
    server.verify_mode = ssl.CERT_REQUIRED
    tls.authority.configure_trust(server)
    tls.authority.issue_cert("client.example").configure_cert(client)
    seen = Seen()

    async def main():
        async with over_tls(way, (server, client), seen):
            pass

    run(main)
    names = seen.infos[0].peer_certificate["subjectAltName"]
    assert names == (("DNS", "client.example"),)
    assert seen.infos[0].peer_certificate_der


def test_a_certificate_that_was_not_verified(run, way, tls):
    """A certificate that nobody verified is there as it came, and not decoded."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE

    async def main():
        async with over_tls(way, (tls.server, client), Seen()) as stream:
            assert stream.tls.peer_certificate is None
            assert stream.tls.peer_certificate_der
            assert stream.tls.alpn is None

    run(main)


def test_no_tls(run, way):
    """In plain text there is none; after start_tls() there is."""

    async def main():
        async with pair(way) as (stream, _):
            assert stream.tls is None

    run(main)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_resumed(run, tls, version):
    """A session that is given again is resumed, and both sides say so; only on the native way."""
    if headrace._transport.backend.native is None:
        pytest.skip("the pure-Python build has the portable way only")
    contexts = tls.contexts(getattr(ssl.TLSVersion, version.replace(".", "_")))
    first, again = Seen(), Seen()

    async def main():
        async with headrace.serve(handler, LOOPBACK, 0, ssl=contexts[0], way="native") as server:
            address = server.sockets[0].getsockname()
            given = {"tls": contexts[1], "server_hostname": HOST, "way": "native"}
            async with headrace.connect(*address, **given) as stream:
                assert await stream.readline() == b"hello\n"
                assert stream.tls.resumed is False
                session = stream.get_extra_info("ssl_object").session
            async with headrace.connect(*address, ssl_session=session, **given) as stream:
                assert await stream.readline() == b"hello\n"
                assert stream.tls.resumed is True
                assert stream.tls.version == version
            await until(lambda: not server.connections)

    handlers = [first, again]

    async def handler(stream):
        await handlers.pop(0)(stream)

    run(main)
    assert [first.infos[0].resumed, again.infos[0].resumed] == [False, True]


@pytest.mark.parametrize("ends", ["close_notify", "cut"])
def test_close_notify(run, tls, ends):
    """After the end close_notify tells a stream that was ended from one that was cut: on the native
    way."""
    if headrace._transport.backend.native is None:
        pytest.skip("the pure-Python build has the portable way only")
    seen = Seen()

    async def main():
        async with over_tls("native", (tls.server, tls.client), seen) as stream:
            if ends == "cut":
                # Only the socket is shut down.
                sock = socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno()))
                with sock:
                    sock.shutdown(socket.SHUT_WR)
                await until(lambda: seen.last)

    run(main)
    assert seen.last[0].close_notify is (ends == "close_notify")


# ---- who it is


def test_credentials(run, way, tmp_path):
    """Both ends of a Unix socket know who is at the other; None once it is closed, and over TCP."""
    path = str(tmp_path / "s")
    seen = []

    async def handler(stream):
        seen.append(stream.peer_credentials)
        await stream.read()

    async def main():
        async with headrace.serve(handler, path=path, way=way):
            async with headrace.connect(path=path, way=way) as stream:
                credentials = stream.peer_credentials
                assert isinstance(credentials, headrace.Credentials)
                assert credentials == (os.getpid(), os.getuid(), os.getgid())
                assert credentials.pid == os.getpid()
                await until(lambda: seen)
            assert stream.peer_credentials is None
        async with pair(way) as (stream, _):
            assert stream.peer_credentials is None

    run(main)
    assert seen == [(os.getpid(), os.getuid(), os.getgid())]


def test_credentials_of_another_process(run, way):
    """They are those of the process that connected, and not of this one."""
    program = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.recv(1)
"""
    seen = []

    async def handler(stream):
        seen.append(stream.peer_credentials.pid)

    async def main():
        path = f"\0headrace{os.urandom(8).hex()}"
        async with headrace.serve(handler, path=path, way=way):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program.replace("sys.argv[1]", repr(path))
            )
            assert await process.wait() == 0
            assert seen == [process.pid]

    asyncio.run(asyncio.wait_for(main(), LONG))
    del run


# ---- figures


def test_counts_are_exact(run, way):
    """statistics() counts bytes and calls, each as soon as it is true."""

    async def main():
        async with pair(way) as (stream, peer):
            assert stream.statistics()[:6] == (0, 0, 0, 0, 0, 0)
            await stream.write(b"12", b"345")
            stream.write_nowait(b"6")
            await stream.flush()
            figures = stream.statistics()
            assert (figures.bytes_written, figures.unsent, figures.writes) == (6, 0, 2)
            peer.send(b"line\nrest of it")
            assert await stream.readline() == b"line\n"
            assert await stream.peek(4) == b"rest"
            figures = stream.statistics()
            assert (figures.bytes_read, figures.buffered, figures.reads) == (5, 10, 2)
            assert await stream.skip(5) == 5
            stream.unread(b"unread")
            figures = stream.statistics()
            assert (figures.bytes_read, figures.buffered) == (4, 11)
            assert stream.read_nowait() == b"unreadof it"
            figures = stream.statistics()
            assert (figures.bytes_read, figures.buffered) == (15, 0)
            assert figures.bytes_read == stream.bytes_read
            assert await received(peer, 6) == b"123456"

    run(main)


def test_what_is_unsent(run, way):
    """What the system does not take is unsent, and falls as the peer takes it; what is gathered by
    corked() is unsent, too."""
    size = 8 << 20

    async def main():
        async with pair(way) as (stream, peer):
            with stream.corked():
                await stream.write(b"gathered")
                assert stream.statistics().unsent == 8
                assert stream.statistics().bytes_written == 8
            assert stream.statistics().unsent == 0
            stream.write_nowait(bytes(size))
            figures = stream.statistics()
            assert figures.bytes_written == size + 8
            assert 0 < figures.unsent <= size
            await received(peer, size + 8)
            await stream.flush()
            assert stream.statistics().unsent == 0

    run(main)


def test_refused_calls_count_no_bytes(run, way):
    """A read that times out, and a write that is refused, are calls without bytes."""

    async def main():
        async with pair(way) as (stream, peer):
            with pytest.raises(headrace.ReadTimeout):
                await stream.readexactly(5, timeout=0.01)
            with pytest.raises(TypeError):
                await stream.write("text")
            figures = stream.statistics()
            assert (figures.bytes_read, figures.bytes_written) == (0, 0)
            assert (figures.reads, figures.writes) == (1, 1)
            peer.send(b"12345")
            assert await stream.readexactly(5) == b"12345"
            assert stream.statistics().bytes_read == 5

    run(main)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
def test_tcp_info(run, way):
    """What the system says of a TCP connection is plausible, and follows its state."""

    async def main():
        async with pair(way) as (stream, peer):
            await stream.write(bytes(100_000))
            await received(peer, 100_000)
            await until(lambda: stream.statistics().tcp.unacknowledged == 0)
            tcp = stream.statistics().tcp
            assert isinstance(tcp, headrace.TCPInfo)
            assert tcp.state == "ESTABLISHED"
            assert 0 < tcp.rtt < 5
            assert 0 <= tcp.rttvar < 5
            assert tcp.unsent == 0
            # On a busy machine the system may take what is slow for lost.
            assert 0 <= tcp.lost <= tcp.retransmits < 100
            assert tcp.congestion_window >= 2
            assert 500 < tcp.mss <= 65536
            assert tcp.delivery_rate is None or tcp.delivery_rate > 0
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: stream.statistics().tcp.state == "CLOSE_WAIT")
            stream.abort()
            await until(lambda: stream.statistics().tcp is None)

    run(main)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
def test_tcp_info_of_a_peer_that_reads_nothing(run, way):
    """What is written and not taken shows as unsent in the system, beside what the stream has."""

    async def main():
        async with pair(way) as (stream, peer):
            stream.write_nowait(bytes(8 << 20))
            await until(lambda: stream.statistics().tcp.unsent > 0)
            figures = stream.statistics()
            assert figures.unsent + figures.tcp.unsent <= 8 << 20
            reset(peer)
            await until(lambda: stream.statistics().tcp is None)

    run(main)


def test_no_tcp_info(run, way):
    """A Unix socket has none, nor has a pair that has no socket."""

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            async with headrace.connect(sock=ours, way=way) as stream:
                assert stream.statistics().tcp is None

    run(main)


class Answers:
    """Stands in for a TCP socket, whose system says *data*."""

    family = socket.AF_INET

    def __init__(self, data):
        self.data = data

    def fileno(self):
        return 5

    def getsockopt(self, level, option, size):
        if self.data is None:
            raise OSError("no such option")
        return self.data[:size]


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")
def test_fields_of_tcp_info():
    """Each field is taken from its place in struct tcp_info, in its unit; what an older system does
    not have is None."""
    data = bytearray(232)
    data[0] = 8
    for at, value in {16: 1448, 24: 3, 32: 2, 68: 1500, 72: 250, 80: 10, 100: 7, 144: 99}.items():
        struct.pack_into("I", data, at, value)
    struct.pack_into("Q", data, 160, 10**10)
    expected = headrace.TCPInfo(
        state="CLOSE_WAIT",
        rtt=0.0015,
        rttvar=0.00025,
        retransmits=7,
        lost=2,
        unacknowledged=3,
        unsent=99,
        congestion_window=10,
        mss=1448,
        delivery_rate=10**10,
    )
    assert facts.tcp_of(Answers(bytes(data))) == expected
    older = facts.tcp_of(Answers(bytes(data[:104])))
    assert older == expected._replace(unsent=None, delivery_rate=None)
    assert facts.tcp_of(Answers(b"\x63")).state is None
    assert facts.tcp_of(Answers(None)) is None
