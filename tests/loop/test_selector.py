"""Selector is as selectors.EpollSelector to whoever registers with it: what happens to both is the
same, whatever is done."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace._transport import backend

pytestmark = pytest.mark.skipif(backend.native is None, reason="there is no selector of ours")
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def ours() -> Any:
    return backend.native.Selector()


class Named:
    """A file object: its fileno() is what it was told."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def fileno(self) -> Any:
        return self.number

    def __repr__(self) -> str:
        return "Named"


class World:
    """One selector, and descriptors that it watches: the same numbers in each world, one after
    another."""

    def __init__(self, selector: Any) -> None:
        self.selector = selector
        self.pairs = [socket.socketpair() for _ in range(3)]
        for pair in self.pairs:
            for sock in pair:
                sock.setblocking(False)
        self.copies: list[int] = []
        self.named = [Named(sock) for sock in (None, -1, "x")]

    def names(self, fileobj: Any) -> Any:
        """Return what is the same in both worlds for *fileobj*."""
        for number, pair in enumerate(self.pairs):
            for side, sock in enumerate(pair):
                if fileobj is sock:
                    return ("socket", number, side)
        return repr(fileobj)

    def file(self, which: tuple[str, int, int]) -> Any:
        form, number, side = which
        sock = self.pairs[number][side]
        if form == "number":
            return sock.fileno()
        if form == "named":
            return Named(sock.fileno())
        if form == "bad":
            return self.named[number]
        if form == "copy":
            self.copies.append(os.dup(sock.fileno()) if sock.fileno() >= 0 else -1)
            return self.copies[-1]
        return sock

    def close(self) -> None:
        self.selector.close()
        for pair in self.pairs:
            for sock in pair:
                sock.close()
        for copy in self.copies:
            with contextlib.suppress(OSError):
                os.close(copy)


def outcome(act: Callable[[], Any]) -> Any:
    """Return what *act* returned, or what it raised, in words."""
    try:
        return act()
    except Exception as error:
        return type(error), getattr(error, "errno", None), len(str(error)) > 0


def key_of(world: World, key: Any) -> Any:
    return (world.names(key.fileobj), key.fd, key.events, key.data, type(key))


def do(world: World, step: tuple[Any, ...]) -> Any:
    what, which, events, data = step
    selector = world.selector
    sock = world.pairs[which[1]][which[2]]
    match what:
        case "register" | "modify":
            file = world.file(which)
            return outcome(lambda: key_of(world, getattr(selector, what)(file, events, data)))
        case "unregister":
            return outcome(lambda: key_of(world, selector.unregister(world.file(which))))
        case "get_key":
            return outcome(lambda: key_of(world, selector.get_key(world.file(which))))
        case "in map":
            return outcome(lambda: world.file(which) in selector.get_map())
        case "get":
            return outcome(lambda: selector.get_map().get(world.file(which), "none") == "none")
        case "map":
            return outcome(lambda: (len(selector.get_map()), sorted(selector.get_map())))
        case "select":
            return outcome(
                lambda: sorted((key_of(world, key), mask) for key, mask in selector.select(0))
            )
        case "fill":
            return outcome(lambda: [sock.send(bytes(1 << 20)) for _ in range(2)])
        case "send":
            return outcome(lambda: sock.send(b"x"))
        case "receive":
            return outcome(lambda: sock.recv(1 << 22))
        case "shut down":
            return outcome(lambda: sock.shutdown(socket.SHUT_WR))
        case "close file":
            return sock.close()
        case "close":
            return selector.close()


WHICH = st.tuples(
    st.sampled_from(["socket", "socket", "number", "named", "bad", "copy"]),
    st.integers(0, 2),
    st.integers(0, 1),
)
WHAT = [
    *["register", "modify", "unregister", "select", "send"] * 3,
    *["get_key", "in map", "get", "map", "fill", "receive", "shut down", "close file"],
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(WHAT),
        WHICH,
        st.sampled_from([READ, WRITE, READ | WRITE, READ | WRITE, 0, 4, 7]),
        st.sampled_from([None, "data", 1]),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.booleans())
def test_as_epoll_selector(steps, closed):
    """Any sequence of calls has the same results and the same errors, closed files, copies of them
    and a closed selector included."""
    if closed:
        steps = [*steps, ("close", ("socket", 0, 0), 0, None), *steps[:6]]
    told = []
    for kind in (selectors.EpollSelector, ours):
        world = World(kind())
        try:
            told.append([do(world, step) for step in steps])
        finally:
            world.close()
    # The descriptors have the same numbers: each world is closed before the next is made.
    assert told[1] == told[0]


@pytest.fixture
def selector() -> Iterator[Any]:
    with ours() as selector:
        yield selector


def test_is_a_selector(selector):
    """It is a BaseSelector, and one by its methods; it has attributes that can be replaced."""
    assert isinstance(selector, selectors.BaseSelector)
    assert isinstance(selector.fileno(), int)
    selector.select = lambda timeout: "mine"
    assert selector.select(0) == "mine"


def test_a_closed_selector():
    """A closed one can be closed again, and says that it is closed."""
    selector = ours()
    selector.close()
    selector.close()
    for act in (selector.fileno, lambda: selector.select(0), lambda: selector.register(0, READ)):
        with pytest.raises(ValueError, match="closed epoll"):
            act()
    assert selector.get_map() is None


@pytest.mark.parametrize("end", ["HUP", "ERR", "HUP of a pipe", "ERR of a pipe"])
@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_hangups_and_errors(end, events):
    """What the system calls a hangup or an error is an event for whatever is watched."""
    told = []
    for kind in (selectors.EpollSelector, ours):
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(kind())
            if "pipe" in end:
                reading, writing = os.pipe()
                ends = [os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)]
            else:
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    ends = [socket.create_connection(listener.getsockname())]
                    ends.append(listener.accept()[0])
            for each in ends:
                stack.enter_context(each)
            kept, closed = ends if end.startswith("HUP") else reversed(ends)
            selector.register(kept, events)
            if end == "ERR":
                linger = b"\1\0\0\0\0\0\0\0"
                closed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            closed.close()
            told.append([mask for _, mask in selector.select(1)])
    assert told[1] == told[0]


def test_many_are_told_at_once(selector):
    """All that is ready is told in one call, however much that is."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock, peer = (stack.enter_context(each) for each in socket.socketpair())
            selector.register(sock, READ)
            peer.send(b"x")
        assert len(selector.select(0)) == 100


@pytest.mark.parametrize("timeout", [None, 0, -1, 0.0, 1e-9, 0.003, 1])
def test_timeouts(timeout, selector):
    """It waits as long as it was told and no shorter, and not at all for what is there."""
    sock, peer = socket.socketpair()
    with sock, peer:
        selector.register(sock, READ)
        if timeout is None or timeout == 1:
            peer.send(b"x")
            assert len(selector.select(timeout)) == 1
        else:
            begun = time.monotonic()
            assert selector.select(timeout) == []
            assert max(timeout, 0) <= time.monotonic() - begun < 1


@pytest.mark.parametrize("timeout", ["1", b"1", []])
def test_what_is_no_timeout(timeout, selector):
    """What is no number is refused."""
    with pytest.raises(TypeError):
        selector.select(timeout)


def test_a_long_timeout(selector):
    """A timeout beyond what the system can count is a long one."""
    with selector_woken(selector):
        assert len(selector.select(float("1e300"))) == 1


@contextlib.contextmanager
def selector_woken(selector: Any) -> Iterator[None]:
    sock, peer = socket.socketpair()
    with sock, peer:
        selector.register(sock, READ)
        timer = threading.Timer(0.02, peer.send, [b"x"])
        timer.start()
        yield
        timer.join()


def test_a_signal_does_not_shorten_the_wait(selector):
    """The handler of a signal runs at once, and the wait goes on for what is left of it."""
    ran = []
    before = signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
    try:
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert selector.select(0.1) == []
        assert time.monotonic() - begun >= 0.1
        assert ran[0] - begun < 0.08
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_whose_handler_raises(selector):
    """What the handler raises ends the wait, and what is ready is told by the next."""

    def handle(*_):
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(ZeroDivisionError):
            selector.select(10)
    finally:
        signal.signal(signal.SIGALRM, before)
    with selector_woken(selector):
        assert len(selector.select(10)) == 1


def test_no_descriptor():
    """Without a descriptor it raises OSError, as EpollSelector."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours() as probe:
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno(), hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                ours()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# There may be threads of other tests, which the child has nothing to do with.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_a_set_of_its_own(selector):
    """What a forked child does to the selector is not done to its parent's."""
    sock, peer = socket.socketpair()
    with sock, peer:
        selector.register(sock, READ, "data")
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                with ours():
                    peer.send(b"x")
                told = [key.data for key, _ in selector.select(1)]
                selector.unregister(sock)
                selector.close()
                status = 0 if told == ["data"] else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [key.data for key, _ in selector.select(1)] == ["data"]
