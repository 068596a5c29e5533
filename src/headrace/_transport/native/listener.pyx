# cython: language_level=3
"""Listener: a listening socket that a Reactor watches, and the connections that come in by it.

The socket is level-triggered: what one turn does not accept is offered again in the next. It leaves
the set while the system has no descriptor or memory for another connection, which would otherwise
keep the loop busy with refusing one.
"""

import os
import socket as sockets
from asyncio import trsock
from contextvars import copy_context

from libc.stdint cimport uint32_t

from headrace._transport.native.linux cimport (
    EAGAIN,
    EBADF,
    EINVAL,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    ENOTSOCK,
    EPOLLIN,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    accept4,
    close,
    errno,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from headrace._transport.native.reactor cimport Descriptor, reactor_of
from headrace._transport.native.transport cimport accepted
from headrace._transport.scheduler cimport raise_later
from headrace._transport.native.transport import adopt

cdef enum:
    # How many connections a turn of the loop takes from one socket: their handlers start there and
    # then.
    ACCEPTS = 32

INTERNET = (sockets.AF_INET, sockets.AF_INET6)

# After how many seconds accepting is tried again: asyncio's figure
# (asyncio.constants.ACCEPT_RETRY_DELAY).
RETRY_SECONDS = 1.0


cdef class Listener(Descriptor):
    """Calls factory() for a protocol for every connection that *sock*, a bound socket, accepts; its
    context is the one it was made in."""

    def __init__(self, loop, sock, factory, Py_ssize_t receive_bytes, secure):
        self.reactor = reactor_of(loop)
        self.sock = sock
        self.family = sock.family
        self.factory = factory
        self.receive_bytes = receive_bytes
        self.secure = secure
        self.context = copy_context()
        name = sock.getsockname()
        # A connection to one address has that address; to all of them, whichever it is.
        self.sockname = (
            name if self.family in INTERNET
            and name[0] not in ("0.0.0.0", "::") else None
        )

    def listen(self, backlog):
        """Start to accept. Raises: OSError where the system refuses."""
        if self.slot >= 0:
            return
        self.sock.listen(backlog)
        self.sock.setblocking(False)
        if self.family in INTERNET:
            # A connection inherits it on Linux: one system call less for each.
            self.sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.reactor.watch(self, EPOLLIN)

    def close(self):
        """Stop accepting, and close the socket."""
        self.reactor.unwatch(self, False)
        self.fd = -1
        self.sock.close()

    async def connected(self):
        """Wait for nothing: what was accepted has its transport."""

    def hold(self):
        """Accept nothing until resume()."""
        self.held = True
        self.reactor.unwatch(self, False)

    def resume(self):
        """Accept again after hold()."""
        self.held = False
        self.rewatch()

    def accept_waiting(self):
        """Accept all connections that wait, unless it is held: what is in the system's queue when
        the socket is closed would be reset."""
        while self.fd >= 0 and not self.held and self.accept():
            pass

    def adopt(self, sock, peername):
        """Make a connection of *sock*, which somebody else has accepted, and which knows its peer
        itself; it may be closed meanwhile."""
        try:
            self.context.copy().run(
                adopt, self.reactor.loop, sock, self.factory(), self.receive_bytes
            )
        except BaseException as failure:
            sock.close()
            self.failed(failure)

    def rewatch(self):
        """Accept again, unless there is another reason not to."""
        if self.fd >= 0 and self.slot < 0 and not self.held and not self.reactor.loop.is_closed():
            try:
                self.reactor.watch(self, EPOLLIN)
            except OSError:
                # The set was closed when it had nothing to watch, and takes a descriptor itself.
                self.reactor.loop.call_later(RETRY_SECONDS, self.rewatch)

    cdef object on_events(self, uint32_t events):
        cdef int turns = ACCEPTS
        while turns > 0 and self.slot >= 0 and self.accept():
            turns -= 1

    cdef int accept(self) except -1:
        """Accept one connection; return whether there may be another."""
        cdef sockaddr_storage peer
        cdef socklen_t size = sizeof(peer)
        cdef int error
        cdef int fd = accept4(self.fd, <sockaddr *>&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            error = errno
            if error == EAGAIN:
                return False
            if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
                self.pause(error)
                return False
            if error == EINVAL or error == EBADF or error == ENOTSOCK:
                self.broken(error)
                return False
            # Everything else is about the connection that would have been accepted (accept(2)).
            return True
        self.reactor.accepted += 1
        try:
            protocol = self.factory()
        except BaseException as failure:
            close(fd)
            self.failed(failure)
            return True
        try:
            accepted(
                self.reactor, fd, self.family, <sockaddr *>&peer, size, protocol,
                self.context.copy(), self.receive_bytes, self.sockname, self.secure
            )
        except BaseException as failure:
            self.failed(failure)
        return True

    def pause(self, int error):
        """Leave the system alone for a while: it has no descriptor, or no memory, for another
        connection."""
        loop = self.reactor.loop
        self.reactor.unwatch(self, False)
        loop.call_later(RETRY_SECONDS, self.rewatch)
        loop.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": OSError(error, os.strerror(error)),
                "socket": trsock.TransportSocket(self.sock),
            }
        )

    def broken(self, int error):
        """Stop accepting from a socket that is closed, or that somebody else has shut down: it will
        fail for ever."""
        self.reactor.unwatch(self, False)
        self.fd = -1
        self.reactor.loop.call_exception_handler(
            {
                "message": "a listening socket is broken",
                "exception": OSError(error, os.strerror(error))
            }
        )

    def failed(self, error):
        """Report what the making of a connection raised; it is closed."""
        if isinstance(error, Exception):
            self.reactor.loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error
                }
            )
        else:
            raise_later(self.reactor.scheduler, error)
