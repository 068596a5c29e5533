"""The order of all that a protocol and its tasks see: the same program on asyncio's loop and on
ours gives the same list of events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.certificates import HOST, TlsPeer
from support.connections import reset

import headrace
from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="without sockets of ours the loop is asyncio's"
)
TIMEOUT_S = 10


class Noting(asyncio.Protocol):
    """Notes each call, and after each what a callback and a task see that it has started."""

    def __init__(self, does: dict[str, Callable[[Any], Any]]) -> None:
        self.does = does
        self.loop = asyncio.get_running_loop()
        self.events: list[str] = []
        self.over = self.loop.create_future()
        self.woken = self.loop.create_future()
        self.waiting = self.loop.create_task(self.wait())

    async def wait(self) -> None:
        """What a handler does: it waits for what the protocol says, and goes on."""
        while True:
            what = await self.woken
            self.woken = self.loop.create_future()
            self.events.append(f"task after {what}")
            await asyncio.sleep(0)
            self.events.append(f"task a turn after {what}")

    def note(self, what: str) -> Any:
        self.events.append(what)
        if not self.woken.done():
            self.woken.set_result(what)
        self.loop.call_soon(self.events.append, f"callback after {what}")
        act = self.does.get(what.partition(" ")[0])
        return act(self) if act is not None else None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made")

    def data_received(self, data: bytes) -> None:
        self.note(f"data_received {data!r}")

    def eof_received(self) -> Any:
        return self.note("eof_received")

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        # When the callback and the task have had their turns.
        self.loop.call_later(0.02, self.over.set_result, None)
        self.note(f"connection_lost {type(exc).__name__}")


class NotingBuffered(Noting, asyncio.BufferedProtocol):  # type: ignore[misc]
    """The same with a buffer of its own."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(1000)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.note(f"buffer_updated {bytes(self.buffer[:nbytes])!r}")


async def watched(
    peer_does: Callable[[socket.socket], Any],
    does: dict[str, Callable[[Any], Any]],
    kind: type[Noting] = Noting,
    family: int = socket.AF_INET,
    idle: bool = False,
    **options: Any,
) -> list[str]:
    """Return the events of one connection; *peer_does* is done with its other end at once, before
    the loop looks, or when the loop is *idle*."""
    loop = asyncio.get_running_loop()
    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["message"][:21]))
    ours, peer = pair(family)
    with ours, peer:
        if idle:
            loop.call_later(0.01, peer_does, peer)
        else:
            peer_does(peer)
        transport, protocol = await loop.create_connection(lambda: kind(does), sock=ours, **options)
        is_ours = type(transport).__module__.startswith("headrace")
        assert is_ours == isinstance(loop, headrace.EventLoop)
        await protocol.over
        protocol.waiting.cancel()
        return [*protocol.events, *errors]


def pair(family: int) -> tuple[socket.socket, socket.socket]:
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def on(loop_class: type, main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=loop_class) as runner:
        return runner.run(asyncio.wait_for(main(), TIMEOUT_S))


def both(main: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    return on(asyncio.SelectorEventLoop, main), on(headrace.EventLoop, main)


def says(*pieces: bytes, end: str = "") -> Callable[[socket.socket], None]:
    def act(peer: socket.socket) -> None:
        for piece in pieces:
            peer.sendall(piece)
        if end == "FIN":
            peer.shutdown(socket.SHUT_WR)
        elif end == "RST":
            reset(peer)

    return act


def close(protocol: Noting) -> None:
    protocol.transport.close()


def abort(protocol: Noting) -> None:
    protocol.transport.abort()


def stay(protocol: Noting) -> bool:
    """Keep the connection open for a while after the peer's end."""
    protocol.loop.call_later(0.01, protocol.transport.close)
    return True


def pause(protocol: Noting) -> None:
    """Pause, and resume after a while."""
    protocol.transport.pause_reading()
    protocol.loop.call_later(0.01, protocol.transport.resume_reading)


def fail(protocol: Noting) -> None:
    raise ZeroDivisionError


def say(protocol: Noting) -> None:
    protocol.transport.write(b"answer")


def say_and_close(protocol: Noting) -> None:
    say(protocol)
    close(protocol)


def close_between(protocol: Noting) -> None:
    protocol.loop.call_soon(protocol.events.append, "before close()")
    close(protocol)
    protocol.loop.call_soon(protocol.events.append, "behind close()")


def end_writing(protocol: Noting) -> None:
    protocol.transport.write_eof()


FIN = says(b"data", end="FIN")
PROGRAMS: dict[str, tuple[Callable[[socket.socket], Any], dict[str, Callable[[Any], Any]]]] = {
    "data and its end": (FIN, {}),
    "the end alone": (says(end="FIN"), {}),
    "kept open": (FIN, {"eof_received": stay}),
    "closed by data": (FIN, {"data_received": close}),
    "aborted by data": (FIN, {"data_received": abort}),
    "answered": (FIN, {"data_received": say_and_close}),
    "answered at the end": (FIN, {"eof_received": say}),
    "paused by data": (FIN, {"data_received": pause}),
    "paused at first": (FIN, {"connection_made": pause}),
    "closed at first": (FIN, {"connection_made": close}),
    "aborted at first": (FIN, {"connection_made": abort}),
    "closed between callbacks": (FIN, {"data_received": close_between}),
    "half-closed at first": (FIN, {"connection_made": end_writing}),
    "half-closed at the end": (FIN, {"eof_received": end_writing}),
    "data fails": (FIN, {"data_received": fail}),
    "the end fails": (FIN, {"eof_received": fail}),
    "the loss fails": (FIN, {"connection_lost": fail}),
    "the beginning fails": (FIN, {"connection_made": fail}),
    "a reset": (says(end="RST"), {}),
    "a reset, paused": (says(end="RST"), {"connection_made": pause}),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("idle", [False, True], ids=["at once", "idle"])
def test_order(program, family, idle):
    """Calls, callbacks and steps of tasks come in asyncio's order, on TCP and Unix sockets, where
    the loop has something to call and where it waits."""
    kind = socket.AF_INET if family == "tcp" else socket.AF_UNIX
    if program == "a reset, paused" and family == "unix":
        pytest.skip("closing a Unix socket is no reset")
    theirs, ours = both(lambda: watched(*PROGRAMS[program], family=kind, idle=idle))
    assert ours == theirs
    assert any(event.startswith("connection_lost") for event in theirs)


@pytest.mark.parametrize("program", ["data and its end", "kept open", "closed by data"])
def test_order_with_a_buffer(program):
    """The same for a BufferedProtocol."""
    peer, does = PROGRAMS[program]
    does = {name.replace("data_received", "buffer_updated"): act for name, act in does.items()}
    theirs, ours = both(lambda: watched(peer, does, NotingBuffered))
    assert ours == theirs
    assert "buffer_updated b'data'" in theirs


def test_order_is_seen():
    """The comparison itself: of data and end in one turn the task would see the end first."""

    async def main():
        protocol = Noting({})
        await asyncio.sleep(0)
        protocol.note("data_received b'data'")
        protocol.note("eof_received")
        protocol.connection_lost(None)
        await protocol.over
        protocol.waiting.cancel()
        return protocol.events

    theirs = on(asyncio.SelectorEventLoop, lambda: watched(*PROGRAMS["data and its end"]))
    assert on(asyncio.SelectorEventLoop, main) != theirs[2:]
    assert theirs.index("task after data_received b'data'") < theirs.index("eof_received")
    assert theirs.index("task after eof_received") < theirs.index("connection_lost NoneType")


def test_a_flood_is_received_turn_by_turn():
    """However much has come, a callback that data_received() has scheduled runs before the next
    data_received()."""

    async def main():
        def flood(peer):
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer.send(bytes(1 << 20))
            peer.close()

        events = await watched(flood, {})
        return [event.partition(" b'")[0] for event in events if "task" not in event]

    for events in both(main):
        assert events.count("data_received") > 1
        for before, event in itertools.pairwise(events):
            if event in ("data_received", "eof_received"):
                assert before.startswith("callback after")


def test_water_marks():
    """pause_writing() and resume_writing() come as on asyncio's loop, and the end behind what was
    unsent."""

    async def main():
        def writes(protocol):
            protocol.transport.set_write_buffer_limits(high=1000)
            protocol.transport.write(bytes(6 << 20))
            protocol.loop.call_later(0.02, drained)

        def drained():
            peers[-1].settimeout(5)
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, lambda: [peers[-1].recv(1 << 20) for _ in range(200)])

        peers = []
        return await watched(
            peers.append,
            {"connection_made": writes, "resume_writing": lambda each: each.transport.close()},
        )

    theirs, ours = both(main)
    assert [each for each in ours if "task" not in each and "callback" not in each] == [
        each for each in theirs if "task" not in each and "callback" not in each
    ]
    assert "resume_writing" in ours


# ---- TLS


async def watched_tls(
    tls: Any, end: str, does: dict[str, Callable[[Any], Any]], version: ssl.TLSVersion
) -> list[str]:
    """Return the events of a TLS connection whose peer says something and ends it by *end*."""
    loop = asyncio.get_running_loop()
    server, client = tls.contexts(version)
    ours, sock = pair(socket.AF_INET)
    sock.setblocking(False)
    with ours, sock:
        peer = TlsPeer(sock, server)
        shaking = asyncio.ensure_future(peer.handshake())
        transport, protocol = await loop.create_connection(
            lambda: Noting(does), sock=ours, ssl=client, server_hostname=HOST
        )
        await shaking
        await peer.write(b"data")
        if end == "close_notify":
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()
            sock.send(peer.outgoing.read())
        else:
            sock.shutdown(socket.SHUT_WR)
        is_ours = type(transport).__module__.startswith("headrace")
        assert is_ours == isinstance(loop, headrace.EventLoop)
        assert not transport.can_write_eof()
        # The peer leaves, or asyncio's would wait for its close_notify.
        await asyncio.sleep(0.05)
        if end == "FIN":
            assert sock.recv(100) == b""  # no close_notify, nor anything else
        sock.close()
        await protocol.over
        protocol.waiting.cancel()
        return protocol.events


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("end", ["close_notify", "FIN"])
def test_order_over_tls(tls, end, version):
    """Over TLS the peer's end closes the connection, whatever eof_received() says, in asyncio's
    order."""
    theirs, ours = both(lambda: watched_tls(tls, end, {"eof_received": lambda _: True}, version))
    assert ours == theirs
    assert [each.partition(" ")[0] for each in theirs if "after" not in each] == [
        "connection_made",
        "data_received",
        "eof_received",
        "connection_lost",
    ]


if sys.version_info >= (3, 12):

    @pytest.mark.parametrize("program", ["data and its end", "closed by data"])
    def test_order_with_eager_tasks(program):
        """The same where tasks start at once."""

        async def main():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            return await watched(*PROGRAMS[program])

        theirs, ours = both(main)
        assert ours == theirs
