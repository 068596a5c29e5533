"""Loops that nobody has told headrace of: each gets the native way that can watch an epoll set,
which is found out by trying."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import select
import selectors
import socket
import time
import weakref

import pytest
from conftest import OURS, new_loop, open_descriptors
from support.connections import LOOPBACK, echo, serving

import headrace
from headrace._transport import backend, loops, trial

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch):
    """No way is asked for, and no loop was tried before."""
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(trial, "_found", weakref.WeakKeyDictionary())
    monkeypatch.setattr(trial, "TICK_SECONDS", 0.004)


class Counting(asyncio.SelectorEventLoop):
    """asyncio's loop, which counts the epoll sets that it is given to watch."""

    sets = 0

    def add_reader(self, fd, callback, *arguments):
        if isinstance(getattr(callback, "__self__", None), trial.Trial):
            self.sets += 1
        return super().add_reader(fd, callback, *arguments)


def run_on(loop, coroutine):
    """Return what *coroutine* returns on *loop*, which is closed; nothing may be left open."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 20))


async def chosen(**given):
    return await backend.choose(asyncio.get_running_loop(), 65536, **given)


async def talk(address, **options):
    """Say something to an echo at *address*, half-close, hear it and the end; return the way that
    was taken."""
    reader, writer = await headrace.open_connection(*address, **options)
    native = type(writer.transport) is backend.native.SocketTransport
    writer.write(b"line\n" * 50)
    await writer.drain()
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"line\n" * 50
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), 5)
    return "native" if native else "portable"


async def talk_to_own_server():
    async with serving(OURS, echo) as address:
        return await talk(address)


# rloop does not close the sockets by which it is woken.
RLOOP_WARNS = "ignore:unclosed <socket.socket.*family=1.*:ResourceWarning"


def new_loop_of(name):
    """Return a new loop of the package *name*."""
    return pytest.importorskip(name).new_event_loop()


# ---- which loops


def test_every_loop_of_the_tests(loop_kind):
    """asyncio's loop, in debug mode and with eager tasks too, and uvloop are tried and take the
    native way; nothing is left."""
    before = open_descriptors()
    assert run_on(new_loop(loop_kind), talk_to_own_server()) == "native"
    assert open_descriptors() == before
    assert list(trial._found.values()) == [None]


@pytest.mark.parametrize(
    "selector", [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector]
)
def test_every_selector(selector):
    """asyncio's loop passes over select(), poll() and epoll."""
    assert run_on(asyncio.SelectorEventLoop(selector()), talk_to_own_server()) == "native"


class EdgeSelector(selectors.EpollSelector):
    """Tells of what is ready when it becomes so, and not again."""

    def register(self, fileobj, events, data=None):
        key = super().register(fileobj, events, data)
        self._selector.modify(
            key.fd,
            select.EPOLLET | (select.EPOLLIN if events & selectors.EVENT_READ else select.EPOLLOUT),
        )
        return key


class Edge(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__(EdgeSelector())


class Deaf(asyncio.SelectorEventLoop):
    """Takes every descriptor, and tells nothing."""

    def add_reader(self, fd, callback, *arguments):
        pass


class Refusing(asyncio.SelectorEventLoop):
    def add_reader(self, fd, callback, *arguments):
        raise PermissionError(errno.EPERM, "no sets here")


class Without(asyncio.SelectorEventLoop):
    add_reader = asyncio.AbstractEventLoop.add_reader


class NoConnect(asyncio.SelectorEventLoop):
    sock_connect = asyncio.AbstractEventLoop.sock_connect


class Keeping(asyncio.SelectorEventLoop):
    """Does not give descriptors back."""

    def remove_reader(self, fd):
        raise ValueError("mine")


UNFIT = [
    (Edge, "tells once of an epoll set, and not again of what was left"),
    (Deaf, "tells nothing of an epoll set"),
    (Refusing, "takes no epoll set (PermissionError: [Errno 1] no sets here)"),
    (Without, "takes no epoll set (NotImplementedError)"),
    (NoConnect, "this loop has no sock_connect()"),
    (Keeping, "its remove_reader() fails (ValueError: mine)"),
]


@pytest.mark.parametrize(("kind", "words"), UNFIT, ids=[kind.__name__ for kind, _ in UNFIT])
def test_unfit_loops(kind, words):
    """A loop that cannot watch an epoll set takes the portable way, soon, and the reason says why;
    it leaves no descriptor."""
    before = open_descriptors()

    async def main():
        began = time.monotonic()
        choice = await chosen()
        assert time.monotonic() - began < 2
        assert choice.way == "portable"
        assert words in choice.reason
        assert await chosen() == choice
        assert (await chosen(way="native")).way == "native"

    run_on(kind(), main())
    gc.collect()
    assert open_descriptors() == before


def test_what_a_loop_does_not_give_back():
    """The set of a loop that has kept it is not ready, and its number is nobody else's, until the
    loop is closed."""

    async def main():
        loop = asyncio.get_running_loop()
        assert (await chosen()).way == "portable"
        callbacks = {key.fd: key.data[0]._callback for key in loop._selector.get_map().values()}
        kept = [
            fd for fd, callback in callbacks.items() if isinstance(callback.__self__, trial.Trial)
        ]
        assert len(kept) == 1
        assert select.select(kept, [], [], 0) == ([], [], [])

    run_on(Keeping(), main())


# ---- once, and for whom


def test_once_for_a_class():
    """The second loop of a class is not tried, nor is a second connection; a class derived from it
    is tried for itself."""

    class Derived(Counting):
        pass

    for loop, expected in (Counting(), 1), (Counting(), 0), (Derived(), 1), (Derived(), 0):
        assert run_on(loop, talk_to_own_server()) == "native"
        assert loop.sets == expected


def test_asked_for_is_not_tried(monkeypatch):
    """Where a way is asked for, or something else stands in the way of the native one, no loop is
    tried."""

    class Socket(socket.socket):
        def recv(self, *arguments):
            return super().recv(*arguments)

    async def main():
        await chosen(way="native")
        await chosen(way="portable")
        await chosen(tls=object())
        with Socket() as sock:
            await chosen(sock=sock)
        for way in backend.WAYS:
            monkeypatch.setenv(backend.VARIABLE, way)
            await chosen()

    loop = Counting()
    run_on(loop, main())
    assert loop.sets == 0


def test_many_at_once():
    """Fifty connections that are opened at once on a new class of loop wait for one trial."""

    async def main():
        async with serving(OURS, echo, way="portable") as address:
            assert await asyncio.gather(*(talk(address) for _ in range(50))) == ["native"] * 50

    loop = Counting()
    run_on(loop, main())
    assert loop.sets == 1


class Front:
    """Stands in front of a loop and hands everything to it."""

    def __init__(self, loop):
        self._loop = loop

    def __getattr__(self, name):
        return getattr(self._loop, name)


class SeeingFront(Front):
    def create_connection(self, *arguments, **options):
        return self._loop.create_connection(*arguments, **options)


def test_loops_in_front_of_others():
    """What is found holds for the loop that watches, not for a class in front of it; one that makes
    the connections makes them."""

    async def main(front, way):
        choice = await backend.choose(front(asyncio.get_running_loop()), 65536)
        assert choice.way == way

    for loop in Edge(), Counting():
        run_on(loop, main(Front, "portable" if type(loop) is Edge else "native"))
    run_on(Counting(), main(SeeingFront, "portable"))
    assert set(trial._found) == {Edge, Counting}


def test_who_made_the_loop():
    """A loop's own create_connection() is no obstacle, whatever package it is from; one that was
    put in later is."""

    class Made(asyncio.AbstractEventLoop):
        def add_reader(self, fd, callback, *arguments):
            pass

        def create_connection(self, *arguments, **options):
            pass

    class Changed(Made):
        def create_connection(self, *arguments, **options):
            pass

    Made.__module__ = "made.loop"
    assert loops.replaced(Made()) is None
    assert "put a create_connection() of his own" in loops.replaced(Changed())
    loop = Made()
    loop.create_server = loop.create_server
    assert "put a create_server() of his own" in loops.replaced(loop)


def test_classes_are_not_kept():
    """What was found does not keep a class of loops that its program has dropped."""

    def once():
        class Passing(asyncio.SelectorEventLoop):
            pass

        run_on(Passing(), chosen())
        assert len(trial._found) == 1

    once()
    gc.collect()
    assert len(trial._found) == 0


# ---- at bad times


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "rloop"])
@pytest.mark.filterwarnings(RLOOP_WARNS)
def test_a_busy_loop(name):
    """A loop whose program blocks it longer than a tick, and that has always something to do, is
    heard all the same."""

    async def main():
        loop = asyncio.get_running_loop()
        busy = True

        def block():
            time.sleep(0.01)
            if busy:
                loop.call_soon(block)

        block()
        choice = await chosen()
        busy = False
        return choice.way

    assert run_on(new_loop_of(name), main()) == "native"


def test_who_is_cancelled():
    """A task that waits for a trial can be cancelled; the others still get its result. Where all
    are, it ends, and the next one tries again."""

    async def main():
        loop = asyncio.get_running_loop()
        before = open_descriptors()
        tasks = [asyncio.create_task(chosen()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert (await tasks[1]).way == (await tasks[2]).way == "native"
        trial._found.clear()
        tasks = [asyncio.create_task(chosen()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(open_descriptors() - before) == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert open_descriptors() == before
        assert len(trial._found) == 0
        assert loop.sets == 2
        assert (await chosen()).way == "native"
        assert loop.sets == 3
        assert open_descriptors() == before
        assert trial._KEY not in loop.__dict__

    run_on(Counting(), main())


@pytest.mark.parametrize("end", ["cancelled", "dropped"])
def test_a_loop_that_ends(loop_kind, monkeypatch, end):
    """A loop that is closed in the middle of a trial keeps no descriptor, and nothing was found."""
    monkeypatch.setattr(trial.Trial, "_tell", lambda _: None)
    loop = new_loop(loop_kind)
    before = open_descriptors()
    loop.set_exception_handler(lambda *_: None)  # 'Task was destroyed but it is pending!'
    task = loop.create_task(chosen())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(open_descriptors() - before) == 2
    if end == "cancelled":
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()
    del task, loop
    gc.collect()
    assert not open_descriptors() - before
    assert len(trial._found) == 0


@pytest.mark.parametrize("what", ["epoll", "eventfd"])
def test_no_descriptor_to_spare(monkeypatch, what):
    """Without a descriptor for the trial this connection takes the portable way, and the next one
    tries again."""

    def fail(*_):
        raise OSError(errno.EMFILE, "too many")

    async def main():
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(*((select, "epoll") if what == "epoll" else (trial.os, "eventfd")), fail)
            choice = await chosen()
        assert choice.way == "portable"
        assert "too many" in choice.reason
        assert open_descriptors() == before
        assert (await chosen()).way == "native"

    run_on(asyncio.SelectorEventLoop(), main())


def test_the_order_of_callbacks():
    """What the program has scheduled keeps its order and its turns while a loop is tried."""

    async def main():
        loop = asyncio.get_running_loop()
        seen = []

        def note(number):
            seen.append(number)
            if number < 20:
                loop.call_soon(note, number + 1)

        task = asyncio.create_task(chosen())
        loop.call_soon(note, 0)
        loop.call_later(0, seen.append, "timer")
        await task
        while seen[-1] != 20:
            await asyncio.sleep(0)
        assert [each for each in seen if each != "timer"] == list(range(21))
        assert seen.count("timer") == 1

    run_on(asyncio.SelectorEventLoop(), main())


# ---- rloop, on which portable streams hang at the end


async def echoes(count, size):
    """Have *count* connections at once each say *size* bytes, and hear them."""

    async def one(address):
        reader, writer = await headrace.open_connection(*address)
        data = bytes(range(256)) * (size // 256)

        async def send():
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read() == data
        await sending
        writer.close()
        await writer.wait_closed()

    async with serving(OURS, echo) as address:
        await asyncio.gather(*(one(address) for _ in range(count)))


async def over_tls(context):
    server, client = context
    async with serving(OURS, echo, ssl=server) as address:
        assert await talk(address, ssl=client, server_hostname="localhost") == "native"


async def upgraded(context):
    server, client = context

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(server)
        await echo(reader, writer)

    async with serving(OURS, serve) as address:
        reader, writer = await headrace.open_connection(*address)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client, server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        writer.close()
        await writer.wait_closed()


async def over_unix(path):
    server = await headrace.start_unix_server(echo, path)
    reader, writer = await headrace.open_unix_connection(path)
    writer.write(b"line\n")
    writer.write_eof()
    assert await reader.read() == b"line\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def cancelled_reads():
    async with serving(OURS, echo) as address:
        reader, writer = await headrace.open_connection(*address)
        heard = b""
        for number in range(50):
            task = asyncio.create_task(reader.readline())
            await asyncio.sleep(0)
            writer.write(b"%06d\n" % number)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                heard += await task
        heard += await reader.readexactly(350 - len(heard))
        assert heard == b"".join(b"%06d\n" % number for number in range(50))
        writer.close()
        await writer.wait_closed()


async def in_production():
    async with headrace.serve(echo, LOOPBACK, 0, idle_timeout=5) as server:
        assert await talk(server.sockets[0].getsockname()) == "native"


SCENES = {
    "own": lambda tls, path: talk_to_own_server(),
    "many": lambda tls, path: echoes(100, 256),
    "large": lambda tls, path: echoes(3, 4 << 20),
    "tls": lambda tls, path: over_tls(tls),
    "start_tls": lambda tls, path: upgraded(tls),
    "unix": lambda tls, path: over_unix(path),
    "cancelled": lambda tls, path: cancelled_reads(),
    "serve": lambda tls, path: in_production(),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
@pytest.mark.filterwarnings(RLOOP_WARNS)
def test_rloop(scene, tls, tmp_path):
    """rloop takes the native way: more connections at once than a batch serves, TLS, Unix sockets,
    ends; nothing is left in it."""

    async def main():
        await chosen()
        before = open_descriptors()
        await scene(tls.contexts(), str(tmp_path / "socket"))
        await asyncio.sleep(0.01)
        gc.collect()
        assert open_descriptors() == before

    run_on(new_loop_of("rloop"), main())
