"""How a server of the loop accepts: the same program on asyncio's loop and on ours sees the same,
in the same turns."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import resource
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.connections import reset

import headrace
from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="without sockets of ours the loop is asyncio's"
)
TIMEOUT_S = 10

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Turns:
    """Counts the turns of the loop from the first note on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: list[tuple[int, str]] = []
        self.now = 0
        self.stopped = False
        self.tick()

    def tick(self) -> None:
        self.now += 1
        if not self.stopped:
            self.loop.call_soon(self.tick)

    def note(self, what: str) -> None:
        if not self.events:
            self.now = 0
        self.events.append((self.now, what))

    async def over(self, count: int) -> list[tuple[int, str]]:
        """Return the events when *count* of them have come, and those of some turns more."""
        while len(self.events) < count:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        self.stopped = True
        return list(self.events)


class Noting(asyncio.Protocol):
    """Notes what it is told, and does what it is to do then."""

    def __init__(
        self, turns: Turns, name: str, does: dict[str, Callable[[Any], Any]] | None = None
    ) -> None:
        self.turns = turns
        self.name = name
        self.does = does or {}
        self.note("made")

    def note(self, what: str) -> Any:
        self.turns.note(f"{self.name} {what}")
        self.turns.loop.call_soon(self.turns.note, f"callback after {self.name} {what}")
        act = self.does.get(what)
        return act(self) if act is not None else None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connected")

    def data_received(self, data: bytes) -> None:
        self.note(f"got {data!r}")

    def eof_received(self) -> Any:
        return self.note("end")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(f"lost {type(exc).__name__}")


def on(loop_class: type, main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=loop_class) as runner:
        return runner.run(asyncio.wait_for(main(), TIMEOUT_S))


def collect() -> None:
    """asyncio leaves the socket of a connection that has failed to the collector: have it warn in
    the test that ignores that."""
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


def both(main: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    return on(asyncio.SelectorEventLoop, main), on(headrace.EventLoop, main)


def same(main: Callable[[], Awaitable[Any]]) -> Any:
    theirs, ours = both(main)
    assert ours == theirs
    return ours


@contextlib.contextmanager
def connected(server: Any, count: int = 1) -> Iterator[list[socket.socket]]:
    """Connect *count* peers at once, before the loop looks."""
    with contextlib.ExitStack() as stack:
        address = server.sockets[0].getsockname()
        yield [stack.enter_context(socket.create_connection(address)) for _ in range(count)]


async def served(
    does: Callable[[list[socket.socket]], Any],
    events: int,
    count: int = 1,
    protocols: dict[str, Callable[[Any], Any]] | None = None,
) -> list[Any]:
    """Return what happens, with the turns, to *count* connections; *does* acts at their other
    ends."""
    turns = Turns()
    names = iter("abcdef")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: turns.note(f"error: {context['message'][:31]}"))
    server = await loop.create_server(lambda: Noting(turns, next(names), protocols), "127.0.0.1", 0)
    with connected(server, count) as peers:
        does(peers)
        found = await turns.over(events)
    server.close()
    await server.wait_closed()
    return found


def close(protocol: Noting) -> None:
    protocol.transport.close()


def abort(protocol: Noting) -> None:
    protocol.transport.abort()


def fail(protocol: Noting) -> None:
    raise ZeroDivisionError


def write(protocol: Noting) -> None:
    protocol.transport.write(b"hello")


def nothing(peers: list[socket.socket]) -> None:
    pass


def leave(peers: list[socket.socket]) -> None:
    for peer in peers:
        peer.close()


def break_off(peers: list[socket.socket]) -> None:
    for peer in peers:
        reset(peer)


def test_the_turns_of_connections_that_come_together() -> None:
    events = same(lambda: served(nothing, 12, count=3))
    made = [(turn, what) for turn, what in events if not what.startswith("callback")]
    assert made == [(0, f"{name} made") for name in "abc"] + [
        (1, f"{name} connected") for name in "abc"
    ]


@pytest.mark.parametrize("does", [leave, break_off])
def test_the_turns_of_one_that_is_gone_at_once(does: Callable[[Any], None]) -> None:
    same(lambda: served(does, 6))


@pytest.mark.parametrize("act", [close, abort, fail, write])
def test_what_connection_made_may_do(act: Callable[[Any], None]) -> None:
    same(lambda: served(nothing, 4, count=2, protocols={"connected": act}))


def test_data_comes_in_a_later_turn_than_the_connection() -> None:
    def say(peers: list[socket.socket]) -> None:
        for peer in peers:
            peer.sendall(b"hello")

    async def main() -> list[str]:
        return [what for _, what in await served(say, 12, count=2)]

    same(main)


def test_one_whose_connection_made_raises_goes_on() -> None:
    async def main() -> list[str]:
        found = await served(
            lambda peers: peers[0].sendall(b"hello"), 6, protocols={"connected": fail}
        )
        return [what for _, what in found]

    events = same(main)
    assert "a got b'hello'" in events
    assert any(what.startswith("error: Exception in callback") for what in events)


@pytest.mark.filterwarnings("ignore")  # asyncio leaves the socket to the collector
def test_what_the_factory_raises_closes_the_connection_in_silence() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        errors: list[Any] = []
        loop.set_exception_handler(lambda _, context: errors.append(context["message"]))

        def factory() -> asyncio.Protocol:
            raise ZeroDivisionError

        server = await loop.create_server(factory, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        got = await reader.read()
        writer.close()
        server.close()
        await server.wait_closed()
        return got, errors

    assert same(main) == (b"", [])
    collect()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_factory_that_exits_leaves_the_loop_and_the_others_are_served(
    error: type[BaseException],
) -> None:
    def run(loop_class: type) -> list[str]:
        loop = loop_class()
        made: list[str] = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.append("connected")
                transport.close()

        def factory() -> Protocol:
            made.append("made")
            if len(made) == 1:
                raise error
            return Protocol()

        server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
        with connected(server, 3), pytest.raises(error):
            loop.run_until_complete(asyncio.sleep(1))
        loop.run_until_complete(asyncio.sleep(0.05))
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()
        return made

    theirs, ours = run(asyncio.SelectorEventLoop), run(headrace.EventLoop)
    assert sorted(ours) == sorted(theirs) == ["connected"] * 2 + ["made"] * 3
    collect()


def test_a_server_that_is_closed_before_the_protocol_is_made_takes_nobody() -> None:
    """asyncio does the same, and leaves the socket to the collector."""

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                seen.append("connected")

        def factory() -> Protocol:
            seen.append("made")
            server.close()
            return Protocol()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with connected(server) as (peer,):
            await server.wait_closed()
            peer.setblocking(False)
            seen.append(repr(await loop.sock_recv(peer, 10)))
        return seen

    assert on(headrace.EventLoop, main) == ["made", "b''"]


def test_a_server_waits_for_its_connections_and_closes_them() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        turns = Turns()
        server = await loop.create_server(lambda: Noting(turns, "a"), "127.0.0.1", 0)
        with connected(server) as (peer,):
            while len(turns.events) < 4:
                await asyncio.sleep(0)
            waiting = asyncio.ensure_future(server.wait_closed())
            server.close()
            await asyncio.sleep(0.02)
            found = [waiting.done() if sys.version_info >= (3, 12) else False]
            if sys.version_info >= (3, 13):
                server.close_clients()
            else:
                peer.close()
            await waiting
            return [*found, server.sockets, server.is_serving()]

    assert same(main) == [False, (), False]


def test_a_server_that_does_not_serve_yet_accepts_nobody() -> None:
    async def main() -> list[Any]:
        turns = Turns()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = await asyncio.get_running_loop().create_server(
                lambda: Noting(turns, "a"), sock=listener, start_serving=False
            )
            with connected(server):
                await asyncio.sleep(0.02)
                before = len(turns.events)
                await server.start_serving()
                found = await turns.over(4)
            server.close()
        return [before, *found]

    assert same(main)[0] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_connection_knows_its_names(host: str) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        lost = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.set_result(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(None)

        server = await loop.create_server(Protocol, host, 0)
        port = server.sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as peer:
            transport = await made
            names = [transport.get_extra_info("peername") == peer.getsockname()]
            sock = transport.get_extra_info("socket")
            names += [sock.getsockname() == peer.getpeername(), sock.fileno() == transport._sock_fd]
            names.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            names.append(sock.gettimeout())
            names.append(os.get_inheritable(sock.fileno()))
            transport.close()
            await lost
            # They are known when it is closed, too.
            names.append(transport.get_extra_info("peername") == peer.getsockname())
            names.append(transport.get_extra_info("sockname") == peer.getpeername())
        server.close()
        return names

    assert same(main) == [True, True, True, True, 0.0, False, True, True]


def test_a_unix_connection_knows_its_names(tmp_path: Path) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        path = str(tmp_path / "socket")

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.set_result(transport)

        server = await loop.create_unix_server(Protocol, path)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            transport = await made
            names = [transport.get_extra_info(name) for name in ("peername", "sockname")]
            transport.close()
            await asyncio.sleep(0.01)
        server.close()
        return [*names, Path(path).exists()]

    same(main)


def test_each_connection_has_a_context_of_its_own_from_its_factory_on() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        variable.set("of the server")

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                seen.append(f"connected {variable.get()}")
                transport.close()

        def factory() -> Protocol:
            seen.append(f"made {variable.get()}")
            variable.set(f"of connection {len(seen)}")
            return Protocol()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        variable.set("of somebody else")
        with connected(server, 2):
            while len(seen) < 4:
                await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
        return seen

    assert same(main) == [
        "made of the server",
        "made of the server",
        "connected of connection 1",
        "connected of connection 2",
    ]


def test_a_task_factory_sees_the_tasks_of_accepting() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        made: list[bool] = []

        def task_factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            return asyncio.Task(coroutine, loop=loop, **options)

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.close()

        def factory() -> Protocol:
            made.append(asyncio.current_task() is not None)
            return Protocol()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        loop.set_task_factory(task_factory)
        with connected(server):
            while not made:
                await asyncio.sleep(0)
        loop.set_task_factory(None)
        server.close()
        await server.wait_closed()
        return made

    assert same(main) == [True]


def test_remove_reader_stops_accepting() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        turns = Turns()
        server = await loop.create_server(lambda: Noting(turns, "a"), "127.0.0.1", 0)
        assert loop.remove_reader(server.sockets[0].fileno())
        with connected(server):
            await asyncio.sleep(0.02)
        server.close()
        return len(turns.events)

    assert same(main) == 0


def test_a_lack_of_descriptors_is_reported_and_accepting_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.05)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        errors: list[Any] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        turns = Turns()
        server = await loop.create_server(lambda: Noting(turns, "a"), "127.0.0.1", 0, backlog=1)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with connected(server) as (peer,):
            top = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
            # Every number below is taken.
            taken = [os.dup(peer.fileno()) for _ in range(top - len(os.listdir("/proc/self/fd")))]
            resource.setrlimit(resource.RLIMIT_NOFILE, (top, before[1]))
            try:
                spare = []
                with contextlib.suppress(OSError):
                    while True:
                        spare.append(os.dup(peer.fileno()))
                while not errors:
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for each in [*taken, *spare]:
                    os.close(each)
            assert not turns.events
            await turns.over(4)
        server.close()
        await server.wait_closed()
        first = errors[0]
        return first["message"], first["exception"].errno, type(first["socket"]).__name__

    assert same(main) == (
        "socket.accept() out of system resource",
        errno.EMFILE,
        "TransportSocket",
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_closed_between_loses_no_descriptor() -> None:
    loop = headrace.EventLoop()
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    with connected(server, 3) as peers:
        loop.call_soon(loop.stop)
        loop.run_forever()  # one turn: they are accepted
        server.close()
        loop.close()
        for peer in peers:
            peer.settimeout(TIMEOUT_S)
        del server, loop
        gc.collect()
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
