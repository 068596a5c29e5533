"""A turn of headrace.EventLoop: what is served inside select() overtakes nothing, and is not taken
for idleness; everything else of a loop is as on asyncio's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from typing import Any

import pytest
from conftest import open_descriptors

import headrace
from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="without sockets of ours the loop is asyncio's"
)
LOOPS = [asyncio.SelectorEventLoop, headrace.EventLoop]
TIMEOUT_S = 10


def on(loop_class: Any, main: Any) -> Any:
    with asyncio.Runner(loop_factory=loop_class) as runner:
        return runner.run(asyncio.wait_for(main, TIMEOUT_S))


async def connected(protocol: Any) -> tuple[Any, socket.socket]:
    """Return the transport of one end of a connection, and the other end."""
    ours, peer = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    await asyncio.sleep(0)
    return transport, peer


class Noting(asyncio.Protocol):
    def __init__(self, events: list[Any], act: Any = None) -> None:
        self.events = events
        self.act = act

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        if self.act is not None:
            self.act(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")


def test_the_selector_is_ours():
    """It has a selector of ours, unless it is given one, or sockets are left to the loop."""
    loop = headrace.EventLoop()
    assert isinstance(loop._selector, backend.native.Selector)
    loop.close()
    given = selectors.EpollSelector()
    loop = headrace.EventLoop(given)
    assert loop._selector is given
    transport, peer = loop.run_until_complete(connected(asyncio.Protocol()))
    transport.close()
    peer.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


def test_portable_has_asyncios_selector(monkeypatch):
    """HEADRACE_WAY=portable leaves the waiting to asyncio's selector too."""
    monkeypatch.setenv("HEADRACE_WAY", "portable")
    loop = headrace.EventLoop()
    assert not isinstance(loop._selector, backend.native.Selector)
    loop.close()


def test_one_set():
    """However many connections and listeners there are, the loop has one epoll set."""

    before = open_descriptors()  # of loops of other tests that nobody has collected yet, too

    async def main():
        transport, peer = await connected(asyncio.Protocol())
        async with await headrace.start_server(lambda r, w: w.close(), "127.0.0.1", 0):
            added = open_descriptors() - before
        transport.close()
        peer.close()
        return [each for each in added if "eventpoll" in each]

    assert len(on(headrace.EventLoop, main())) == 1


@pytest.mark.parametrize("due", ["callback", "timer", "reader", "thread"])
@pytest.mark.parametrize("loop_class", LOOPS)
def test_what_is_due_is_not_overtaken(loop_class, due):
    """What a protocol schedules runs behind what was due when its data came."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        protocol = Noting(events, lambda _: loop.call_soon(events.append, "scheduled by data"))
        transport, peer = await connected(protocol)
        first, second = socket.socketpair()
        if due == "reader":
            second.send(b"x")
            loop.add_reader(first, lambda: (first.recv(1), events.append("due")))
        elif due == "timer":
            loop.call_later(0.01, events.append, "due")
            time.sleep(0.02)
        elif due == "callback":
            loop.call_soon(events.append, "due")
        else:
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(events.append, "due"))
            thread.start()
            thread.join()
        peer.send(b"data")
        while "scheduled by data" not in events:
            await asyncio.sleep(0.001)
        if due == "reader":
            loop.remove_reader(first)
        transport.close()
        for each in (first, second, peer):
            each.close()
        return events[:3]

    events = on(loop_class, main())
    assert events.index("due") < events.index("scheduled by data")
    assert events.index(b"data") < events.index("scheduled by data")


@pytest.mark.parametrize("loop_class", LOOPS)
def test_a_timer_set_while_serving(loop_class):
    """A timer, a callback or stop() of what is served inside select() is not forgotten there."""
    loop = loop_class()
    events: list[Any] = []
    try:
        asyncio.set_event_loop(loop)
        transport, peer = loop.run_until_complete(connected(Noting(events)))
        with peer:
            for name, act in (
                ("timer", lambda _: loop.call_later(0.005, loop.stop)),
                ("callback", lambda _: loop.call_soon(loop.stop)),
                ("stop", lambda _: loop.stop()),
            ):
                transport.get_protocol().act = act
                # A later timer is there already; nothing else happens.
                far = loop.call_later(TIMEOUT_S, pytest.fail)
                thread = threading.Timer(0.02, peer.send, [name.encode()])
                thread.start()
                begun = time.monotonic()
                loop.run_forever()
                assert time.monotonic() - begun < TIMEOUT_S / 2
                far.cancel()
                thread.join()
            transport.close()
            loop.run_until_complete(asyncio.sleep(0.01))
        assert events == [b"timer", b"callback", b"stop", "lost"]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_cancelled_timers_are_dropped():
    """A connection that is busy all the time does not keep the loop from dropping timers that were
    cancelled."""

    async def main():
        loop = asyncio.get_running_loop()
        far = loop.call_later(TIMEOUT_S, pytest.fail)
        most = 0

        async def handle(reader, writer):
            nonlocal most
            while data := await reader.read(100):
                loop.call_later(2 * TIMEOUT_S, pytest.fail).cancel()
                most = max(most, len(loop._scheduled))
                writer.write(data)
            writer.close()
            await writer.wait_closed()

        async with await headrace.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await headrace.open_connection(*server.sockets[0].getsockname())
            for _ in range(2000):
                writer.write(b"x")
                await reader.read(1)
            writer.close()
            await writer.wait_closed()
        far.cancel()
        return most

    assert on(headrace.EventLoop, main()) < 400


def test_serving_is_not_idleness():
    """Where a program puts a select() of its own in front, it sees an event when a connection was
    served, and never an empty list, which would mean that nothing happens."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        protocol = Noting(events)
        transport, peer = await connected(protocol)
        select = loop._selector.select
        told = []

        def mine(timeout):
            before = len(events)
            found = select(timeout)
            if len(events) > before:
                told.append(found)
            return found

        loop._selector.select = mine
        for _ in range(3):
            over = loop.create_future()
            protocol.act = over.set_result
            loop.call_soon(peer.send, b"data")
            await over
        del loop._selector.select
        transport.close()
        peer.close()
        return told

    told = on(headrace.EventLoop, main())
    assert len(told) == 3  # served inside
    assert all(told)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_batch_that_was_interrupted_goes_on(kind):
    """Where one protocol leaves the loop, the others that were ready are served, now or when the
    loop runs again."""
    loop = headrace.EventLoop()
    events: list[Any] = []
    ends = []
    try:

        def leave(data):
            if len(events) == 1:
                raise kind

        for _ in range(3):
            ends.append(loop.run_until_complete(connected(Noting(events, leave))))
        for _, peer in ends:
            peer.send(b"x")
        with pytest.raises(kind):
            loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.01))
        assert events == [b"x"] * 3
        for transport, peer in ends:
            transport.abort()
            peer.close()
        loop.run_until_complete(asyncio.sleep(0.01))
    finally:
        loop.close()


@pytest.mark.parametrize("loop_class", LOOPS)
def test_context(loop_class):
    """A protocol is called in the context of its connection, wherever it is served."""
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def main():
        seen: list[Any] = []
        ends = []
        for name in ("first", "second"):
            variable.set(name)
            protocol = Noting([], lambda _: seen.append(variable.get()))
            ends.append(await connected(protocol))
        variable.set("task")
        for _, peer in ends:
            peer.send(b"x")
            await asyncio.sleep(0.01)
        for transport, peer in ends:
            transport.close()
            peer.close()
        return seen

    assert on(loop_class, main()) == ["first", "second"]


def test_a_signal_stops_a_busy_loop():
    """Ctrl-C ends a program whose connections leave the loop no rest."""

    async def main():
        loop = asyncio.get_running_loop()
        echoes = [Echo(), Echo()]
        for echo, sock in zip(echoes, socket.socketpair(), strict=True):
            await loop.create_connection(lambda echo=echo: echo, sock=sock)
        echoes[0].transport.write(b"x")
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        try:
            await loop.create_future()
        finally:
            for echo in echoes:
                echo.transport.abort()
            await asyncio.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        on(headrace.EventLoop, main())


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def test_two_loops_in_two_threads():
    """Each has its own set."""
    counts = []

    async def main():
        async def handle(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        async with await headrace.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await headrace.open_connection(*server.sockets[0].getsockname())
            for _ in range(300):
                writer.write(b"x")
                counts.append(len(await reader.read(1)))
            writer.close()
            await writer.wait_closed()

    threads = [threading.Thread(target=on, args=(headrace.EventLoop, main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert counts == [1] * 600


@pytest.mark.parametrize("first", ["reader", "transport"])
def test_watched_by_the_loop_and_by_us(first):
    """A descriptor of a connection of ours can be watched by the loop's selector too, before and
    after the connection has it."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        ours, peer = socket.socketpair()
        told = loop.create_future()

        def tell():
            if not told.done():
                told.set_result(None)

        def watch():
            loop._selector.register(
                ours.fileno(), selectors.EVENT_READ, (asyncio.Handle(tell, (), loop), None)
            )

        if first == "reader":
            watch()
        transport, _ = await loop.create_connection(lambda: Noting(events), sock=ours)
        transport.pause_reading()
        await asyncio.sleep(0)
        if first == "transport":
            watch()
        peer.send(b"x")
        await told
        loop._selector.unregister(ours.fileno())
        transport.resume_reading()
        while not events:
            await asyncio.sleep(0.001)
        transport.close()
        await asyncio.sleep(0.01)
        assert peer.recv(10) == b""
        peer.close()
        return events

    assert on(headrace.EventLoop, main()) == [b"x", "lost"]


def test_a_copy_does_not_keep_a_connection_open():
    """Closing a connection that the loop's selector watches too ends it for the peer."""

    async def main():
        loop = asyncio.get_running_loop()
        transport, peer = await connected(asyncio.Protocol())
        fd = transport.get_extra_info("socket").fileno()
        loop._selector.register(fd, 1, (None, None))
        transport.close()
        await asyncio.sleep(0.01)
        peer.settimeout(1)
        assert peer.recv(1) == b""
        loop._selector.unregister(fd)
        peer.close()

    on(headrace.EventLoop, main())


# There may be threads of other tests, which the child has nothing to do with.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_leaves_the_parents_set_alone():
    """A forked child that closes the loop takes nothing from its parent's."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        transport, peer = await connected(Noting(events))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                loop.remove_reader(loop._ssock.fileno())
                loop._selector.close()
            os._exit(0)
        os.waitpid(child, 0)
        peer.send(b"x")
        # By the loop's own pipe, which the child has unregistered.
        await loop.run_in_executor(None, time.sleep, 0.01)
        assert events == [b"x"]
        transport.close()
        peer.close()

    on(headrace.EventLoop, main())


@pytest.mark.parametrize("loop_class", LOOPS)
@pytest.mark.parametrize("first", ["schedule", "stop"])
def test_stop_by_a_protocol(loop_class, first):
    """What a protocol that stops the loop has scheduled is called in the next run, in its order."""
    loop = loop_class()
    events: list[Any] = []

    def act(_: bytes) -> None:
        if first == "stop":
            loop.stop()
        loop.call_soon(events.append, "scheduled")
        loop.call_soon(events.append, "and this")
        loop.stop()

    transport, peer = loop.run_until_complete(connected(Noting(events, act)))
    loop.call_later(0.02, peer.send, b"x")
    loop.run_forever()
    assert events == [b"x"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert events == [b"x", "scheduled", "and this"]
    transport.close()
    peer.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


def test_closed_with_connections_open():
    """A loop that is closed has closed the set; what is still open can be closed."""
    loop = headrace.EventLoop()
    selector = loop._selector
    transport, peer = loop.run_until_complete(connected(asyncio.Protocol()))
    loop.close()
    with pytest.raises(ValueError, match="closed"):
        selector.fileno()
    with pytest.raises(RuntimeError, match="closed"):
        transport.abort()
    peer.close()


def test_callbacks_do_not_starve_connections():
    """A callback that schedules itself for ever leaves connections their turns."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        transport, peer = await connected(Noting(events))
        over = False

        def again():
            if not over:
                loop.call_soon(again)

        again()
        peer.send(b"x")
        while not events:
            await asyncio.sleep(0)
        over = True
        transport.close()
        peer.close()

    on(headrace.EventLoop, main())


def test_connections_do_not_starve_readers():
    """With many connections ready at once, what becomes ready for the loop meanwhile is called
    after so many of them."""

    async def main():
        loop = asyncio.get_running_loop()
        events: list[Any] = []
        first, second = socket.socketpair()
        ends = [await connected(Noting(events, lambda _: second.send(b"x"))) for _ in range(150)]
        loop.add_reader(first, lambda: (first.recv(100), events.append("reader")))
        for _, peer in ends:
            peer.send(b"x")
        while events.count(b"x") < 150:
            await asyncio.sleep(0)
        loop.remove_reader(first)
        for transport, peer in ends:
            transport.close()
            peer.close()
        first.close()
        second.close()
        return events

    events = on(headrace.EventLoop, main())
    assert events.index("reader") <= 32
    assert events.count("reader") >= 4


def test_timers_are_exact():
    """A timer is not early; where the system can, it is not late by a millisecond."""

    async def main():
        loop = asyncio.get_running_loop()
        late = []
        for _ in range(20):
            when = loop.time() + 0.0003
            over = loop.create_future()
            loop.call_at(when, lambda when=when, over=over: over.set_result(loop.time() - when))
            late.append(await over)
        return late

    late = on(headrace.EventLoop, main())
    assert min(late) >= -1e-9
