"""Splicing: bytes go from socket to socket through a pipe, and never into this process.

What the loop watches is one epoll set of ours, edge-triggered, with the sockets of all relays that
splice. The transports stay registered where they were; the one that would receive is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from headrace._duplex import passing
from headrace.errors import WriteTimeout

# What a pipe is asked to hold, in bytes: most an ordinary user may ask for (pipe(7),
# pipe-max-size).
PIPE_BYTES = 1 << 20
# A pipe that holds less does not pay: so one gets over the soft limit of pages (pipe(7)).
LEAST_BYTES = 65536
# How many empty pipes a loop keeps for others, while it has relays that splice.
SPARE_PIPES = 16
# The loop has a turn after so many bytes: some 100 us of copying. Not measured.
TURN_BYTES = 1 << 20
# Receives of less than this do not pay. After so many of them in a row copying goes on in buffers.
SMALL_BYTES = 16384
SMALL_RECEIVES = 16

CAN_SPLICE = hasattr(os, "splice") and hasattr(select, "epoll")

# What wakes whoever waits for anything of a socket.
EVERYTHING = select.EPOLLIN | select.EPOLLOUT if CAN_SPLICE else 0


class SourceLost(Exception):
    """What was to be received from is broken."""


class Pipe:
    """A pipe and how many bytes it holds."""

    __slots__ = ("held", "reading", "size", "writing")

    def __init__(self, reading: int, writing: int, size: int) -> None:
        self.reading = reading
        self.writing = writing
        self.size = size
        self.held = 0

    def take(self) -> bytes:
        """Return what it holds."""
        data = b""
        while len(data) < self.held:
            data += os.read(self.reading, self.held - len(data))
        self.held = 0
        return data

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def open_pipe() -> Pipe | None:
    """Return a pipe that holds enough; None where the system gives none."""
    import fcntl  # not everywhere, as splice() is not

    try:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pipe = Pipe(reading, writing, fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ))
    if pipe.size >= LEAST_BYTES:
        return pipe
    pipe.close()
    return None


class End:
    """One connection of a relay: when its socket is ready, and whether it may still be used."""

    def __init__(self, stream: Any, transport: Any) -> None:
        self.stream = stream
        self.transport = transport
        self.fd: int = transport.get_extra_info("socket").fileno()
        self._ready = {select.EPOLLIN: False, select.EPOLLOUT: False}
        self._waiters: dict[int, asyncio.Future[None]] = {}
        # How many directions watch it.
        self.watched = 0

    def forget(self, event: int) -> None:
        """What is told of *event* from now on counts."""
        self._ready[event] = False

    def notice(self, events: int) -> None:
        """The system has told *events*; an error, or an end, is told to both."""
        for event in self._ready:
            if events & (event | select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP):
                self._ready[event] = True
                waiter = self._waiters.pop(event, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)

    async def wait(self, event: int, seconds: float | None) -> None:
        """Return when *event* has been told since forget().

        Raises: WriteTimeout after *seconds*. Cancellation: safe.
        """
        if self._ready[event]:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[event] = waiter
        timer = None
        if seconds is not None:
            late = WriteTimeout("relay", seconds, self.stream)
            timer = loop.call_later(seconds, fail, waiter, late)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(event, None)


def fail(waiter: asyncio.Future[None], error: WriteTimeout) -> None:
    """End the wait of *waiter* with *error*."""
    if not waiter.done():
        waiter.set_exception(error)


class Splices:
    """What the relays of one loop that splice share: the epoll set and the pipes. It is closed when
    the last one ends, so that nothing outlives the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ends: dict[int, End] = {}
        self._pipes: list[Pipe] = []
        self.users = 0
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def _on_events(self) -> None:
        for fd, events in self._epoll.poll(0):
            end = self._ends.get(fd)
            if end is not None:
                end.notice(events)

    def watch(self, end: End) -> None:
        """Tell *end* of its socket; each direction of a relay may ask."""
        end.watched += 1
        if end.watched > 1:
            return
        events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        with contextlib.suppress(OSError):  # of a socket that is closed: the number is another's
            self._epoll.unregister(end.fd)
        self._epoll.register(end.fd, events)
        self._ends[end.fd] = end

    def unwatch(self, end: End) -> None:
        """Undo watch()."""
        end.watched -= 1
        if end.watched == 0 and self._ends.get(end.fd) is end:
            del self._ends[end.fd]
            with contextlib.suppress(OSError):  # the socket may be closed
                self._epoll.unregister(end.fd)

    def pipe(self) -> Pipe | None:
        """Return an empty pipe; None where the system gives none."""
        return self._pipes.pop() if self._pipes else open_pipe()

    def give_back(self, pipe: Pipe) -> None:
        """Keep *pipe* for others, or close it."""
        if pipe.held or len(self._pipes) >= SPARE_PIPES:
            pipe.close()
        else:
            self._pipes.append(pipe)

    def close(self) -> None:
        """Give everything back to the system."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        while self._pipes:
            self._pipes.pop().close()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Splices] = WeakKeyDictionary()


def join() -> Splices | None:
    """Return what the relays of the running loop share, for one more, until leave(). None where
    the system gives no epoll set."""
    loop = asyncio.get_running_loop()
    shared = _of_loops.get(loop)
    if shared is None:
        try:
            shared = Splices(loop)
        except OSError:
            return None
        _of_loops[loop] = shared
    shared.users += 1
    return shared


def leave(shared: Splices) -> None:
    """Undo join()."""
    shared.users -= 1
    if shared.users == 0:
        _of_loops.pop(asyncio.get_running_loop(), None)
        shared.close()


async def pump(source: End, target: End, pipe: Pipe, count: Callable[[int], None]) -> None:
    """Splice from *source* to *target* through *pipe*, until *source* has no more, or not enough at
    once, or one of them was closed or written to: buffers can tell then what it was.

    What *pipe* holds afterwards was received and not sent. *count* is told what was sent.

    Raises: SourceLost; OSError where *target* takes no more, and what bounds the waits of both.
    Cancellation: safe.
    """
    small = turn = 0
    while not source.stream.buffered and not source.transport.is_closing():
        source.forget(select.EPOLLIN)
        try:
            size = os.splice(source.fd, pipe.writing, pipe.size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            await source.wait(select.EPOLLIN, None)
            if source.stream.reader.exception() is not None:
                return
            continue
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOMEM):
                return  # it cannot be spliced
            # The system tells that once: a receive would see an end.
            raise SourceLost from error
        if size == 0:
            return
        pipe.held = size
        passing.passed_in(source.stream, size)
        while pipe.held:
            if target.transport.is_closing() or passing.unsent(target.stream):
                return
            target.forget(select.EPOLLOUT)
            try:
                sent = os.splice(pipe.reading, target.fd, pipe.held, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                await target.wait(select.EPOLLOUT, target.stream.write_timeout)
                continue
            pipe.held -= sent
            passing.passed_out(target.stream, sent)
            count(sent)
        turn += size
        small = 0 if size >= SMALL_BYTES else small + 1
        if small == SMALL_RECEIVES:
            return
        if turn >= TURN_BYTES:
            turn = 0
            await asyncio.sleep(0)
