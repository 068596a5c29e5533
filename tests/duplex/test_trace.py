"""Trace: which hooks connect() and serve() call, in which order, with what; each end once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import ssl
import time
import warnings

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, reset, until
from support.serving import connected as connected_socket

import headrace

LONG = 30.0


class Noting(headrace.Trace):
    """Notes every call, and checks that it is always the same object that it is told of."""

    def __init__(self):
        self.calls = []
        self.traced = []

    def note(self, traced, *call):
        self.calls.append(call)
        if traced not in self.traced:
            self.traced.append(traced)

    def begins(self, traced):
        self.note(traced, "begins")

    def phase_begins(self, traced, phase):
        assert traced.phase == phase
        self.note(traced, phase)

    def connected(self, traced):
        assert traced.phase is None
        self.note(traced, "connected")

    def failed(self, traced, error):
        self.note(traced, "failed", error)

    def closed(self, traced, error):
        self.note(traced, "closed", error)

    @property
    def names(self):
        return [call[0] for call in self.calls]

    @property
    def one(self):
        """What it was told of, where that is one connection."""
        (traced,) = self.traced
        return traced

    @property
    def error(self):
        """What the last call was told."""
        return self.calls[-1][1]

    async def over(self, count=1):
        """Wait until so many connections are over, and for what should not come any more."""
        await until(lambda: sum(name in ("failed", "closed") for name in self.names) >= count)
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()


@contextlib.contextmanager
def listening():
    """A listener that accepts nothing by itself, and its port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(5)
        yield listener, listener.getsockname()[1]


@contextlib.asynccontextmanager
async def open_pair(trace, way, **options):
    """A traced stream over TCP, and the socket at its other end."""
    with listening() as (listener, port):
        stream = await headrace.connect(LOOPBACK, port, trace=trace, way=way, **options)
        peer, _ = listener.accept()
        peer.setblocking(False)
        with peer:
            yield stream, peer
            stream.abort()


async def received(sock):
    """Return what comes to *sock*."""
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


# ---- clients


def test_a_client(run, way):
    """A client: each phase, then connected() with the addresses, then closed() with the counts."""
    trace = Noting()

    async def main():
        with listening() as (listener, port):
            before = time.time()
            stream = await headrace.connect(
                "localhost", port, family=socket.AF_INET, trace=trace, way=way
            )
            traced = trace.one
            assert trace.names == ["begins", "resolving", "connecting", "connected"]
            assert (traced.role, traced.host, traced.port) == ("client", "localhost", port)
            assert (traced.peername, traced.sockname) == (stream.peername, stream.sockname)
            assert traced.tls is None
            assert before <= traced.began <= time.time()
            assert list(traced.phases) == ["resolving", "connecting"]
            assert 0 <= sum(traced.phases.values()) <= traced.seconds
            with listener.accept()[0] as peer:
                peer.setblocking(False)
                peer.send(b"x" * 1000)
                assert await stream.readexactly(600) == b"x" * 600
                await stream.write(b"y" * 70)
                await until(lambda: stream.buffered == 400)
                assert (traced.bytes_received, traced.bytes_written) == (0, 0)
                await stream.aclose()
                assert trace.names[4:] == ["closed"]
                assert trace.error is None
                assert (traced.bytes_received, traced.bytes_written) == (1000, 70)
                lasted = traced.seconds
                await asyncio.sleep(0.01)
                assert traced.seconds == lasted

    run(main)
    assert trace.names.count("closed") == 1


def test_attributes_of_a_client(run, way, tls):
    """attributes() has OpenTelemetry's names for what is known, and nothing of what is not."""
    trace = Noting()

    async def main():
        async with headrace.serve(echo, LOOPBACK, 0, ssl=tls.server) as server:
            port = server.sockets[0].getsockname()[1]
            async with headrace.connect(
                HOST, port, family=socket.AF_INET, tls=tls.client, trace=trace, way=way
            ) as stream:
                cipher, own_port = stream.tls.cipher, stream.sockname[1]
            assert trace.one.attributes() == {
                "server.address": HOST,
                "server.port": port,
                "network.peer.address": LOOPBACK,
                "network.peer.port": port,
                "network.local.address": LOOPBACK,
                "network.local.port": own_port,
                "network.transport": "tcp",
                "network.type": "ipv4",
                "tls.established": True,
                "tls.protocol.name": "tls",
                "tls.protocol.version": "1.3",
                "tls.cipher": cipher,
                "tls.resumed": False,
            }

    run(main)


def test_attributes_before_there_are_addresses(run):
    """Before it is connected only what was asked for is there."""
    trace = Noting()
    seen = []
    trace.begins = lambda traced: seen.append(traced.attributes())

    async def resolver(host, port, **hints):
        raise OSError("no")

    async def main():
        with pytest.raises(OSError, match="no"):
            await headrace.connect("name.invalid", "80", resolver=resolver, trace=trace)

    run(main)
    assert seen == [{"server.address": "name.invalid", "server.port": 80}]


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_a_unix_socket(run, way, tmp_path, kind):
    """A Unix socket has a path, and no resolving; an abstract one is written with an @."""
    trace, at_server = Noting(), Noting()
    path = str(tmp_path / "s") if kind == "file" else f"\0{tmp_path}"
    shown = path if kind == "file" else f"@{tmp_path}"

    async def main():
        async with headrace.serve(echo, path=path, trace=at_server) as server:
            async with headrace.connect(path=path, trace=trace, way=way):
                pass
            await at_server.over()
            del server

    run(main)
    assert trace.names == ["begins", "connecting", "connected", "closed"]
    assert trace.one.host == shown
    found = trace.one.attributes()
    assert (found["network.transport"], found["network.peer.address"]) == ("unix", shown)
    assert found["server.address"] == shown
    assert "network.type" not in found and "network.peer.port" not in found
    found = at_server.one.attributes()
    assert found == {
        "network.transport": "unix",
        "network.local.address": shown,
        "server.address": shown,
    }


def test_over_a_socket(run, way, tls):
    """Over a socket that is there already only the handshake is a phase."""
    trace = Noting()

    async def main():
        ours, other = socket.socketpair()
        ours.setblocking(False)
        other.setblocking(False)
        peer = TlsPeer(other, tls.server)
        shaking = asyncio.ensure_future(peer.handshake())
        with other:
            async with headrace.connect(
                sock=ours, tls=tls.client, server_hostname=HOST, trace=trace, way=way
            ) as stream:
                assert trace.names == ["begins", "handshake", "connected"]
                assert trace.one.tls == stream.tls
                assert trace.one.tls.server_hostname == HOST
                await shaking
                other.close()
        await trace.over()

    run(main)
    assert trace.names[3:] == ["closed"]


@pytest.mark.parametrize("phase", ["resolving", "connecting", "handshake"])
@pytest.mark.parametrize("why", ["error", "timeout", "cancelled"])
def test_a_client_fails(run, way, tls, phase, why):
    """failed() gets what connect() raises, with the phase in which that was, and is the end."""
    trace = Noting()

    async def resolver(host, port, **hints):
        if phase == "resolving":
            await hangs_or_fails(why)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, port))]

    async def main():
        with contextlib.ExitStack() as stack:
            listener, port = stack.enter_context(listening())
            if phase == "connecting":
                port = stack.enter_context(refusing() if why == "error" else full())
            connecting = headrace.connect(
                HOST,
                port,
                resolver=resolver,
                tls=tls.stranger if phase == "handshake" else None,
                timeout=0.05 if why == "timeout" else LONG,
                trace=trace,
                way=way,
            )
            task = asyncio.ensure_future(connecting)
            await until(lambda: phase in trace.names)
            if phase == "handshake" and why == "error":
                listener.setblocking(False)
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                stack.enter_context(peer)
                with pytest.raises((ssl.SSLError, OSError)):
                    await TlsPeer(peer, tls.server).handshake()
            elif why == "cancelled":
                task.cancel()
            with pytest.raises(BaseException) as caught:
                await task
            await trace.over()
            if phase == "handshake" and why != "error":
                listener.accept()[0].close()
            expected = {"timeout": headrace.ConnectTimeout, "cancelled": asyncio.CancelledError}
            assert isinstance(caught.value, expected.get(why, OSError))
            assert trace.error is caught.value or why == "cancelled"
            assert type(trace.error) is type(caught.value)

    run(main)
    phases = ["resolving", "connecting", "handshake"]
    assert trace.names == ["begins", *phases[: phases.index(phase) + 1], "failed"]
    assert trace.one.phase == phase
    assert list(trace.one.phases) == trace.names[1:-1]


async def hangs_or_fails(why):
    if why == "error":
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    await asyncio.Event().wait()


@contextlib.contextmanager
def refusing():
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def full():
    """The port of a listener that is full: connecting to it takes for ever."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]


# How a connection of a client ends: what the test does, and what closed() is told.


async def end_by_aclose(stream, peer):
    await stream.aclose()


async def end_by_close(stream, peer):
    stream.close()


async def end_by_abort(stream, peer):
    stream.abort()


async def end_by_the_writer(stream, peer):
    stream.writer.close()
    await stream.writer.wait_closed()


async def end_by_the_transport(stream, peer):
    stream.writer.transport.abort()


async def end_by_a_reset(stream, peer):
    reset(peer)
    with pytest.raises(ConnectionResetError):
        await stream.read(1)


async def end_by_the_peer_first(stream, peer):
    peer.close()
    assert await stream.read(1) == b""
    await stream.aclose()


async def end_twice(stream, peer):
    stream.abort()
    stream.close()
    await stream.aclose()
    stream.abort()


async def end_by_a_failing_block(stream, peer):
    with contextlib.suppress(KeyError):
        async with stream:
            raise KeyError


ENDS = {
    end_by_aclose: type(None),
    end_by_close: type(None),
    end_by_abort: ConnectionAbortedError,
    end_by_the_writer: type(None),
    end_by_the_transport: type(None),
    end_by_a_reset: ConnectionResetError,
    end_by_the_peer_first: type(None),
    end_twice: ConnectionAbortedError,
    end_by_a_failing_block: ConnectionAbortedError,
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_each_end_of_a_client(run, way, end):
    """However a connection ends closed() is called once, with what broke it, and the counts."""
    trace = Noting()

    async def main():
        async with open_pair(trace, way) as (stream, peer):
            await stream.write(b"12345")
            assert await received(peer) == b"12345"
            peer.send(b"123")
            assert await stream.readexactly(3) == b"123"
            await end(stream, peer)
            await trace.over()
            assert trace.names[-2:] == ["connected", "closed"]
            assert type(trace.error) is ENDS[end]
            assert (trace.one.bytes_received, trace.one.bytes_written) == (3, 5)
        await trace.over()

    run(main)
    assert trace.names.count("closed") == 1


def test_a_stream_that_is_dropped(run, way):
    """A stream that nobody has any more, and nobody closed, is noticed although it is traced; then
    closed() is called."""
    trace = Noting()

    async def main():
        with listening() as (listener, port):
            stream = await headrace.connect(LOOPBACK, port, trace=trace, way=way)
            with listener.accept()[0]:
                await stream.write(b"12345")
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    del stream
                    gc.collect()
                assert "unclosed" in str(caught[0].message)
                await trace.over()

    run(main)
    assert trace.names[-1] == "closed"
    assert trace.error is None
    assert trace.one.bytes_written == 5


def test_it_is_lost_at_once(run, way):
    """A connection that its peer has reset before there is a stream is told of in full."""
    trace = Noting()

    async def main():
        with listening() as (listener, port):
            ours = socket.create_connection((LOOPBACK, port))
            ours.setblocking(False)
            reset(listener.accept()[0])
            with contextlib.suppress(OSError):
                stream = await headrace.connect(sock=ours, trace=trace, way=way)
                with contextlib.suppress(OSError):
                    await stream.read()
                stream.abort()
            await trace.over()

    run(main)
    assert trace.names in (["begins", "connected", "closed"], ["begins", "failed"])
    assert isinstance(trace.error, OSError)


def test_a_connection_that_is_lost_before_it_is_watched(run, way):
    """One that is lost between the making of its streams and their return: closed() comes at
    once."""
    trace = Noting()

    class Late(Noting):
        """Closes the connection when connected() is called, and has that done at once."""

        def connected(self, traced):
            super().connected(traced)
            frame_writer[0]._protocol.connection_lost(ConnectionResetError("gone"))

    trace = Late()
    frame_writer = []

    async def main():
        with listening() as (_, port):
            made = headrace.StreamWriter.get_extra_info

            def noting(writer, *given):
                frame_writer[:] = [writer]
                return made(writer, *given)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(headrace.StreamWriter, "get_extra_info", noting)
                stream = await headrace.connect(LOOPBACK, port, trace=trace, way=way)
            frame_writer.clear()
            assert trace.names[-2:] == ["connected", "closed"]
            assert isinstance(trace.error, ConnectionResetError)
            stream.writer.transport.abort()

    run(main)
    assert trace.names.count("closed") == 1


def test_an_upgrade_later(run, way, tls):
    """start_tls() on a traced stream disturbs nothing: closed() is called once, at the end."""
    trace = Noting()

    async def main():
        async with open_pair(trace, way) as (stream, sock):
            peer = TlsPeer(sock, tls.server)
            shaking = asyncio.ensure_future(peer.handshake())
            await stream.start_tls(tls.client, server_hostname=HOST)
            await shaking
            await peer.write(b"123")
            assert await stream.readexactly(3) == b"123"
            await stream.write(b"12345")
            assert trace.names[-1] == "connected"
            sock.close()
            await stream.aclose()
            await trace.over()

    run(main)
    assert trace.names.count("closed") == 1
    assert (trace.one.bytes_received, trace.one.bytes_written) == (3, 5)


def test_an_upgrade_that_fails(run, way, tls):
    """A handshake on a traced stream that fails is its end."""
    trace = Noting()

    async def main():
        async with open_pair(trace, way) as (stream, sock):
            shaking = asyncio.ensure_future(TlsPeer(sock, tls.server).handshake())
            with pytest.raises(ssl.SSLError):
                await stream.start_tls(tls.stranger, server_hostname=HOST)
            with pytest.raises(OSError):
                await shaking
            await trace.over()

    run(main)
    assert trace.names.count("closed") == 1


def test_descriptors(run):
    """A stream that passes descriptors is traced as any other."""
    trace = Noting()

    async def main():
        ours, peer = socket.socketpair()
        with peer:
            async with headrace.connect(sock=ours, max_fds=1, trace=trace) as stream:
                await stream.write(b"12345")

    run(main)
    assert trace.names == ["begins", "connected", "closed"]
    assert trace.one.bytes_written == 5


# ---- hooks that are wrong


class Failing(headrace.Trace):
    """Each of its methods raises."""

    def begins(self, traced):
        raise KeyError("begins")

    def phase_begins(self, traced, phase):
        raise asyncio.CancelledError("phase_begins")

    def connected(self, traced):
        raise KeyError("connected")

    def failed(self, traced, error):
        raise KeyError("failed")

    def closed(self, traced, error):
        raise asyncio.CancelledError("closed")


def test_hooks_that_raise(run, way):
    """What hooks raise is told to the loop's exception handler; the connection goes on, on both
    sides."""
    errors = run.expect_errors()

    async def main():
        async with headrace.serve(echo, LOOPBACK, 0, trace=Failing(), way=way) as server:
            port = server.sockets[0].getsockname()[1]
            async with headrace.connect(LOOPBACK, port, trace=Failing(), way=way) as stream:
                await stream.write(b"hello")
                assert await stream.read(10) == b"hello"
            await until(lambda: not server.connections)
        with refusing() as port, pytest.raises(ConnectionRefusedError):
            await headrace.connect(LOOPBACK, port, trace=Failing(), way=way)

    run(main)
    said = sorted(each["message"] for each in errors)
    expected = ["begins"] * 3 + ["closed"] * 2 + ["connected"] * 2 + ["failed"]
    expected += ["phase_begins"] * 4
    assert said == [f"Failing.{name}() failed" for name in expected]
    assert {str(each["exception"]) for each in errors} >= {"'begins'", "closed"}


def test_hooks_that_are_no_functions():
    """A hook that is a coroutine function is refused where its class is made."""
    with pytest.raises(TypeError, match=r"Waiting.closed\(\) is called, not awaited"):

        class Waiting(headrace.Trace):
            async def closed(self, traced, error):
                pass


@pytest.mark.parametrize("wrong", [headrace.Trace, object(), lambda *_: None])
def test_what_is_no_trace(wrong):
    """What is no Trace is refused at the call."""
    with pytest.raises(TypeError, match="trace must be"):
        headrace.connect(LOOPBACK, 1, trace=wrong)
    with pytest.raises(TypeError, match="trace must be"):
        headrace.serve(echo, LOOPBACK, 0, trace=wrong)


def test_a_trace_that_does_nothing(run, way):
    """Trace itself can be given: its methods do nothing."""

    async def main():
        trace = headrace.Trace()
        async with headrace.serve(echo, LOOPBACK, 0, trace=trace, way=way) as server:
            port = server.sockets[0].getsockname()[1]
            async with headrace.connect(LOOPBACK, port, trace=trace, way=way) as stream:
                await stream.write(b"hello")
                assert await stream.read(10) == b"hello"

    run(main)


# ---- servers


async def echo(stream):
    """A handler that sends back what comes."""
    while data := await stream.read(65536):
        await stream.write(data)


async def server_of(stack, trace, way, handler=echo, **options):
    """A traced server in *stack*."""
    server = headrace.serve(handler, LOOPBACK, 0, trace=trace, way=way, **options)
    return await stack.enter_async_context(server)


def test_a_server(run, way):
    """A server: begins() and connected() with both addresses, closed() with the counts."""
    trace = Noting()

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server = await server_of(stack, trace, way)
            peer = stack.enter_context(await connected_socket(server))
            peer.send(b"hello")
            assert await received(peer) == b"hello"
            traced = trace.one
            assert trace.names == ["begins", "connected"]
            assert (traced.role, traced.host, traced.port) == ("server", None, None)
            assert traced.peername == peer.getsockname()
            assert traced.sockname == peer.getpeername()
            peer.close()
            await trace.over()
            assert trace.names[2:] == ["closed"]
            assert trace.error is None
            assert (traced.bytes_received, traced.bytes_written) == (5, 5)
            found = traced.attributes()
            assert found["client.address"] == found["network.peer.address"] == LOOPBACK
            assert found["client.port"] == traced.peername[1]
            assert found["server.port"] == traced.sockname[1]

    run(main)
    assert len(trace.calls) == 3


def test_a_server_behind_a_proxy(run, way, tls):
    """Behind a proxy, over TLS: each phase, and the client's address once it is told."""
    trace = Noting()

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server = await server_of(stack, trace, way, ssl=tls.server, proxies=[LOOPBACK])
            sock = stack.enter_context(await connected_socket(server))
            await until(lambda: trace.names == ["begins", "proxy header"])
            assert trace.one.peername == sock.getsockname()
            sock.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n")
            await until(lambda: "handshake" in trace.names)
            peer = TlsPeer(sock, tls.client)
            await peer.handshake()
            await peer.write(b"hello")
            assert await peer.read(10) == b"hello"
            traced = trace.one
            assert trace.names == ["begins", "proxy header", "handshake", "connected"]
            assert traced.peername == ("192.0.2.1", 1000)
            assert traced.sockname == ("192.0.2.2", 443)
            assert traced.tls.version == "TLSv1.3"
            assert list(traced.phases) == ["proxy header", "handshake"]
            sock.close()
            await trace.over()
            assert (traced.bytes_received, traced.bytes_written) == (5, 5)

    run(main)
    assert trace.names.count("closed") == 1


@pytest.mark.parametrize("why", ["not TLS", "timeout", "closed", "too many", "proxy"])
def test_a_connection_that_a_server_turns_away(run, way, tls, why):
    """What comes to no handler has failed, once, and says why."""
    trace = Noting()
    expected = {
        "not TLS": (ssl.SSLError, "plain text"),
        "timeout": (TimeoutError, ""),
        "closed": (ConnectionError, ""),
        "too many": (ConnectionRefusedError, "too many connections: peer"),
        "proxy": (ValueError, ""),
    }
    kind, says = expected[why]

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            options = {"ssl": tls.server, "handshake_timeout": 0.05 if why == "timeout" else LONG}
            if why == "too many":
                options = {"max_connections_per_peer": 1}
            elif why == "proxy":
                options = {"proxies": [LOOPBACK]}
            server = await server_of(stack, trace, way, **options)
            if why == "too many":
                stack.enter_context(await connected_socket(server))
            peer = stack.enter_context(await connected_socket(server))
            if why in ("not TLS", "proxy"):
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
            elif why == "closed":
                await until(lambda: "handshake" in trace.names)
                peer.close()
            await trace.over()
            assert trace.calls[-1][0] == "failed"
            assert isinstance(trace.error, kind)
            assert says in str(trace.error)
            if why == "too many":
                assert "closed" not in trace.names

    run(main)
    assert trace.names.count("failed") == 1
    assert trace.names.count("connected") == trace.names.count("closed") == (why == "too many")


def test_a_proxy_that_only_looks(run, way):
    """A proxy's check whether the server is there is no failure, and no connection."""
    trace = Noting()

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server = await server_of(stack, trace, way, proxies=[LOOPBACK])
            with await connected_socket(server) as peer:
                peer.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
                peer.shutdown(socket.SHUT_WR)
                await trace.over()

    run(main)
    assert trace.calls == [("begins",), ("proxy header",), ("closed", None)]


@pytest.mark.parametrize("how", ["handler", "abort", "idle", "reset", "shutdown", "fails"])
def test_each_end_at_a_server(run, way, how):
    """However a connection of a server ends closed() is called once, with what ended it."""
    trace = Noting()
    expected = {
        "handler": (type(None), ""),
        "abort": (ConnectionAbortedError, "this side"),
        "idle": (ConnectionAbortedError, "the server has ended the connection"),
        "reset": (ConnectionResetError, ""),
        "shutdown": (ConnectionAbortedError, "the server has ended the connection"),
        "fails": (type(None), ""),
    }
    kind, says = expected[how]

    async def handler(stream):
        await stream.write(b"hi")
        if how == "abort":
            await stream.read(1)
            stream.abort()
        elif how == "fails":
            raise KeyError(how)
        elif how == "shutdown":
            # Who does not let itself be cancelled is cut off.
            while not stream.closing:
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await asyncio.sleep(0.01)
        elif how != "handler":
            with contextlib.suppress(OSError):
                await stream.read()

    async def main():
        server = headrace.serve(
            handler,
            LOOPBACK,
            0,
            trace=trace,
            way=way,
            idle_timeout=0.05 if how == "idle" else None,
        )
        await server.start()
        with await connected_socket(server) as peer:
            assert await received(peer) == b"hi"
            if how == "abort":
                peer.send(b"!")
            elif how == "reset":
                reset(peer)
            elif how == "shutdown":
                await server.shutdown(0)
            await trace.over()
            assert trace.names == ["begins", "connected", "closed"]
            assert isinstance(trace.error, kind)
            assert says in str(trace.error)
        await server.shutdown(0)

    run(main)
    assert trace.names == ["begins", "connected", "closed"]


def test_context_of_a_handler(run, way, tls):
    """What begins() and connected() set in the context, the handler sees, and no other connection;
    in ``span`` it reaches closed()."""
    variables = [contextvars.ContextVar("begins"), contextvars.ContextVar("connected")]
    seen, spans = [], []

    class Spans(headrace.Trace):
        count = 0

        def begins(self, traced):
            assert variables[0].get(None) is None
            self.count += 1
            traced.span = self.count
            variables[0].set(traced.span)

        def connected(self, traced):
            variables[1].set(traced.span)

        def closed(self, traced, error):
            spans.append(traced.span)

    async def handler(stream):
        seen.append([each.get(None) for each in variables])
        await stream.write(b"hi")

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            trace = Spans()
            servers = [
                await server_of(stack, trace, way, handler),
                await server_of(stack, trace, way, handler, ssl=tls.server),
            ]
            for server, context in zip(servers, (None, tls.client), strict=True):
                address = server.sockets[0].getsockname()
                async with headrace.connect(
                    *address, tls=context, server_hostname=HOST if context else None
                ) as stream:
                    assert await stream.read_all() == b"hi"
            await until(lambda: len(spans) == 2)
        assert variables[0].get(None) is None

    run(main)
    assert seen == [[1, 1], [2, 2]]
    assert sorted(spans) == [1, 2]
