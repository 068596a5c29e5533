from libc.stdint cimport uint32_t

from headrace._transport.native.linux cimport socklen_t
from headrace._transport.native.outbox cimport Outbox
from headrace._transport.stream_protocol cimport Receiver, StreamProtocol
from headrace._transport.native.reactor cimport Reactor, Watched
from headrace._transport.native.states cimport Handshake, Life, Receiving, Sending

cdef enum:
    # How much one receive may bring at most: what asyncio's own transports receive at a time.
    MOST_BYTES = 1 << 18

cdef class Connection(Watched):
    # The states: each is set by its function only, which checks it (see states.pyx).
    cdef Receiving receiving
    cdef Sending sending
    cdef Life life
    cdef Handshake handshake

    cdef readonly object _loop
    cdef object protocol
    # The protocol, where bytes can be handed to its reader directly; else None.
    cdef StreamProtocol stream
    # What the protocol is called in.
    cdef object context
    # The protocol that the connection was made with, which is how its server knows it.
    cdef StreamProtocol first
    # How much one receive may bring at first.
    cdef Py_ssize_t receive_bytes
    # The same now that the peer floods.
    cdef Py_ssize_t flood_bytes
    # A fact: the last receive brought all that it asked for.
    cdef bint filled
    # The socket object, once somebody has asked for it.
    cdef object sock
    # What they got: an asyncio.trsock.TransportSocket.
    cdef object shown
    # The names of both ends, once they are known and have been asked for.
    cdef object sockname
    cdef object peername
    cdef int family
    # What the system said of both ends, where it is small enough, as it is for TCP.
    cdef char peer[28]
    cdef socklen_t peer_size
    cdef char local[28]
    cdef socklen_t local_size

    # A fact: the system may have something for us.
    cdef bint readable
    # A fact: the other half is closed or broken.
    cdef bint hangup
    # A fact: a short receive does not mean that there is no more.
    cdef bint trickles
    # A fact, independent of every state: the protocol wants nothing before resume_reading().
    cdef bint paused
    # A fact about the system: it has no memory for a receive, until retry().
    cdef bint receive_waits

    # What was not sent.
    cdef Outbox outbox
    # How many bytes were written besides, and are kept elsewhere.
    cdef Py_ssize_t held
    # Above how many unsent bytes the protocol is paused, and at how many it is resumed.
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    # A fact: the protocol was told to pause writing, and not to resume.
    cdef bint protocol_paused
    # A fact about the system: it has no memory for a send, until retry().
    cdef bint send_waits

    # What on_end() tells the protocol.
    cdef object error

    cdef int set_receiving(self, Receiving state) except -1
    cdef int set_sending(self, Sending state) except -1
    cdef int set_life(self, Life state) except -1
    cdef int set_handshake(self, Handshake state) except -1
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
    cdef object tell_eof(self)
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
    cdef object stop(self, object error, Life how)
    cdef bint may_linger(self) noexcept
    cdef object leave(self)
    cdef object close_socket(self)
    cdef object keep_names(self)
