"""headrace.EventLoop: its connections have our transports, and all else is asyncio's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import open_descriptors
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, until

import headrace
from headrace._loop import seams
from headrace._transport import backend

NATIVE = backend.native is not None
native_only = pytest.mark.skipif(not NATIVE, reason="the transports are asyncio's here")
TIMEOUT_S = 20


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], Awaitable[Any]]], Any]]:
    """Run a coroutine on our loop; nothing is reported, and no descriptor left open."""
    errors: list[dict[str, Any]] = []
    before = open_descriptors()

    def on_our_loop(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            loop = asyncio.get_running_loop()
            assert type(loop) is headrace.EventLoop
            loop.set_exception_handler(lambda _, context: errors.append(context))
            return await asyncio.wait_for(main(), TIMEOUT_S)

        return headrace.run(bounded())

    yield on_our_loop
    gc.collect()
    assert open_descriptors() - before == set()
    assert errors == []


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        made.append(transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asking(asyncio.Protocol):
    """Collects what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


# The transports of Echo.
made: list[Any] = []


@pytest.fixture(autouse=True)
def _forget_transports() -> Iterator[None]:
    yield
    made.clear()


def is_ours(transport: Any) -> bool:
    return type(transport).__name__ == "ProtocolTransport"


async def answered(transport: Any, protocol: Asking, data: bytes = b"hello") -> None:
    """Send *data*, and wait until it has come back."""
    transport.write(data)
    await until(lambda: protocol.data == data)
    protocol.data = b""


async def ended(transport: Any, protocol: Asking) -> None:
    transport.close()
    assert await protocol.lost is None


@contextlib.asynccontextmanager
async def tcp(factory: Any = Echo, **options: Any) -> Any:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, LOOPBACK, 0, **options)
    try:
        yield server, server.sockets[0].getsockname()
    finally:
        server.close()
        await server.wait_closed()


# ---- what is overridden is used


@native_only
@pytest.mark.parametrize("kind", ["tcp", "unix", "tls", "unix tls", "accepted", "accepted tls"])
def test_every_connection_is_ours(run, tls, tmp_path, kind):
    """Each function of the loop that makes connections gives both ends transports of ours."""
    path = str(tmp_path / "socket")

    async def main():
        loop = asyncio.get_running_loop()
        server_tls = {"ssl": tls.server} if "tls" in kind else {}
        client_tls = {"ssl": tls.client, "server_hostname": HOST} if "tls" in kind else {}
        if "unix" in kind:
            server = await loop.create_unix_server(Echo, path, **server_tls)
            both = await loop.create_unix_connection(Asking, path, **client_tls)
        elif "accepted" in kind:
            listener = socket.create_server((LOOPBACK, 0))
            server = listener
            client = socket.create_connection(listener.getsockname())
            _, both = await asyncio.gather(
                loop.connect_accepted_socket(Echo, listener.accept()[0], **server_tls),
                loop.create_connection(Asking, sock=client, **client_tls),
            )
        else:
            server = await loop.create_server(Echo, LOOPBACK, 0, **server_tls)
            both = await loop.create_connection(
                Asking, *server.sockets[0].getsockname(), **client_tls
            )
        await until(lambda: made)
        for transport in (both[0], made[0]):
            assert is_ours(transport)
            assert isinstance(transport, asyncio.Transport)
            assert transport.can_write_eof() is not ("tls" in kind)
            assert (transport.get_extra_info("ssl_object") is None) is ("tls" not in kind)
        await answered(*both)
        await ended(*both)
        await until(lambda: made[0].is_closing())
        server.close()
        if "accepted" not in kind:
            await server.wait_closed()

    run(main)


def test_it_works_on_every_build(run, tls):
    """A server and a client talk, in plain text and over TLS, whoever makes the transports."""

    async def main():
        loop = asyncio.get_running_loop()
        for server, client in (
            ({}, {}),
            ({"ssl": tls.server}, {"ssl": tls.client, "server_hostname": HOST}),
        ):
            async with tcp(**server) as (_, address):
                both = await loop.create_connection(Asking, *address, **client)
                await answered(*both)
                await ended(*both)
        assert all(map(is_ours, made)) is NATIVE

    run(main)


@native_only
@pytest.mark.parametrize("where", ["debug", "HEADRACE_WAY", "socket class", "TLS of others"])
def test_whom_asyncio_serves(monkeypatch, tls, where):
    """In debug mode, where the environment asks for it, and for sockets with methods of their own,
    the transports are asyncio's."""

    class Own(socket.socket):
        def recv(self, *args):
            return super().recv(*args)

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (_, address):
            sock = Own(socket.AF_INET, socket.SOCK_STREAM)
            sock.connect(address)
            taken = {"sock": sock} if where == "socket class" else {}
            both = await loop.create_connection(Asking, *(() if taken else address), **taken)
            sock.close() if not taken else None
            assert is_ours(both[0]) is (where == "TLS of others")
            await answered(*both)
            await ended(*both)

    if where == "HEADRACE_WAY":
        monkeypatch.setenv(backend.VARIABLE, "portable")
    headrace.run(main(), debug=where == "debug")


# ---- start_tls


@native_only
def test_start_tls_stays_on_the_transport(run, tls):
    """start_tls() of both ends goes on over the same transports, whose TLS is ours."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (_, address):
            transport, protocol = await loop.create_connection(Asking, *address)
            await answered(transport, protocol)
            server, client = made[0], Asking()
            upgraded = await asyncio.gather(
                loop.start_tls(server, server.get_protocol(), tls.server, server_side=True),
                loop.start_tls(transport, client, tls.client, server_hostname=HOST),
            )
            assert upgraded == [server, transport]
            assert transport.get_protocol() is client
            assert transport.get_extra_info("cipher") and not transport.can_write_eof()
            assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            await answered(transport, client, bytes(1 << 20))
            await ended(transport, client)
            assert not protocol.lost.done()

    run(main)


@native_only
@pytest.mark.parametrize("names", ["asyncio", "headrace"])
def test_start_tls_behind_an_early_hello(run, tls, names):
    """A ClientHello that came with what it follows begins the handshake, on asyncio's streams and
    on headrace's over the loop's transport."""
    streams = {"asyncio": asyncio, "headrace": headrace}[names]
    way = {"way": "portable"} if names == "headrace" else {}

    async def main():
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        async def handler(reader, writer):
            assert is_ours(writer.transport)
            assert await reader.readline() == b"STARTTLS\n"
            await until(lambda: sent)
            await asyncio.sleep(0.01)
            await writer.start_tls(tls.server)
            writer.write(await reader.readexactly(5))
            writer.close()
            await writer.wait_closed()
            over.set_result(None)

        server = await streams.start_server(handler, LOOPBACK, 0, **way)
        sent = []
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            peer = TlsPeer(sock, tls.client)
            await loop.sock_sendall(sock, b"STARTTLS\n" + peer.hello())
            sent.append(True)
            await peer.handshake()
            await peer.write(b"words")
            assert await peer.read(5) == b"words"
        await over
        server.close()
        await server.wait_closed()

    run(main)


def test_start_tls_that_fails(run, tls):
    """A peer that is not trusted, a name that is missing, timeouts and contexts that are none: the
    errors of asyncio, and the connection is closed."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp(ssl=tls.server) as (_, address):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Asking, *address, ssl=tls.stranger, server_hostname=HOST
                )
        async with tcp() as (_, address):
            transport, protocol = await loop.create_connection(Asking, *address)
            with pytest.raises(TypeError, match="sslcontext is expected"):
                await loop.start_tls(transport, protocol, None)
            with pytest.raises(ValueError, match="ssl_handshake_timeout should be a positive"):
                await loop.start_tls(transport, protocol, tls.client, ssl_handshake_timeout=0)
            with pytest.raises(ValueError, match="ssl_shutdown_timeout should be a positive"):
                await loop.start_tls(
                    transport, protocol, tls.client, server_hostname=HOST, ssl_shutdown_timeout=-1
                )
            with pytest.raises(ConnectionAbortedError, match="taking longer than 0.01 seconds"):
                # The other end is an echo: it never speaks TLS.
                made[0].pause_reading()
                await loop.start_tls(
                    transport,
                    protocol,
                    tls.client,
                    server_hostname=HOST,
                    ssl_handshake_timeout=0.01,
                )
            assert transport.is_closing()
            made[0].abort()
            with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
                loop._make_ssl_transport(socket.socket(), protocol, None, server_side=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the socket of the last one
        run(main)
        gc.collect()


# ---- sendfile


@pytest.mark.parametrize("secure", [False, True])
def test_sendfile(run, tls, tmp_path, monkeypatch, secure):
    """A file goes by os.sendfile() in plain text, through write() over TLS; nothing is written
    meanwhile, and reading goes on after it."""
    content = os.urandom(3 << 20)
    path = tmp_path / "file"
    path.write_bytes(content)
    calls: list[int] = []
    by_system = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda *args: (calls.append(1), by_system(*args))[1])

    async def main():
        loop = asyncio.get_running_loop()
        options = {"ssl": tls.server} if secure else {}
        async with tcp(Asking, **options) as (server, address):
            options = {"ssl": tls.client, "server_hostname": HOST} if secure else {}
            received: list[Asking] = []
            server._protocol_factory = lambda: received.append(Asking()) or received[-1]
            async with tcp(server._protocol_factory, **({"ssl": tls.server} if secure else {})) as (
                _,
                address,
            ):
                transport, protocol = await loop.create_connection(Asking, *address, **options)
                transport.write(b"head")
                with path.open("rb") as file:
                    sending = asyncio.ensure_future(loop.sendfile(transport, file, 0, None))
                    if not secure:
                        await asyncio.sleep(0)
                        with pytest.raises(RuntimeError, match="sendfile is in progress"):
                            transport.write(b"x")
                    assert await sending == len(content)
                transport.write(b"tail")
                transport.close()
                await received[0].lost
                assert received[0].data == b"head" + content + b"tail"
                assert await protocol.lost is None
        assert bool(calls) is not secure

    run(main)


def test_sendfile_without_the_system(run, tls, tmp_path):
    """fallback=False over TLS is refused, in asyncio's words."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp(ssl=tls.server) as (_, address):
            both = await loop.create_connection(
                Asking, *address, ssl=tls.client, server_hostname=HOST
            )
            with open(__file__, "rb") as file:
                with pytest.raises(RuntimeError, match="fallback is disabled"):
                    await loop.sendfile(both[0], file, fallback=False)
            await ended(*both)

    run(main)


# ---- the contract of a transport


def of_both_loops(main: Callable[[], Awaitable[Any]]) -> list[Any]:
    found = []
    for factory in (asyncio.SelectorEventLoop, headrace.EventLoop):
        with asyncio.Runner(loop_factory=factory) as runner:
            found.append(runner.run(asyncio.wait_for(main(), TIMEOUT_S)))
    return found


@pytest.mark.parametrize("secure", [False, True])
def test_extra_info(tls, secure):
    """get_extra_info() has what asyncio's has, before the end and after it."""
    names = ("socket", "sockname", "peername", "sslcontext", "ssl_object", "peercert", "cipher")

    def shape(transport):
        found = {name: transport.get_extra_info(name, "none") for name in names}
        return {
            name: type(value).__name__ if name != "cipher" else value
            for name, value in found.items()
        }

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp(**({"ssl": tls.server} if secure else {})) as (_, address):
            transport, protocol = await loop.create_connection(
                Asking, *address, **({"ssl": tls.client, "server_hostname": HOST} if secure else {})
            )
            await answered(transport, protocol)
            assert transport.get_extra_info("peername") == address
            assert made[-1].get_extra_info("peername") == transport.get_extra_info("sockname")
            before = shape(transport), shape(made[-1])
            await ended(transport, protocol)
            after = shape(transport)
            assert after == before[0] or secure  # asyncio's TLS asks its transport no more
            return before

    theirs, ours = of_both_loops(main)
    assert ours == theirs


def test_writes_that_are_refused_or_dropped(caplog):
    """What cannot be written raises what asyncio raises; after the end it is dropped, and said
    when that happens often."""

    async def main():
        loop = asyncio.get_running_loop()
        said = []
        async with tcp() as (_, address):
            transport, protocol = await loop.create_connection(Asking, *address)
            for act in (
                lambda: transport.write("text"),
                lambda: transport.write(None),
                lambda: transport.set_write_buffer_limits(high=1, low=2),
                lambda: transport.write_eof() or transport.write(b"x"),
                lambda: transport.writelines([b"x"]),
            ):
                try:
                    act()
                except Exception as error:
                    said.append((type(error), str(error).replace("bytes, bytearray", "")[:17]))
            transport.abort()
            await protocol.lost
            transport, protocol = await loop.create_connection(Asking, *address)
            transport.abort()
            caplog.clear()
            for _ in range(10):
                transport.write(b"x")
            said += [record.message for record in caplog.records]
            await protocol.lost
        return said

    with caplog.at_level(logging.WARNING, "asyncio"):
        theirs, ours = of_both_loops(main)
    assert ours == theirs
    assert "socket.send() raised exception." in ours


def test_writes_behind_close(run):
    """What is written after close(), while older bytes are unsent, is sent too, as asyncio does
    it."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server((LOOPBACK, 0)) as listener:
            transport, protocol = await loop.create_connection(Asking, *listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                transport.write(bytes(8 << 20))
                assert transport.get_write_buffer_size() > 0
                transport.close()
                transport.write(b"tail")
                peer.setblocking(False)
                got = bytearray()
                while data := await loop.sock_recv(peer, 1 << 20):
                    got += data
                assert (len(got), bytes(got[-4:])) == ((8 << 20) + 4, b"tail")
                await protocol.lost

    run(main)


@native_only
def test_repr(run):
    """The repr has asyncio's form."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (_, address):
            transport, protocol = await loop.create_connection(Asking, *address)
            number = transport.get_extra_info("socket").fileno()
            form = f"<SocketTransport fd={number} read=polling write=<idle, bufsize=0>>"
            assert repr(transport) == form
            transport.pause_reading()
            assert repr(transport) == form.replace("polling", "idle")
            transport.close()
            assert repr(transport) == (
                f"<SocketTransport closing fd={number} read=idle write=<idle, bufsize=0>>"
            )
            await protocol.lost
            assert repr(transport) == f"<SocketTransport closed fd={number}>"

    run(main)


def test_context(run):
    """A protocol is called in a copy of the context that its server was made in."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Looking(Asking):
        def data_received(self, data):
            seen.append(variable.get())
            variable.set("spoilt")

    async def main():
        loop = asyncio.get_running_loop()
        variable.set("server")
        async with tcp(Looking) as (_, address):
            variable.set("client")
            both = await loop.create_connection(Asking, *address)
            other = await loop.create_connection(Asking, *address)
            both[0].write(b"x")
            await until(lambda: len(seen) == 1)
            other[0].write(b"x")
            await until(lambda: len(seen) == 2)
            await ended(*both)
            await ended(*other)
        assert (seen, variable.get()) == (["server", "server"], "client")

    run(main)


def test_descriptors_are_kept_from_others(run):
    """The descriptor of a connection can be watched by nobody else, and is free after the end."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (_, address):
            both = await loop.create_connection(Asking, *address)
            number = both[0].get_extra_info("socket").fileno()
            for act in (loop.add_reader, loop.add_writer):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    act(number, print)
            await ended(*both)

    run(main)


# ---- servers


def test_a_server_counts_its_connections(run):
    """wait_closed() waits for the last connection, however it ends."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, LOOPBACK, 0)
        clients = [
            await loop.create_connection(Asking, *server.sockets[0].getsockname()) for _ in range(3)
        ]
        await until(lambda: len(made) == 3)
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await ended(*clients[0])
        made[1].abort()
        await clients[1][1].lost
        await asyncio.sleep(0.01)
        # Before 3.12 asyncio's own does not wait.
        assert waiting.done() is (sys.version_info < (3, 12))
        await ended(*clients[2])
        await waiting

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_a_server_ends_its_connections(run, how):
    """close_clients() and abort_clients() find every connection."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (server, address):
            clients = [await loop.create_connection(Asking, *address) for _ in range(3)]
            await until(lambda: len(made) == 3)
            getattr(server, how)()
            for transport, protocol in clients:
                await protocol.lost
                assert transport.is_closing()

    run(main)


# ---- what is left behind


@native_only
@pytest.mark.parametrize("secure", [False, True])
def test_nothing_is_left_of_a_connection(run, tls, secure):
    """A transport is gone when nobody holds it any more, without the collector of cycles."""
    server = {"ssl": tls.server} if secure else {}
    client = {"ssl": tls.client, "server_hostname": HOST} if secure else {}

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp(**server) as (_, address):
            both = await loop.create_connection(Asking, *address, **client)
            await answered(*both)
            held = [weakref.ref(both[0]), weakref.ref(made[0])]
            made[0].get_protocol().transport = None
            await ended(*both)
            await until(lambda: made[0].get_protocol() is None)
            made.clear()
            del both
            await asyncio.sleep(0.01)
            assert [each() for each in held] == [None, None]

    run(main)


@native_only
def test_a_loop_closed_with_connections_open():
    """Whoever leaves connections open is warned, as by asyncio, and no descriptor stays."""
    before = open_descriptors()

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, LOOPBACK, 0)
        await loop.create_connection(Asking, *server.sockets[0].getsockname())
        await until(lambda: made)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        headrace.run(main())
        made.clear()
        gc.collect()
    words = [str(each.message) for each in said if each.category is ResourceWarning]
    said.clear()  # they hold what they are about
    assert sum(each.startswith("unclosed transport <SocketTransport") for each in words) == 2
    gc.collect()
    assert open_descriptors() - before == set()


def test_two_loops_in_two_threads():
    """Loops in threads of their own do not meet."""

    async def main():
        loop = asyncio.get_running_loop()
        async with tcp() as (_, address):
            for _ in range(20):
                both = await loop.create_connection(Asking, *address)
                await answered(*both, threading.current_thread().name.encode())
                await ended(*both)
        return True

    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(headrace.run(main()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert results == [True, True]


# ---- what is not overridden


def test_the_rest_is_asyncios(run):
    """Signals, subprocesses, executors, datagrams, pipes and sock_*() work as ever."""

    async def main():
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await heard.wait()
        assert loop.remove_signal_handler(signal.SIGUSR1)

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert (await process.communicate(b"words\n"))[0] == b"words\n"

        assert await loop.run_in_executor(None, lambda: 42) == 42
        assert await asyncio.to_thread(threading.current_thread) is not threading.main_thread()

        got = loop.create_future()

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                got.set_result(data)

        receiver, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=(LOOPBACK, 0))
        sender, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiver.get_extra_info("sockname")
        )
        sender.sendto(b"datagram")
        assert await got == b"datagram"
        sender.close()
        receiver.close()

        ends = os.pipe()
        reading, protocol = await loop.connect_read_pipe(Asking, os.fdopen(ends[0], "rb"))
        writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(ends[1], "wb"))
        writing.write(b"pipe")
        writing.close()
        assert await protocol.lost is None
        assert protocol.data == b"pipe"
        assert not is_ours(reading)

        ours, peer = socket.socketpair()
        with ours, peer:
            ours.setblocking(False)
            await loop.sock_sendall(ours, b"sock")
            assert peer.recv(10) == b"sock"

    run(main)


@pytest.mark.parametrize("where", ["data_received", "connection_lost", "get_buffer"])
def test_exits_leave_the_loop(where):
    """SystemExit of a protocol leaves run_forever() at once."""

    class Leaving(asyncio.BufferedProtocol if where == "get_buffer" else asyncio.Protocol):
        def leave(self, *args):
            raise SystemExit(7)

    setattr(Leaving, where, Leaving.leave)

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        with peer:
            await loop.create_connection(Leaving, sock=ours)
            peer.send(b"x")
            if where == "connection_lost":
                peer.close()
            await asyncio.sleep(TIMEOUT_S)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(SystemExit, match="7"):
            headrace.run(main())
        gc.collect()


# ---- run(), and the seams


def test_run():
    """run() returns what main() returns, sets debug mode, and refuses to be nested."""

    async def main():
        loop = asyncio.get_running_loop()
        nested = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            headrace.run(nested)
        nested.close()
        return type(loop), loop.get_debug()

    assert headrace.run(main()) == (headrace.EventLoop, False)
    assert headrace.run(main(), debug=True) == (headrace.EventLoop, True)
    loop = headrace.new_event_loop()
    assert type(loop) is headrace.EventLoop and isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()


def test_the_seams_are_known_here():
    """On every Python that this is tested on, the seams are as they are known."""
    assert backend.platform_obstacle() == seams.OBSTACLE


@pytest.mark.parametrize("name", seams.KNOWN)
def test_a_seam_that_has_changed_is_noticed(name):
    """Where any of the private methods takes other parameters, or is gone, that is said."""
    loop, server = asyncio.SelectorEventLoop, asyncio.base_events.Server
    assert seams.unknown(loop, server) is None
    method = name.rpartition(".")[2]
    for changed in (lambda self, other: None, None):
        classes = [type(each.__name__, (each,), {}) for each in (loop, server)]
        setattr(classes["." in name], method, changed)
        assert seams.unknown(*classes) == f"this Python's {name}() is not as known"


@native_only
def test_on_a_python_that_is_not_known():
    """There the loop is asyncio's in all its parts, and doctor says why."""
    program = """if True:
        import asyncio, functools
        from asyncio import selector_events
        theirs = selector_events.BaseSelectorEventLoop._make_socket_transport
        def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None,
                                   mood=None, **options):
            return theirs(self, sock, protocol, waiter, extra=extra, server=server, **options)
        selector_events.BaseSelectorEventLoop._make_socket_transport = _make_socket_transport
        import headrace
        from headrace import cli

        async def main():
            async def handler(reader, writer):
                print(type(writer.transport).__name__)
                writer.close()
            server = await asyncio.start_server(handler, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            server.close()
        headrace.run(main())
        cli.main(["doctor"])
        """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("_SelectorSocketTransport\n")
    assert "asyncio's transports: this Python's _make_socket_transport() is not as" in done.stdout
    assert "Not as known in this Python's asyncio: _make_socket_transport()." in done.stdout
