"""Programs that Hypothesis makes up give, on asyncio's loop and on ours, the same list of events:
what protocols are told, callbacks, timers and steps of tasks, in their order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from support.properties import examples

import headrace
from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="without sockets of ours the loop is asyncio's"
)
TIMEOUT_S = 10
# More turns than any program has left when its driver is done.
SETTLING = 12


class Connection(asyncio.Protocol):
    """One end of a Unix socket pair, at which the loop's transport is; the other is a socket that
    the program uses at will. A Unix socket has what was sent at once, so turns can be counted."""

    def __init__(self, reactions: list[list[str]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.reactions = reactions
        self.trace: list[str] = []
        self.over = self.loop.create_future()
        self.told = 0
        self.said = 0
        self.ended = False
        self.ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)

    # ---- what the program does

    def does(self, action: str) -> None:
        try:
            ACTIONS[action](self)
        except Exception as error:
            self.trace.append(f"{action} raises {type(error).__name__}")

    def note(self, what: str) -> None:
        self.trace.append(what)

    def soon(self) -> None:
        self.loop.call_soon(self.note, f"soon, of {self.told}")

    def soon_soon(self) -> None:
        self.loop.call_soon(self.soon)

    def later(self) -> None:
        self.loop.call_later(0, self.note, f"later, of {self.told}")

    def task(self) -> None:
        async def steps() -> None:
            self.note("a task begins")
            await asyncio.sleep(0)
            self.note("a task goes on")

        task = self.loop.create_task(steps())
        task.add_done_callback(lambda _: self.note("a task is done"))

    def says(self) -> None:
        self.said += 1
        with contextlib.suppress(BrokenPipeError):
            self.peer.send(b"%d " % self.said)

    def says_twice_over_two_turns(self) -> None:
        self.says()
        self.loop.call_soon(self.says)

    def ends(self) -> None:
        self.peer.shutdown(socket.SHUT_WR)

    def writelines(self) -> None:
        # While they close, asyncio's raise TypeError: they have no list to put it into.
        if not self.transport.is_closing():
            self.transport.writelines([b"l", b"", b"m"])

    def resume(self) -> None:
        # Behind the end, asyncio's tell of it once more.
        if not self.ended:
            self.transport.resume_reading()

    def looks(self) -> None:
        self.note(f"closing {self.transport.is_closing()} reading {self.transport.is_reading()}")

    # ---- what the protocol is told

    def react(self, what: str) -> None:
        self.note(what)
        number, self.told = self.told, self.told + 1
        for action in self.reactions[number] if number < len(self.reactions) else ():
            self.does(action)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.react("connection_made")

    def data_received(self, data: bytes) -> None:
        self.react(f"data_received {data!r}")

    def eof_received(self) -> bool:
        self.ended = True
        self.react("eof_received")
        return self.told % 2 == 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.react(f"connection_lost {exc!r}")
        self.over.set_result(None)


class Buffered(Connection, asyncio.BufferedProtocol):  # type: ignore[misc]
    """The same with a buffer of its own, which may be shorter than what has come."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(3)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.react(f"buffer_updated {bytes(self.buffer[:nbytes])!r}")


ACTIONS: dict[str, Callable[[Any], Any]] = {
    "soon": Connection.soon,
    "soon soon": Connection.soon_soon,
    "later": Connection.later,
    "task": Connection.task,
    "looks": Connection.looks,
    "says": Connection.says,
    "says over two turns": Connection.says_twice_over_two_turns,
    "ends": Connection.ends,
    "write": lambda self: self.transport.write(b"w"),
    "writelines": Connection.writelines,
    "write_eof": lambda self: self.transport.write_eof(),
    "pause": lambda self: self.transport.pause_reading(),
    "resume": Connection.resume,
    "resume soon": lambda self: self.loop.call_soon(self.resume),
    "close": lambda self: self.transport.close(),
    "abort": lambda self: self.transport.abort(),
}
# The end is not all that happens.
MOSTLY = [*(3 * [name for name in ACTIONS if name not in ("close", "abort")]), "close", "abort"]


class Program(NamedTuple):
    """What happens: per connection what it does when it is told something, and a driver that has
    each do something after some turns."""

    reactions: list[list[list[str]]]
    driver: list[tuple[int, int, str]]
    buffered: bool
    eager: bool


programs = st.builds(
    Program,
    reactions=st.lists(
        st.lists(st.lists(st.sampled_from(MOSTLY), max_size=4), max_size=6),
        min_size=1,
        max_size=3,
    ),
    driver=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([*MOSTLY, *8 * ["says"]])),
        max_size=8,
    ),
    buffered=st.booleans(),
    eager=st.booleans() if sys.version_info >= (3, 12) else st.just(False),
)


async def traces(program: Program) -> list[Any]:
    """Return what happened at each connection, and what was at its other end."""
    loop = asyncio.get_running_loop()
    if program.eager:
        loop.set_task_factory(asyncio.eager_task_factory)
    kind = Buffered if program.buffered else Connection
    connections = [kind(reactions) for reactions in program.reactions]
    for each in connections:
        await loop.create_connection(lambda each=each: each, sock=each.ours)
    for turns, number, action in program.driver:
        for _ in range(turns):
            await asyncio.sleep(0)
        each = connections[number % len(connections)]
        each.note(f"driver: {action}")
        each.does(action)
    for _ in range(SETTLING):
        await asyncio.sleep(0)
    found = []
    for each in connections:
        each.note("driver: the end")
        each.transport.abort()
        await each.over
        got = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := each.peer.recv(1 << 16):
                got += data
        each.peer.close()
        found.append((each.trace, got))
    return found


def run_on(loop_class: type, program: Program) -> list[Any]:
    with asyncio.Runner(loop_factory=loop_class) as runner:
        return runner.run(asyncio.wait_for(traces(program), TIMEOUT_S))


@examples(150)
@given(programs)
def test_every_order_is_asyncios(program):
    """No callback, timer or step of a task is before or behind another than on asyncio's loop."""
    theirs = run_on(asyncio.SelectorEventLoop, program)
    assert run_on(headrace.EventLoop, program) == theirs
    event(f"told {max(len(trace) for trace, _ in theirs) // 10}0 things and more")
