"""The native way: who gets it and why, when its epoll set is there, and loops, threads and
processes that come and go around it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import selectors
import socket
import sys
import threading
import types
import warnings

import pytest
from conftest import OURS, new_loop, open_descriptors
from support.connections import LOOPBACK, client, echo, serving
from support.wires import tcp_pair, turns

from headrace._transport import backend, portable

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


@pytest.fixture
def chosen(monkeypatch):
    """Our streams, which take the way that choose() says."""
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    return OURS


def is_native(writer):
    return type(writer.transport).__module__ == "headrace._transport.native.transport"


def sets():
    """Return how many epoll sets this process has, the loops' own included."""
    return sum("[eventpoll]" in each for each in open_descriptors())


async def talk(reader, writer):
    """Say something to an echo, hear it, and close."""
    writer.write(b"line\n")
    assert await reader.readline() == b"line\n"
    writer.close()
    await writer.wait_closed()


def decide(loop, limit=65536, **given):
    """Return what choose() says of *loop*, which may be closed: it must not have to try it."""
    try:
        backend.choose(loop, limit, **given).send(None)
    except StopIteration as choice:
        return choice.value
    raise AssertionError("the loop is tried")


# ---- the choice (test_loops.py has more of the loops)


def test_every_known_loop_gets_it(loop_kind, chosen):
    """asyncio's loop, in debug mode and with eager tasks too, and uvloop get the native way without
    being asked."""
    loop = new_loop(loop_kind)
    try:
        choice = loop.run_until_complete(backend.choose(loop, 65536))
        assert (choice.way, choice.form) == ("native", "direct")
        assert choice == decide(loop, 1) == decide(loop, 1, way="native")
        assert "serves the socket itself" in choice.reason
    finally:
        loop.close()


class Unknown(asyncio.AbstractEventLoop):
    pass


class Foreign(socket.socket):
    def recv(self, *arguments):
        return b""


class Familiar(socket.socket):
    pass


def obstacles(monkeypatch, kind):
    """Make *kind* stand in the way; return what choose() is given, and a word of the reason."""
    loop = asyncio.SelectorEventLoop()
    loop.close()
    if kind == "pure":
        monkeypatch.setattr(backend, "native", None)
        return loop, {}, "pure-Python build"
    if kind == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
        return loop, {}, "Linux"
    if kind == "tls":
        return loop, {"tls": object()}, "TLS of a object"
    if kind == "socket":
        with Foreign() as sock:
            return loop, {"sock": sock}, "Foreign"
    return Unknown(), {}, "this loop has no remove_reader()"


OBSTACLES = ["pure", "platform", "tls", "socket", "loop"]


@pytest.mark.parametrize("kind", OBSTACLES)
def test_obstacles(chosen, monkeypatch, kind):
    """What stands in the way of the native way leads to the portable one, and both reasons are
    given."""
    loop, given, word = obstacles(monkeypatch, kind)
    choice = decide(loop, **given)
    assert choice.way == "portable"
    assert (
        f"not the native way: {choice.reason.partition('not the native way: ')[2]}" in choice.reason
    )
    assert word in choice.reason
    form = portable.UNKNOWN if kind == "loop" else portable.SELECTOR
    assert choice.form == form.form
    assert choice.reason.startswith(form.reason)


@pytest.mark.parametrize("kind", OBSTACLES)
def test_obstacles_when_it_is_asked_for(chosen, monkeypatch, kind):
    """way="native" raises what stands in its way, except an unknown loop: the program knows its
    loop. The variable only prefers."""
    loop, given, word = obstacles(monkeypatch, kind)
    if kind == "loop":
        assert decide(loop, way="native").way == "native"
    else:
        with pytest.raises(ValueError, match=f"way='native' cannot be: .*{word}"):
            decide(loop, way="native", **given)
    monkeypatch.setenv(backend.VARIABLE, "native")
    assert decide(loop, **given).way == ("native" if kind == "loop" else "portable")


@pytest.mark.parametrize("method", ["recv", "recv_into", "send", "accept"])
def test_a_socket_class_of_its_own(chosen, method):
    """A class that receives, sends or accepts in its own way is called, as asyncio's transports and
    servers call it: the portable way."""
    kind = type(
        "Wrapped",
        (socket.socket,),
        {method: lambda self, *arguments: getattr(socket.socket, method)(self, *arguments)},
    )
    loop = asyncio.SelectorEventLoop()
    loop.close()
    with kind() as sock:
        assert decide(loop, sock=sock).way == "portable"
        with pytest.raises(ValueError, match="Wrapped"):
            decide(loop, sock=sock, way="native")


@pytest.mark.parametrize("where", ["class", "object"])
def test_a_loop_that_connects_in_its_own_way(chosen, where):
    """A loop whose create_connection() or create_server() a program overrides makes the transports,
    unless the native way is asked for."""

    class Loop(asyncio.SelectorEventLoop):
        if where == "class":

            async def create_connection(self, *arguments, **options):
                return await super().create_connection(*arguments, **options)

    loop = Loop()
    loop.close()
    if where == "object":
        loop.create_server = loop.create_server
    choice = decide(loop)
    assert choice.way == "portable"
    assert decide(loop, way="native").way == "native"


def test_a_socket_class_that_receives_as_all_do(chosen):
    """A class derived from socket.socket that leaves recv() alone is no obstacle."""
    with Familiar() as sock:
        assert decide(asyncio.SelectorEventLoop, sock=sock, way="native").way == "native"


def test_the_variable(monkeypatch):
    """HEADRACE_WAY decides where nobody asks; way= goes before it; "" is as if not set; anything
    else is a ValueError that names it."""
    loop = asyncio.SelectorEventLoop()
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    loop.run_until_complete(backend.choose(loop, 65536))
    loop.close()
    for value, way, expected in [
        ("native", None, "native"),
        ("portable", None, "portable"),
        ("portable", "native", "native"),
        ("native", "portable", "portable"),
        ("", None, "native"),
    ]:
        monkeypatch.setenv(backend.VARIABLE, value)
        assert decide(loop, way=way).way == expected
    monkeypatch.setenv(backend.VARIABLE, "portable")
    assert "it was asked for" in decide(loop).reason
    for wrong in "Native", "1", "fast", " native":
        monkeypatch.setenv(backend.VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{backend.VARIABLE} must be .*{wrong}"):
            decide(loop)


def ways_in(streams, tmp_path, **options):
    """Yield a call of each function that takes way=, by its name."""
    yield "open_connection", lambda: streams.open_connection(LOOPBACK, 1, **options)
    yield (
        "open_unix_connection",
        lambda: streams.open_unix_connection(str(tmp_path / "no"), **options),
    )
    yield "start_server", lambda: streams.start_server(echo, LOOPBACK, 0, **options)
    yield (
        "start_unix_server",
        lambda: streams.start_unix_server(echo, str(tmp_path / "made"), **options),
    )


@pytest.mark.parametrize("wrong", ["NATIVE", "", 1, "fast", "variable"])
def test_a_wrong_way(run, chosen, tmp_path, monkeypatch, wrong):
    """A way that is none is a ValueError in every function, and a wrong variable too; nothing is
    left behind, not even a socket file."""
    options = {"way": wrong}
    if wrong == "variable":
        monkeypatch.setenv(backend.VARIABLE, "neither")
        options = {}

    async def main():
        for name, call in ways_in(chosen, tmp_path, **options):
            before = open_descriptors()
            with pytest.raises(
                ValueError, match="HEADRACE_WAY" if wrong == "variable" else "way must be 'native'"
            ):
                await call()
            gc.collect()
            assert open_descriptors() == before, name
            assert not os.listdir(tmp_path), name

    run(main)


def test_native_and_foreign_tls(run, chosen, tmp_path):
    """way="native" with a context that is not the ssl module's is a ValueError that says why;
    nothing is left behind."""

    async def main():
        for name, call in ways_in(
            chosen, tmp_path, way="native", ssl=types.SimpleNamespace(check_hostname=False)
        ):
            if name.startswith("open"):
                continue
            before = open_descriptors()
            with pytest.raises(
                ValueError, match="way='native' cannot be: TLS of a SimpleNamespace"
            ):
                await call()
            gc.collect()
            assert open_descriptors() == before, name
            assert not os.listdir(tmp_path), name

    run(main)


@pytest.mark.parametrize("way", ["native", "portable"])
def test_each_end_as_it_is_asked_for(run, chosen, tmp_path, way):
    """way= holds for each connection and each server alone: a native client talks to a portable
    server, and the other way round."""
    other = "portable" if way == "native" else "native"

    async def main():
        seen = []

        async def serve(reader, writer):
            seen.append(is_native(writer))
            await echo(reader, writer)

        path = str(tmp_path / "socket")
        servers = [
            await chosen.start_server(serve, LOOPBACK, 0, way=way),
            await chosen.start_unix_server(serve, path, way=way),
        ]
        for ends in (
            await chosen.open_connection(*servers[0].sockets[0].getsockname(), way=other),
            await chosen.open_unix_connection(path, way=other),
            await chosen.open_connection(
                sock=socket.create_connection(servers[0].sockets[0].getsockname()), way=other
            ),
        ):
            assert is_native(ends[1]) == (other == "native")
            await talk(*ends)
        assert seen == [way == "native"] * 3
        for server in servers:
            server.close()
            await server.wait_closed()

    run(main)


# ---- the set


def test_the_set_exists_while_something_is_watched(run, native):
    """A loop has one set while there are connections, however many; it is closed with the last of
    them, and a new one works later."""

    async def main():
        before = sets()
        for _ in range(3):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(5):
                    reader, writer, peer = await stack.enter_async_context(client(native))
                    assert sets() == before + 1
                    peer.send(b"line\n")
                    assert await reader.readline() == b"line\n"
            assert sets() == before

    run(main)


def test_the_set_of_a_server(run, native):
    """A server that listens has the set too, until it is closed and its last connection is gone, in
    whichever order."""

    async def main():
        before = sets()
        for last in "server", "connection":
            server = await native.start_server(echo, LOOPBACK, 0)
            assert sets() == before + 1
            reader, writer = await native.open_connection(*server.sockets[0].getsockname())
            if last == "connection":
                server.close()
            assert sets() == before + 1
            await talk(reader, writer)
            server.close()
            await server.wait_closed()
            await turns(2)
            assert sets() == before

    run(main)


def test_a_server_that_does_not_serve_yet(run, native):
    """start_serving=False makes no set; start_serving() does."""

    async def main():
        before = sets()
        server = await native.start_server(echo, LOOPBACK, 0, start_serving=False)
        assert sets() == before
        await server.start_serving()
        assert sets() == before + 1
        await talk(*await native.open_connection(*server.sockets[0].getsockname()))
        server.close()
        await server.wait_closed()

    run(main)


# ---- loops


def test_loops_one_after_another(loop_kind, native):
    """Twenty loops, one after the other, each with a server and connections, leave nothing."""
    before = open_descriptors()
    for _ in range(20):
        with asyncio.Runner(loop_factory=lambda: new_loop(loop_kind)) as runner:
            runner.run(served(native))
    gc.collect()
    assert open_descriptors() == before


async def served(streams):
    async with serving(streams, echo) as address:
        for _ in range(3):
            await talk(*await streams.open_connection(*address))


def test_loops_in_threads(loop_kind, native):
    """Four loops in four threads at once, each with connections of its own, do not meet."""
    before = open_descriptors()
    failures = []

    def work():
        try:
            with asyncio.Runner(loop_factory=lambda: new_loop(loop_kind)) as runner:
                for _ in range(10):
                    runner.run(served(native))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert failures == []
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "selector", [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector]
)
def test_every_selector_watches_the_set(native, selector):
    """A loop of asyncio's over select() or poll() serves connections as one over epoll does."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        runner.run(served(native))


@pytest.mark.parametrize("kept", ["nothing", "writer", "transport", "task"])
def test_a_loop_closed_with_live_connections(loop_kind, native, kept):
    """A loop that is closed over live connections and a server warns of them, and leaves no
    descriptor once all is dropped."""
    before = open_descriptors()
    peers = []

    async def start():
        server = await native.start_server(lambda *both: None, LOOPBACK, 0)
        ours, peer = tcp_pair()
        reader, writer = await native.open_connection(sock=ours)
        peers.append(peer)
        peers.append(socket.create_connection(server.sockets[0].getsockname()))
        task = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0.005)
        return {
            "nothing": None,
            "writer": writer,
            "transport": writer.transport,
            "task": (task, reader, writer),
        }[kept]

    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # What catch_warnings(record=True) records keeps what is warned of.
        warnings.showwarning = lambda message, category, *_: heard.append(category)
        loop = new_loop(loop_kind)
        loop.set_exception_handler(lambda *_: None)  # 'Task was destroyed but it is pending!'
        held = loop.run_until_complete(start())
        loop.close()
        gc.collect()
        del loop
        gc.collect()
        del held
        gc.collect()
    assert ResourceWarning in heard
    for peer in peers:
        peer.settimeout(5)
        assert peer.recv(1) == b""
        peer.close()
    assert open_descriptors() == before


USES = {
    "write": lambda writer: writer.write(b"x"),
    "close": lambda writer: writer.close(),
    "abort": lambda writer: writer.transport.abort(),
}


@pytest.mark.parametrize("call", USES.values(), ids=USES)
def test_after_the_loop_is_closed(loop_kind, native, call):
    """Using a writer whose loop is closed does what it can: the socket is closed at the latest when
    the writer is dropped."""
    before = open_descriptors()
    ours, peer = tcp_pair()
    loop = new_loop(loop_kind)
    _, writer = loop.run_until_complete(native.open_connection(sock=ours))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(RuntimeError):  # 'Event loop is closed'
            call(writer)
        del writer, _, loop, ours
        gc.collect()
    assert peer.recv(10) in (b"", b"x")
    peer.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("where", ["here", "thread"])
def test_stopped_and_run_again(loop_kind, native, where):
    """A loop that was stopped and is run again, also in another thread, serves its connections: the
    first thing may be a write."""
    ours, peer = tcp_pair()
    loop = new_loop(loop_kind)
    reader, writer = loop.run_until_complete(native.open_connection(sock=ours))

    def again(coroutine):
        if where == "here":
            return loop.run_until_complete(coroutine)
        result = []

        def work():
            try:
                result.append(loop.run_until_complete(coroutine))
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return result[0]

    async def write():
        writer.write(b"first")
        await writer.drain()

    async def wait_and_stop(reading):
        asyncio.get_running_loop().call_soon(loop.stop)
        return await reading

    async def shielded():
        reading = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        return reading

    try:
        assert again(write()) is None
        assert peer.recv(10) == b"first"
        reading = loop.run_until_complete(shielded())
        loop.call_soon(loop.stop)
        loop.run_forever()
        peer.send(b"while it stood still\n")

        async def wait():
            return await asyncio.wait_for(reading, 5)

        assert again(wait()) == b"while it stood still\n"

        async def end():
            writer.close()
            await writer.wait_closed()

        assert again(end()) is None
        assert peer.recv(10) == b""
    finally:
        loop.close()
        peer.close()
