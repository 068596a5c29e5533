# cython: language_level=3
"""SocketSender: the Sender of a stream over a connection of ours."""

from headrace._core.cprims cimport seconds
from headrace._transport.native.connection cimport Connection
from headrace._transport.native.states cimport CLOSING, SENDING
from headrace._transport.sender cimport Sender

# How long the first of several answers may be held for those behind it, in seconds.
CORK_SECONDS = 200e-6
# A handler that takes longer for a message, in seconds, has its answers sent one by one: holding
# one back for the next would cost the peer more time than a send costs us (some 5 us).
QUICK_SECONDS = 50e-6


cdef class SocketSender(Sender):
    """A Sender that calls a SocketTransport without going through Python.

    Behind unread input the answers of a quick handler leave the system together: each is sent at
    once, all but the last with MSG_MORE. That is done only in a step, whose end we see, and only on
    a socket that nobody but us has ever seen, so that its options are as we set them. What the
    system holds keeps its place and outlives the process; where the handler blocks after all, the
    system sends it after max(200 ms, RTO).
    """

    def __init__(self, transport, scheduler, exposed):
        Sender.__init__(self, transport, scheduler, exposed)
        self.direct = <Connection>transport

    cdef bint is_followed(self) except -1:
        cdef double now
        cdef bint quick
        if not self.scheduler.stepping or self.input is None:
            return False
        cdef bint unread = self.input.length() > 0
        if (
            (not unread and self.last == 0.0)
            or self.direct is None
            or self.direct.sock is not None
            or not self.direct.is_internet()
        ):
            return False
        now = seconds()
        if self.last == 0.0:
            self.scheduler.gather(self)  # flush() at the end of the step
        else:
            self.quick = now - self.last < QUICK_SECONDS
        self.last = now
        if (
            not unread
            or not self.quick
            or (self.held_since != 0.0 and now - self.held_since > CORK_SECONDS)
        ):
            return False
        if self.held_since == 0.0:
            self.held_since = now
        return True

    cdef object flush(self):
        Sender.flush(self)
        self.last = 0.0
        if self.held_since != 0.0:
            self.held_since = 0.0
            if self.direct is not None and self.direct.sock is None:
                self.direct.push()

    cpdef object write(self, object data):
        # First of all: what another thread writes must not get among what a step writes.
        if self.direct is not None:
            self.direct.reactor.check_thread()
            if self.direct.sending != SENDING:
                self.ended = True  # by a call of the transport's own
        Sender.write(self, data)

    cdef object close(self):
        if self.direct is None or self.closing:
            return Sender.close(self)
        if self.direct.reactor.is_inherited():
            self.lost()
            return self.direct.end_when_sent()
        self.direct.reactor.check_thread()
        return Sender.close(self)

    cdef object _send(self, bytes data, bint followed):
        if not followed:
            self.held_since = 0.0  # what the system holds leaves with it
        if self.direct is None:
            Sender._send(self, data, False)
        else:
            self.direct.send(data, followed)

    cpdef object write_pieces(self, object pieces):
        if self.direct is not None:
            self.direct.reactor.check_thread()
            if self.direct.sending != SENDING:
                self.ended = True
        Sender.write_pieces(self, pieces)

    cdef object _send_pieces(self, list pieces):
        self.held_since = 0.0
        if self.direct is None:
            Sender._send_pieces(self, pieces)
        else:
            self.direct.send_all(pieces)

    cdef bint is_closing(self) except -1:
        if self.direct is None:
            return Sender.is_closing(self)
        return self.closing or self.direct.life >= CLOSING

    cdef bint has_ended(self) except -1:
        return Sender.has_ended(self) if self.direct is None else self.is_closing()

    cdef object rebind(self, object transport, bint exposed):
        if transport is not self.direct:
            self.direct = None
        Sender.rebind(self, transport, exposed)
