"""Acceptor: a listening socket that can be held and resumed; LoopAcceptor, over any loop."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import socket
from asyncio import trsock
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

# How many connections a turn of the loop takes from one socket, and how long to wait where the
# system is out of descriptors or memory, in seconds: the figures of the native way (listener.pyx).
ACCEPTS = 32
RETRY_SECONDS = 1.0

# What says that there is none left of either.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# About the listening socket itself: it is closed, or somebody has shut it down. It would be so for
# ever.
BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class Acceptor(Protocol):
    """A listening socket as serve() needs it; the native way has the same in compiled code
    (listener.pyx)."""

    sock: socket.socket

    def listen(self, backlog: int) -> None:
        """Accept from now on. Raises: OSError where the system refuses to listen."""

    def hold(self) -> None:
        """Accept nothing until resume()."""

    def resume(self) -> None:
        """Accept again after hold()."""

    def accept_waiting(self) -> None:
        """Accept all connections that wait, unless it is held: what is in the system's queue when
        the socket is closed would be reset."""

    def adopt(self, sock: socket.socket, peername: Any) -> None:
        """Make a connection of *sock*, which somebody else has accepted; it may be closed
        meanwhile."""

    def close(self) -> None:
        """Stop accepting, and close the socket."""

    async def connected(self) -> None:
        """Wait until there is a transport of every connection that was accepted. Cancellation:
        safe."""


class LoopAcceptor:
    """Accepts by itself, and leaves the rest to the loop: its own servers cannot be held.

    *connect*, a coroutine function, makes the transport of a protocol and an accepted socket; None
    for the loop's own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[..., Any],
        connect: Callable[[Any, socket.socket], Awaitable[object]] | None = None,
    ) -> None:
        self.sock = sock
        self._loop = loop
        self._factory = factory
        self._make_transport = connect or self._by_loop
        # Connections begin with what the server was started with: whoever resumes it, or shuts it
        # down, may be one of them.
        self._context = contextvars.copy_context()
        self._open = False
        self._held = False
        self._watched = False
        # Only the tasks' own references would not keep them.
        self._connecting: set[asyncio.Task[None]] = set()

    def listen(self, backlog: int) -> None:
        """See Acceptor."""
        self.sock.setblocking(False)
        self.sock.listen(backlog)
        self._open = True
        self._watch()

    def hold(self) -> None:
        """See Acceptor."""
        self._held = True
        self._unwatch()

    def resume(self) -> None:
        """See Acceptor."""
        self._held = False
        self._watch()

    def accept_waiting(self) -> None:
        """See Acceptor."""
        while self._open and not self._held and self._accept():
            pass

    def close(self) -> None:
        """See Acceptor."""
        self._unwatch()
        self._open = False
        self.sock.close()

    async def connected(self) -> None:
        """See Acceptor."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _watch(self) -> None:
        if self._open and not self._held and not self._watched and not self._loop.is_closed():
            self._context.copy().run(self._loop.add_reader, self.sock.fileno(), self._ready)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self.sock.fileno())
            self._watched = False

    def _ready(self) -> None:
        turns = ACCEPTS
        while turns > 0 and self._watched and self._accept():
            turns -= 1

    def _accept(self) -> bool:
        """Accept one connection; return whether there may be another."""
        try:
            sock, peername = self.sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in BROKEN:
                self._unwatch()
                self._open = False
                self._loop.call_exception_handler(
                    {"message": "a listening socket is broken", "exception": error}
                )
                return False
            if error.errno not in SHORTAGES:
                return True  # about the connection that would have been accepted (accept(2))
            self._unwatch()
            self._loop.call_later(RETRY_SECONDS, self._watch)
            message = "socket.accept() out of system resource"
            shown = trsock.TransportSocket(self.sock)
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": OSError(error.errno, os.strerror(error.errno)),
                    "socket": shown,
                }
            )
            return False
        self.adopt(sock, peername)
        return True

    def adopt(self, sock: socket.socket, peername: Any) -> None:
        """See Acceptor."""
        sock.setblocking(False)
        # It counts from here on; and uvloop does not know later who it was, if that is soon gone.
        protocol = self._factory(peername)
        task = self._context.copy().run(self._loop.create_task, self._connect(sock, protocol))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _by_loop(self, protocol: Any, sock: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: protocol, sock)

    async def _connect(self, sock: socket.socket, protocol: Any) -> None:
        try:
            await self._make_transport(protocol, sock)
        except Exception as error:
            sock.close()
            protocol.connection_lost(error)
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
            )
        except BaseException:
            sock.close()
            raise
