"""connect(): where to, over what, its arguments, its phases, and that nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import LOOPBACK, until

import headrace

# Time enough for a busy machine; nothing waits for it where all is well.
LONG = 30.0
# Time that is over soon, where it has to be over.
SHORT = 0.05


def address_info(host, port):
    """What getaddrinfo() returns of *host* and *port*."""
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


@contextlib.contextmanager
def listening():
    """A listener that accepts nothing by itself, and its port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(5)
        yield listener, listener.getsockname()[1]


@contextlib.contextmanager
def full():
    """The port of a listener that is full: connecting to it takes for ever."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener:
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(address)
            yield address[1]


def peer_of(listener):
    """Accept a connection, which is there already, as a socket that does not block."""
    peer, _ = listener.accept()
    peer.setblocking(False)
    return peer


async def receive(peer, size=100):
    """Receive from *peer* while the loop runs."""
    return await asyncio.get_running_loop().sock_recv(peer, size)


async def accepted_tls(listener, context):
    """Accept a connection and do the handshake of TLS."""
    listener.setblocking(False)
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer = TlsPeer(sock, context)
    try:
        await peer.handshake()
    except BaseException:
        sock.close()
        raise
    return peer


async def never(*arguments, **given):
    """A resolver that does not answer."""
    await asyncio.Event().wait()


async def talk(stream, peer):
    """Send something each way."""
    await stream.write(b"ping")
    assert await receive(peer) == b"ping"
    peer.send(b"pong\n")
    assert await stream.readline() == b"pong\n"


# ---- where to


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
def test_host(run, way, host):
    """By an address and by a name; awaited, it is a Stream that is the caller's to close."""

    async def main():
        with listening() as (listener, port):
            stream = await headrace.connect(
                host, port, way=way, family=socket.AF_INET, limit=1234, timeout=LONG
            )
            assert type(stream) is headrace.Stream
            assert stream.limit == 1234
            with peer_of(listener) as peer:
                await talk(stream, peer)
                await stream.aclose()
                assert await receive(peer) == b""

    run(main)


def test_service_name(run, way):
    """The port may be a number in a string."""

    async def main():
        with listening() as (listener, port):
            async with headrace.connect(LOOPBACK, str(port), way=way) as stream:
                with peer_of(listener) as peer:
                    await talk(stream, peer)

    run(main)


@pytest.mark.parametrize("fails", [False, True])
def test_block(run, way, fails):
    """A block closes the stream at its end, and resets it where it ends by an exception."""

    async def main():
        with listening() as (listener, port):
            with contextlib.suppress(KeyError):
                async with headrace.connect(LOOPBACK, port, way=way) as stream:
                    peer = peer_of(listener)
                    await talk(stream, peer)
                    if fails:
                        raise KeyError
            assert stream.closing
            with peer:
                if fails:
                    with pytest.raises(ConnectionResetError):
                        await receive(peer)
                else:
                    assert await receive(peer) == b""

    run(main)


def test_once(run, way):
    """It connects once: to await it again is an error, and one that is never awaited does nothing
    and warns of nothing."""

    async def main():
        with listening() as (listener, port):
            headrace.connect(LOOPBACK, port)
            connecting = headrace.connect(LOOPBACK, port, way=way)
            async with connecting as stream:
                with peer_of(listener) as peer:
                    await talk(stream, peer)
                with pytest.raises(RuntimeError, match="already"):
                    await connecting
                with pytest.raises(RuntimeError, match="already"):
                    async with connecting:
                        pass

    run(main)


@pytest.mark.parametrize("kind", ["str", "bytes", "path", "abstract"])
def test_unix_path(run, way, tmp_path, kind):
    """By a path, also an abstract one."""
    path = "\0headrace" + os.urandom(8).hex() if kind == "abstract" else str(tmp_path / "s")
    given = {"bytes": os.fsencode, "path": lambda each: tmp_path / "s"}.get(kind, str)(path)

    async def main():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            async with headrace.connect(path=given, way=way) as stream:
                with peer_of(listener) as peer:
                    await talk(stream, peer)

    run(main)


def test_no_unix_path(run, way, tmp_path):
    """A path where nobody listens is the system's error."""

    async def main():
        with pytest.raises(FileNotFoundError):
            await headrace.connect(path=tmp_path / "nothing", way=way)

    run(main)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_sock(run, way, family):
    """Over a socket that is connected, of either family, which belongs to the stream then."""

    async def main():
        with listening() as (listener, port):
            if family == socket.AF_UNIX:
                ours, peer = socket.socketpair()
            else:
                ours = socket.create_connection((LOOPBACK, port))
                peer = peer_of(listener)
            ours.setblocking(False)
            peer.setblocking(False)
            with peer:
                async with headrace.connect(sock=ours, way=way) as stream:
                    await talk(stream, peer)
                assert await receive(peer) == b""

    run(main)


@pytest.mark.parametrize("place", ["host", "sock", "path"])
def test_tls(run, way, tls, tmp_path, place):
    """Over TLS to each kind of place; the name to verify is the host, or is given."""

    async def main():
        with contextlib.ExitStack() as stack:
            if place == "path":
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(str(tmp_path / "s"))
                listener.listen()
                given = {"path": tmp_path / "s", "server_hostname": HOST}
            else:
                listener, port = stack.enter_context(listening())
                given = {"host": HOST, "port": port, "family": socket.AF_INET}
                if place == "sock":
                    ours = socket.create_connection((LOOPBACK, port))
                    ours.setblocking(False)
                    given = {"sock": ours, "server_hostname": HOST}
            accepting = asyncio.ensure_future(accepted_tls(listener, tls.server))
            async with headrace.connect(tls=tls.client, way=way, timeout=LONG, **given) as stream:
                peer = await accepting
                stack.enter_context(peer.sock)
                assert stream.tls.server_hostname == HOST
                await stream.write(b"ping")
                assert await peer.read(10) == b"ping"
                await peer.write(b"pong")
                assert await stream.readexactly(4) == b"pong"
                closing = asyncio.ensure_future(stream.aclose())
                assert await peer.read(10) == b""
                peer.sock.close()
                await closing

    run(main)


def test_tls_fails(run, way, tls):
    """A certificate that is not trusted is ssl.SSLError's subclass, and the socket is closed."""

    async def main():
        with listening() as (listener, port):
            accepting = asyncio.ensure_future(accepted_tls(listener, tls.server))
            with pytest.raises(ssl.SSLCertVerificationError):
                await headrace.connect(
                    LOOPBACK, port, tls=tls.stranger, server_hostname=HOST, way=way
                )
            with pytest.raises(OSError):
                await accepting

    run(main)


# ---- arguments

CONTEXT = object()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, ValueError, "either host and port"),
        ({"host": "h"}, ValueError, "both"),
        ({"port": 1}, ValueError, "both"),
        ({"host": "h", "port": 1, "path": "p"}, ValueError, "either"),
        ({"path": "p", "sock": CONTEXT}, ValueError, "either"),
        ({"host": "h", "port": 1, "tls": "yes"}, TypeError, "SSLContext"),
        ({"host": "h", "port": 1, "server_hostname": "h"}, ValueError, "only meaningful with tls"),
        ({"host": "h", "port": 1, "alpn": ["h2"]}, ValueError, "only meaningful with tls"),
        ({"host": "h", "port": 1, "tls": True, "alpn": "h2"}, TypeError, "several"),
        ({"host": "h", "port": 1, "tls": CONTEXT, "alpn": ["h2"]}, ValueError, "set_alpn"),
        ({"path": "p", "tls": True}, ValueError, "verifies a name"),
        ({"path": "p", "tls": CONTEXT}, ValueError, "verifies a name"),
        ({"host": "h", "port": 1, "timeout": -1}, ValueError, "negative"),
        ({"host": "h", "port": 1, "timeout": "1"}, TypeError, "seconds"),
        ({"host": "h", "port": 1, "timeout": float("nan")}, ValueError, "negative"),
        ({"host": "h", "port": 1, "keepalive": -1}, ValueError, "keepalive"),
        ({"host": "h", "port": 1, "user_timeout": -1}, ValueError, "user_timeout"),
        ({"host": "h", "port": 1, "keepalive": 0}, ValueError, "keepalive .* above 0"),
        ({"host": "h", "port": 1, "keepalive": float("nan")}, ValueError, "keepalive .* not nan"),
        ({"host": "h", "port": 1, "keepalive": 32768}, ValueError, "keepalive .* at most 32,767"),
        ({"host": "h", "port": 1, "keepalive": "30"}, TypeError, "keepalive .* seconds"),
        ({"host": "h", "port": 1, "user_timeout": 0}, ValueError, "user_timeout .* above 0"),
        ({"host": "h", "port": 1, "user_timeout": float("inf")}, ValueError, "user_timeout .* inf"),
        ({"host": "h", "port": 1, "user_timeout": 2147484}, ValueError, "at most 2,147,483"),
        ({"host": "h", "port": 1, "limit": 0}, ValueError, "[Ll]imit"),
        ({"host": "h", "port": 70000}, (ValueError, OverflowError), "port|0-65535"),
        ({"host": "h", "port": 1, "resolver": 5}, TypeError, "resolver"),
        ({"host": "h", "port": 1, "local_addr": "127.0.0.1"}, TypeError, "local_addr"),
        ({"host": "h", "port": 1, "max_fds": 3}, ValueError, "max_fds"),
        ({"path": "p", "server_hostname": "h", "max_fds": 3}, ValueError, "meaningful"),
        ({"path": "p", "max_fds": 254}, ValueError, "max_fds"),
        ({"path": "p", "max_fds": -1}, ValueError, "max_fds"),
    ],
)
def test_arguments(tls, given, error, says):
    """What is wrong, or contradicts itself, is told at the call, before anything is awaited, and
    where no loop runs."""
    if given.get("tls") is CONTEXT:
        given = {**given, "tls": tls.client}
    with pytest.raises(error, match=says):
        headrace.connect(**given)


# ---- names


def test_resolver(run, way):
    """A resolver of one's own is asked, with what getaddrinfo() would be, and its addresses are
    tried until one answers."""
    asked = []

    async def main():
        with listening() as (listener, port), reserved_port() as closed:

            async def resolver(host, port_asked, **hints):
                asked.append((host, port_asked, hints))
                return [address_info(LOOPBACK, closed), address_info(LOOPBACK, port)]

            async with headrace.connect(
                "name.invalid", 7, resolver=resolver, family=socket.AF_INET, way=way
            ) as stream:
                assert stream.peername == (LOOPBACK, port)
                with peer_of(listener) as peer:
                    await talk(stream, peer)

    run(main)
    hints = {"family": socket.AF_INET, "type": socket.SOCK_STREAM}
    assert asked == [("name.invalid", 7, hints)]


@contextlib.contextmanager
def reserved_port():
    """A port on which nobody listens, on whichever address."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (None, TypeError, "not iterable"),
        ([(LOOPBACK, 80)], TypeError, "a resolver returns tuples"),
        ([LOOPBACK], TypeError, "a resolver returns tuples"),
        ([(2, 1, 6, "", LOOPBACK)], TypeError, "a resolver returns tuples"),
        ([], OSError, "no address of 'name.invalid'"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), socket.gaierror, "no such name"),
        (KeyError("a defect"), KeyError, "a defect"),
    ],
)
def test_resolver_is_wrong(run, way, answer, error, says):
    """What no resolver returns is told clearly; what it raises passes."""

    async def resolver(host, port, **hints):
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main():
        with pytest.raises(error, match=says):
            await headrace.connect("name.invalid", 7, resolver=resolver, way=way)

    run(main)


def test_no_coroutine_function(run, way):
    """A resolver that returns what cannot be awaited is a TypeError."""

    async def main():
        with pytest.raises(TypeError):
            await headrace.connect("h", 7, resolver=lambda *_, **__: [], way=way)

    run(main)


class Stuck:
    """A socket.getaddrinfo() that knows addresses, and for names waits until it is let go."""

    def __init__(self, monkeypatch):
        self.real = socket.getaddrinfo
        self.started = threading.Event()
        self.go = threading.Event()
        self.over = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):
        if flags & socket.AI_NUMERICHOST or host != "name.invalid":
            return self.real(host, port, family, type, proto, flags)
        self.started.set()
        self.go.wait(60)
        self.over.set()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.fixture
def stuck(monkeypatch):
    stuck = Stuck(monkeypatch)
    yield stuck
    stuck.go.set()
    if stuck.started.is_set():
        assert stuck.over.wait(LONG)


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_look_up_that_hangs(run, way, stuck, how):
    """A look-up that is given up, by a timeout or a cancellation, does not hold the end of the
    loop: asyncio.run() would wait for one of its executor."""

    async def main():
        connecting = headrace.connect(
            "name.invalid", 7, way=way, timeout=SHORT if how == "timeout" else None
        )
        task = asyncio.ensure_future(connecting)
        await until(lambda: stuck.started.is_set() or task.done())
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        with pytest.raises(headrace.ConnectTimeout) as caught:
            await task
        assert caught.value.phase == "resolving name.invalid"

    run(main)
    # The loop is closed, and the look-up goes on.
    assert not stuck.over.is_set()


def test_look_up_that_is_late(run, way, stuck):
    """An answer that comes behind a timeout disturbs nobody, and others are looked up meanwhile."""

    async def main():
        task = asyncio.ensure_future(headrace.connect("name.invalid", 7, way=way, timeout=SHORT))
        with pytest.raises(headrace.ConnectTimeout):
            await task
        with listening() as (listener, port):
            async with headrace.connect("localhost", port, way=way, family=socket.AF_INET):
                peer_of(listener).close()
        stuck.go.set()
        if stuck.started.is_set():
            await until(stuck.over.is_set)

    run(main)


def test_no_such_name(run, way, stuck):
    """A name that is not there is socket.gaierror."""
    stuck.go.set()

    async def main():
        with pytest.raises(socket.gaierror, match="no such name"):
            await headrace.connect("name.invalid", 7, way=way)

    run(main)


# ---- phases


@contextlib.asynccontextmanager
async def hanging(phase, tls, tmp_path):
    """Yield what connect() takes to hang in *phase*; what that says; a listener, or None."""
    if phase == "resolving":
        yield {"host": "h", "port": 7, "resolver": never}, "resolving h", None
    elif phase == "connecting":
        with full() as port:
            yield {"host": LOOPBACK, "port": port}, f"connecting to {LOOPBACK}", None
    elif phase == "handshake":
        with listening() as (listener, port):
            given = {"host": LOOPBACK, "port": port, "tls": tls.client, "server_hostname": HOST}
            yield given, f"TLS handshake with {HOST}", listener
    elif phase == "handshake over sock":
        with listening() as (listener, port):
            ours = socket.create_connection((LOOPBACK, port))
            ours.setblocking(False)
            given = {"sock": ours, "tls": tls.client, "server_hostname": HOST}
            yield given, f"TLS handshake with {HOST}", listener
    else:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            given = {"path": path, "tls": tls.client, "server_hostname": HOST}
            yield given, f"TLS handshake with {HOST}", listener


PHASES = ["resolving", "connecting", "handshake", "handshake over sock", "handshake over path"]


@pytest.mark.parametrize("phase", PHASES)
def test_timeout(run, way, tls, tmp_path, phase):
    """ConnectTimeout says in which phase; the socket is closed."""

    # A handshake has to have begun by then, on a busy machine too.
    seconds = 10 * SHORT if phase.startswith("handshake") else SHORT

    async def main():
        async with hanging(phase, tls, tmp_path) as (given, says, listener):
            with pytest.raises(headrace.ConnectTimeout) as caught:
                await headrace.connect(timeout=seconds, way=way, **given)
            error = caught.value
            assert (error.operation, error.seconds, error.phase) == ("connect", seconds, says)
            assert error.stream is None
            assert str(error) == f"connect() took longer than {seconds} s: {says}"
            await left(listener)

    run(main)


@pytest.mark.parametrize("phase", PHASES)
def test_cancelled(run, way, tls, tmp_path, phase):
    """A cancellation in each phase leaves no socket open."""

    async def main():
        async with hanging(phase, tls, tmp_path) as (given, _, listener):
            before = len(os.listdir("/proc/self/fd"))
            task = asyncio.ensure_future(headrace.connect(way=way, **given))
            if listener is None:
                await asyncio.sleep(0.01)
            else:
                listener.setblocking(False)
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                with peer:
                    peer.setblocking(False)
                    assert await receive(peer, 1) == b"\x16"
                    await cancelled(task)
                    await received_all(peer)
                return
            await cancelled(task)
            if phase == "connecting":
                await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(main)


async def cancelled(task):
    """Cancel *task*."""
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def left(listener):
    """Whoever connected to *listener* has closed its socket."""
    if listener is not None:
        with peer_of(listener) as peer:
            await received_all(peer)


async def received_all(peer):
    """Receive until the end, or a reset."""
    with contextlib.suppress(ConnectionResetError):
        while await receive(peer):
            pass


def test_before_its_start(run, way):
    """One that is cancelled before its first step has done nothing; nor has one without time,
    beyond a look-up."""

    async def main():
        with listening() as (listener, port):
            task = asyncio.get_running_loop().create_task(
                awaited(headrace.connect(LOOPBACK, port, way=way))
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                stream = await task
                stream.abort()  # an eager task was through already
            with pytest.raises(headrace.ConnectTimeout):
                await headrace.connect("h", 7, resolver=never, timeout=0, way=way)

    async def awaited(connecting):
        await asyncio.sleep(0)
        return await connecting

    run(main)


# ---- errors


def test_all_refuse(run, way):
    """Where nobody answers it is one OSError, of the class of its number, with those of all
    addresses as its cause."""

    async def main():
        with reserved_port() as port:

            async def resolver(host, _, **hints):
                return [address_info(LOOPBACK, port), address_info("127.0.0.2", port)]

            with pytest.raises(ConnectionRefusedError) as caught:
                await headrace.connect("name.invalid", port, resolver=resolver, way=way)
            error = caught.value
            assert error.errno == errno.ECONNREFUSED
            assert f"cannot connect to name.invalid:{port}" in str(error)
            group = error.__cause__
            assert isinstance(group, ExceptionGroup)
            assert [type(each) for each in group.exceptions] == [ConnectionRefusedError] * 2
            assert "127.0.0.1" in str(group.exceptions) and "127.0.0.2" in str(group.exceptions)

    run(main)


# ---- options


def option(stream, level, name):
    return stream.get_extra_info("socket").getsockopt(level, getattr(socket, name))


def test_socket_options(run, way):
    """keepalive, user_timeout and nodelay are set on the socket; the default is TCP_NODELAY and
    nothing else."""

    async def main():
        with listening() as (listener, port):
            async with headrace.connect(LOOPBACK, port, way=way) as stream:
                peer_of(listener).close()
                assert option(stream, socket.IPPROTO_TCP, "TCP_NODELAY")
                assert not option(stream, socket.SOL_SOCKET, "SO_KEEPALIVE")
                assert option(stream, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT") == 0
            async with headrace.connect(
                LOOPBACK, port, way=way, nodelay=False, keepalive=30, user_timeout=2.5
            ) as stream:
                peer_of(listener).close()
                assert not option(stream, socket.IPPROTO_TCP, "TCP_NODELAY")
                assert option(stream, socket.SOL_SOCKET, "SO_KEEPALIVE")
                assert option(stream, socket.IPPROTO_TCP, "TCP_KEEPIDLE") == 30
                assert option(stream, socket.IPPROTO_TCP, "TCP_KEEPINTVL") == 15
                assert option(stream, socket.IPPROTO_TCP, "TCP_KEEPCNT") == 4
                assert option(stream, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT") == 2500

    run(main)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"keepalive": 32767}, "TCP_KEEPIDLE", 32767),
        ({"keepalive": 0.001}, "TCP_KEEPIDLE", 1),
        ({"user_timeout": (2**31 - 1) / 1000}, "TCP_USER_TIMEOUT", 2**31 - 1),
        ({"user_timeout": 0.0001}, "TCP_USER_TIMEOUT", 1),
    ],
)
def test_bounds_of_socket_options(run, way, given, name, value):
    """The system takes the least and the most that connect() takes."""

    async def main():
        with listening() as (listener, port):
            async with headrace.connect(LOOPBACK, port, way=way, **given) as stream:
                peer_of(listener).close()
                assert option(stream, socket.IPPROTO_TCP, name) == value

    run(main)


def test_options_of_tcp_on_a_unix_socket(run, way):
    """Options of TCP are no error on a Unix socket, where they mean nothing."""

    async def main():
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peer.setblocking(False)
        with peer:
            async with headrace.connect(
                sock=ours, way=way, keepalive=30, user_timeout=1, nodelay=False
            ) as stream:
                await talk(stream, peer)

    run(main)


def test_local_address(run, way):
    """local_addr is where the connection comes from; one that is not ours is the system's error,
    and one that is no pair is told at the call."""

    async def main():
        with listening() as (listener, port):
            async with headrace.connect(
                LOOPBACK, port, way=way, local_addr=("127.0.0.3", 0)
            ) as stream:
                with peer_of(listener) as peer:
                    assert peer.getpeername()[0] == "127.0.0.3"
                    assert stream.sockname == peer.getpeername()
            with pytest.raises(OSError) as caught:
                await headrace.connect(LOOPBACK, port, way=way, local_addr=("192.0.2.1", 0))
            assert caught.value.errno == errno.EADDRNOTAVAIL

    run(main)


@pytest.mark.parametrize("place", ["path", "sock"])
def test_descriptors(run, tmp_path, place):
    """max_fds= makes a stream that passes descriptors, by a path and over a socket; one over TCP
    cannot be."""

    async def main():
        with socket.socket(socket.AF_UNIX) as listener, listening() as (tcp, port):
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            given = {"path": tmp_path / "s"}
            if place == "sock":
                ours = socket.socket(socket.AF_UNIX)
                ours.connect(str(tmp_path / "s"))
                given = {"sock": ours}
            async with headrace.connect(max_fds=2, limit=5000, timeout=LONG, **given) as stream:
                assert stream.limit == 5000
                with peer_of(listener) as peer:
                    await stream.send_fds(b"take", [listener.fileno()])
                    data, fds, _, _ = socket.recv_fds(peer, 10, 2)
                    assert (data, len(fds)) == (b"take", 1)
                    os.close(fds[0])
            with socket.create_connection((LOOPBACK, port)) as ours, peer_of(tcp):
                with pytest.raises(ValueError, match="Unix"):
                    await headrace.connect(sock=ours, max_fds=2)

    run(main)
