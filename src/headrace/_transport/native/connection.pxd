from libc.stdint cimport uint32_t

from headrace._transport.native.linux cimport socklen_t
from headrace._transport.native.outbox cimport Outbox
from headrace._transport.stream_protocol cimport Receiver, StreamProtocol
from headrace._transport.native.reactor cimport Reactor, Watched

cdef class Connection(Watched):
    cdef readonly object _loop
    cdef object protocol
    # The protocol, where bytes can be handed to its reader directly; else None, and it runs in
    # *context*.
    cdef StreamProtocol stream
    cdef object context
    # The protocol that the connection was made with, which is how its server knows it.
    cdef StreamProtocol first
    # How much one receive may bring at first, and now that the peer floods; the last one brought
    # all of it.
    cdef Py_ssize_t receive_bytes
    cdef Py_ssize_t flood_bytes
    cdef bint filled
    # The socket object, made when somebody asks for it, and what he gets; the names, likewise.
    cdef object sock
    cdef object shown
    cdef object sockname
    cdef object peername
    cdef int family
    # What the system said of both ends, where it is small enough, as it is for TCP.
    cdef char peer[28]
    cdef socklen_t peer_size
    cdef char local[28]
    cdef socklen_t local_size

    # Reading. The system may have something for us; the other half is closed or broken; a short
    # receive does not mean the last one.
    cdef bint readable
    cdef bint hangup
    cdef bint trickles
    cdef bint paused
    cdef bint eof

    # Writing. What was not sent, and when the protocol is told of it.
    cdef Outbox outbox
    # How many bytes were written besides, and are kept elsewhere.
    cdef Py_ssize_t held
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef bint protocol_paused
    cdef bint eof_written
    # The system is short of memory: nothing is sent, or received, before retry().
    cdef bint send_waits
    cdef bint receive_waits

    # The end. close() was called, or the connection broke; on_end() is to come, or was; and what it
    # tells the protocol.
    cdef readonly bint closing
    cdef bint ending
    cdef object error
    # The connection broke while the system still had something for us.
    cdef bint rest

    cdef object begin(self)
    cdef bint is_internet(self) noexcept
    cdef object receive(self)
    cdef ssize_t receive_once(self, Py_ssize_t *asked) except? -1000000
    cdef ssize_t receive_foreign(self, Py_ssize_t *asked) except? -1000000
    cdef Py_ssize_t to_ask(self, Receiver receiver) except -1
    cdef bint is_left(self)
    cdef void adapt(self, Py_ssize_t asked, ssize_t size) noexcept
    cdef bint receive_rest(self) except -1
    cdef object on_eof(self)
    cdef object call(self, object method, tuple arguments)
    cdef object use(self, object protocol)
    cdef object retry_later(self)
    cdef object send(self, bytes data, bint followed)
    cdef object send_all(self, list pieces)
    cdef object push(self)
    cdef object send_queued(self)
    cdef bint may_send_later(self) except -1
    cdef object pause_if_high(self)
    cdef object resume_if_low(self)
    cdef object tell(self, str what)
    cdef object report(self, object error, str message)
    cdef object fatal(self, object error, str message)
    cdef object fail(self, object error)
    cdef object shut_writing(self)
    cdef object tell_lost(self)
    cdef object end_when_sent(self)
    cdef object finish(self, object error)
    cdef object leave(self)
    cdef object close_socket(self)
    cdef object keep_names(self)
