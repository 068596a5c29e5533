# cython: language_level=3
"""ConnectedSocket: one connected socket of ours and its protocol: what state they are in, and how
they end.

A connection that broke is read to its end before the protocol is told: what the peer sent before is
still there, after a reset as after a failed send. The socket is closed after that, in the same call
from the reactor: a program that waits for the end finds it closed.
"""

import os
from asyncio.log import logger

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

from headrace._transport.native.linux cimport (
    AF_INET,
    AF_INET6,
    EAGAIN,
    SHUT_WR,
    SIOCOUTQ,
    close as close_descriptor,
    errno,
    getsockname,
    ioctl,
    recv,
    shutdown,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from headrace._transport.native.reactor cimport Descriptor
from headrace._transport.native.states cimport (
    CLOSED,
    CLOSING,
    DEPARTING,
    ENDED,
    ENDING,
    LINGERING,
    PLAIN,
    READING_OUT,
    Handshake,
    Life,
    Receiving,
    Sending,
    check,
)
from headrace._transport.stream_protocol cimport StreamProtocol

from headrace._transport.native.addresses import address_of

cdef extern from *:
    # declared here so that -1 is ours to handle, not an exception
    int PyContext_Enter(object context)
    int PyContext_Exit(object context) except -1
    void PyErr_Clear()

# How long to wait before looking again whether a peer has got everything, in seconds: at first, and
# at most.
FIRST_LOOK_SECONDS = 0.001
LAST_LOOK_SECONDS = 0.05
RETRY_SECONDS = 0.02


cdef class ConnectedSocket(Descriptor):
    """The states of a connection, the calls to its protocol, and its end."""

    # ---- the states: no other line assigns them

    cdef int set_receiving(self, Receiving state) except -1:
        check("receiving", self.receiving, state)
        self.receiving = state
        return 0

    cdef int set_sending(self, Sending state) except -1:
        check("sending", self.sending, state)
        self.sending = state
        return 0

    cdef int set_life(self, Life state) except -1:
        check("life", self.life, state)
        self.life = state
        return 0

    cdef int set_handshake(self, Handshake state) except -1:
        check("handshake", self.handshake, state)
        self.handshake = state
        return 0

    # ---- the protocol

    cdef object use(self, object protocol):
        self.protocol = protocol
        self.stream = <StreamProtocol>protocol if is_direct(protocol) else None

    cdef object call(self, object method, tuple arguments):
        """Call a method of the protocol in the connection's context."""
        return run_in(self.context, method, arguments)

    cdef object tell(self, str what):
        """Call a method of the protocol that says nothing of whether the connection goes on; what
        it raises is reported."""
        try:
            self.call(getattr(self.protocol, what), ())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.report(error, f"protocol.{what}() failed")

    cdef object report(self, object error, str message):
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        )

    cdef object fatal(self, object error, str message):
        """End the connection for *error*, which the protocol raised."""
        if isinstance(error, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        else:
            self.report(error, message)
        self.finish(error)

    # ---- the end

    cdef object end_when_sent(self):
        """Send what was kept, then end. What arrives meanwhile is dropped."""
        if self.life >= CLOSING:
            return
        if self.reactor.is_inherited():
            self.leave()
            return
        self.reactor.check_thread()
        self.set_life(CLOSING)
        if self.write_buffer.size == 0:
            self.finish(None)

    cdef object fail(self, object error):
        """End the connection for *error*, which the system gave."""
        if self._loop.get_debug():
            logger.debug("%r: %s", self, error)
        self.finish(error)

    cdef object finish(self, object error):
        """Have the protocol told, when nothing else is on the stack, that the connection is over,
        and close the socket then: after a close(), when the peer's system has everything."""
        self.stop(error, LINGERING if self.may_linger() else ENDING)

    cdef bint may_linger(self) noexcept:
        """Tell whether the end, if it were now, has to wait for the peer: after close(), in TLS and
        wherever linger() asked for it. (In plain text not behind the peer's end: nothing comes that
        could be answered by a reset.)"""
        return (self.life == DEPARTING or self.life == CLOSING) and (
            self.handshake != PLAIN or (self.lingers and self.receiving < ENDED)
        )

    cdef object stop(self, object error, Life how):
        """End now: *how* is LINGERING or ENDING."""
        if self.life >= LINGERING:
            return
        self.reactor.check_thread()
        self.set_life(how)
        self.error = error
        self.write_buffer.clear()
        try:
            self.reactor.end(self)
        except RuntimeError:
            # The loop is closed: nobody will be told of anything any more.
            self.close_socket()
            raise

    def cut(self):
        """Close at once: abort(), or a close that has taken too long."""
        if self.life == LINGERING:
            self.set_life(ENDING)
            self.reactor.end(self)
        else:
            self.stop(None, ENDING)

    cdef object leave(self):
        """Close the copy of a descriptor that belongs to the parent of this process, which goes on
        with its own."""
        self.write_buffer.clear()
        if self.fd >= 0:
            self.close_socket()

    cdef object on_end(self):
        if self.fd < 0 or self.reactor.is_inherited():
            return
        if self.life == LINGERING and not self.has_lingered():
            self._loop.call_later(self.look_seconds, self.end_later, context=self.reactor.context)
            return
        if self.receiving == READING_OUT and not self.receive_rest():
            self._loop.call_later(RETRY_SECONDS, self.end_later, context=self.reactor.context)
            return
        try:
            self.tell_lost()
            if self.first is not None and self.first._h_server is not None:
                # It was not told itself: there is another protocol now.
                self.first._h_server.connection_lost(self)
        finally:
            self.keep_names()
            self.reactor.unwatch(self, self.sock is None)
            self.close_socket()
            self.protocol = None
            self.stream = None
            self.first = None
            self.context = None
            self.error = None

    cdef bint receive_rest(self) except -1:
        """Receive what came before the connection broke; return whether that is over."""
        raise NotImplementedError

    def end_later(self):
        """Go on with the end, after a wait for memory."""
        self.reactor.end(self)

    cdef bint has_lingered(self) except -1:
        """Throw away what comes, and tell whether the socket can be closed without taking from the
        peer what was sent; else it is looked at again in *look_seconds*.

        Linux answers whatever comes in after close() by a reset, and drops what the peer has not
        got by then: in TLS the peer's close_notify is enough, if it crosses ours. (Over plain TCP a
        peer that only ends the connection does no harm.)
        """
        cdef int unsent = 0
        cdef ssize_t size = 1
        cdef int turns = 8
        storage = <bytes>self.reactor.pool.storage(self.receive_bytes)
        while turns > 0 and size > 0:
            size = recv(self.fd, PyBytes_AS_STRING(storage), self.receive_bytes, 0)
            turns -= 1
        if size == 0 or (size < 0 and errno != EAGAIN) or self.error is not None:
            return True
        if not self.is_internet() or ioctl(self.fd, SIOCOUTQ, &unsent) < 0 or unsent == 0:
            return True
        if self.look_seconds == 0:
            self.deadline = self._loop.time() + self.shutdown_timeout
            shutdown(self.fd, SHUT_WR)
        if self._loop.time() >= self.deadline:
            return True
        self.look_seconds = (
            min(2 * self.look_seconds, LAST_LOOK_SECONDS)
            if self.look_seconds
            else FIRST_LOOK_SECONDS
        )
        return False

    cdef object tell_lost(self):
        """Tell the protocol that the connection is over."""
        self.call(self.protocol.connection_lost, (self.error,))

    cdef object close_socket(self):
        """Close the descriptor; the socket object does it where there is one."""
        fd = self.fd
        self.fd = -1
        self.set_life(CLOSED)
        if self.reactor.owners.get(fd) is self:
            del self.reactor.owners[fd]
        if self.sock is None:
            close_descriptor(fd)
        else:
            self.sock.close()

    # ---- the socket

    cdef bint is_internet(self) noexcept:
        """Tell whether this is TCP; else it is a Unix socket, or something stranger."""
        return self.family == AF_INET or self.family == AF_INET6

    cdef object keep_names(self):
        """Ask for the socket's own name, while it has one."""
        cdef sockaddr_storage name
        cdef socklen_t size = sizeof(name)
        if self.sockname is None and self.local_size == 0 and self.fd >= 0:
            if getsockname(self.fd, <sockaddr *>&name, &size) == 0:
                if size <= sizeof(self.local):
                    memcpy(self.local, &name, size)
                    self.local_size = size
                else:
                    self.sockname = address_of(PyBytes_FromStringAndSize(<char *>&name, size))


cdef bint is_direct(object protocol) except -1:
    """Tell whether bytes can be given to the protocol's reader without calling the protocol: nobody
    has overridden its data_received()."""
    return (
        isinstance(protocol, StreamProtocol)
        and type(protocol).data_received is StreamProtocol.data_received
    )


cdef object run_in(object context, object method, tuple arguments):
    """Call method(*arguments) in *context*, or in a copy where it is entered already."""
    if PyContext_Enter(context) < 0:
        PyErr_Clear()
        context = context.copy()
        if PyContext_Enter(context) < 0:
            raise RuntimeError("a new context cannot be entered")
    try:
        return method(*arguments)
    finally:
        PyContext_Exit(context)


cdef object os_error(int number):
    return OSError(number, os.strerror(number))
