# cython: language_level=3
"""ProtocolAcceptor: accepts for a server of asyncio's, in plain text.

asyncio makes a socket object, a coroutine, a task and a future of every connection. Here it is its
transport from the start, and the turns of the loop are the same: in one the connection is accepted,
in the next its protocol is made, in the third that is told of it.
"""

import os
import socket as sockets
from asyncio import constants, trsock
from contextvars import copy_context

from headrace._transport.native.connected_socket cimport run_in
from headrace._transport.native.linux cimport (
    EAGAIN,
    ECONNABORTED,
    EINTR,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    accept4,
    errno,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from headrace._transport.native.protocol_transport cimport ProtocolTransport, accepted, is_due
from headrace._transport.native.reactor cimport Reactor, reactor_of

from headrace._transport.scheduler import makes_its_own_tasks

INTERNET = (sockets.AF_INET, sockets.AF_INET6)


cdef class ProtocolAcceptor:
    """What the loop calls when *sock*, a listening socket, has connections for *server*."""

    cdef Reactor reactor
    cdef object loop
    cdef object sock
    cdef object factory
    cdef object server
    cdef object context
    # What asyncio's own accepting is called with.
    cdef tuple arguments
    # What was accepted, until it has its protocol.
    cdef list waiting
    cdef object sockname
    cdef int family
    cdef int backlog

    def __init__(self, loop, arguments, context):
        self.reactor = reactor_of(loop)
        self.loop = loop
        self.arguments = arguments
        self.factory, self.sock, _, self.server, self.backlog = arguments[:5]
        self.context = context
        self.waiting = []
        self.family = self.sock.family
        name = self.sock.getsockname()
        # A connection to one address has that address; to all of them, whichever it is.
        self.sockname = (
            None if self.family in INTERNET and name[0] in ("0.0.0.0", "::") else name
        )
        if self.family in INTERNET:
            try:
                # A connection inherits it on Linux: one system call less for each.
                self.sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            except OSError:
                pass  # a protocol other than TCP

    def accept(self):
        """Accept what waits, as many as *backlog* and one more. Raises: OSError where the system
        gives one that is not about a connection."""
        cdef sockaddr_storage peer
        cdef socklen_t size
        cdef int fd, error
        cdef int listener = self.sock.fileno()
        cdef int left = self.backlog + 1
        cdef bint idle = not self.waiting
        if (
            self.loop.get_debug()
            or makes_its_own_tasks(self.loop)
            or self.reactor.is_inherited()
        ):
            # What it does then can be seen.
            self.loop._accept_connection(*self.arguments)
            return
        try:
            while left > 0:
                left -= 1
                size = sizeof(peer)
                fd = accept4(listener, <sockaddr *>&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if fd >= 0:
                    self.waiting.append(
                        accepted(
                            self.reactor, fd, self.family, <sockaddr *>&peer, size, self.sockname,
                            copy_context() if self.context is None else self.context.copy()
                        )
                    )
                    continue
                error = errno
                if error == EAGAIN or error == EINTR:
                    return
                if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
                    self.pause(error)
                    return
                if error != ECONNABORTED:
                    raise OSError(error, os.strerror(error))
        finally:
            if idle and self.waiting:
                self.loop.call_soon(self.make, context=self.reactor.context)

    def pause(self, int error):
        """Leave the system alone for a while: it has no descriptor, or no memory, for another
        connection."""
        self.loop.remove_reader(self.sock.fileno())
        self.loop.call_later(constants.ACCEPT_RETRY_DELAY, self.resume)
        self.loop.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": OSError(error, os.strerror(error)),
                "socket": trsock.TransportSocket(self.sock),
            }
        )

    def resume(self):
        """Accept again after pause(), unless the server was closed meanwhile."""
        if self.sock.fileno() >= 0:
            self.loop.add_reader(self.sock.fileno(), self.accept)

    def make(self):
        """Make the protocols of what was accepted, and have them told of their connections."""
        cdef list begun = []
        waiting, self.waiting = self.waiting, []
        waiting.reverse()
        try:
            while waiting:
                transport = waiting.pop()
                if self.make_one(transport):
                    begun.append(transport)
        finally:
            if begun:
                self.loop.call_soon(start_all, begun, context=self.reactor.context)
            if waiting:
                # The program is about to leave the loop, and may come back.
                waiting.reverse()
                if not self.waiting:
                    self.loop.call_soon(self.make, context=self.reactor.context)
                self.waiting[:0] = waiting

    cdef bint make_one(self, ProtocolTransport transport) except -1:
        """Make the protocol of *transport*; tell whether there is one. What the factory raises is
        not said outside of debug mode, as in asyncio."""
        try:
            protocol = run_in(transport.context, self.factory, ())
            transport.use(protocol)
            transport.serve_for(self.server)
            self.loop.call_soon(protocol.connection_made, transport, context=transport.context)
        except (SystemExit, KeyboardInterrupt):
            transport.close_socket()
            raise
        except BaseException:
            transport.close_socket()
            return False
        return True


def start_all(list transports):
    """Begin to read: the protocols of *transports* were told of their connections."""
    cdef Reactor reactor = (<ProtocolTransport>transports[0]).reactor
    cdef unsigned long turn = reactor.turn + is_due(reactor)
    for transport in transports:
        (<ProtocolTransport>transport).start(turn)
