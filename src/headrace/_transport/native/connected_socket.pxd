from headrace._transport.native.linux cimport socklen_t
from headrace._transport.native.reactor cimport Descriptor
from headrace._transport.native.states cimport Handshake, Life, Receiving, Sending
from headrace._transport.native.write_buffer cimport WriteBuffer
from headrace._transport.stream_protocol cimport StreamProtocol

# How long to wait where the system is short of memory for its buffers, in seconds. Nothing says
# when it has some again.
cdef double RETRY_SECONDS

cdef class ConnectedSocket(Descriptor):
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
    # How much one receive may bring at first.
    cdef Py_ssize_t receive_bytes
    # What was not sent.
    cdef WriteBuffer write_buffer

    # What the protocol is told of the end.
    cdef object error
    # A fact about the program: a close() in plain text lingers, too. See linger() of the transport.
    cdef bint lingers
    # How long TLS may take to close, and any connection may linger, in seconds.
    cdef double shutdown_timeout
    # While it lingers: how long on_end() waits before it looks again.
    cdef double look_seconds
    # While it lingers: until when at most.
    cdef double deadline

    cdef int set_receiving(self, Receiving state) except -1
    cdef int set_sending(self, Sending state) except -1
    cdef int set_life(self, Life state) except -1
    cdef int set_handshake(self, Handshake state) except -1
    cdef object use(self, object protocol)
    cdef object call(self, object method, tuple arguments)
    cdef object tell(self, str what)
    cdef object report(self, object error, str message)
    cdef object fatal(self, object error, str message)
    cdef object end_when_sent(self)
    cdef object fail(self, object error)
    cdef object finish(self, object error)
    cdef bint may_linger(self) noexcept
    cdef object stop(self, object error, Life how)
    cdef object leave(self)
    cdef bint receive_rest(self) except -1
    cdef bint has_lingered(self) except -1
    cdef object tell_lost(self)
    cdef object close_socket(self)
    cdef bint is_internet(self) noexcept
    cdef object keep_names(self)

cdef bint is_direct(object protocol) except -1
cdef object os_error(int number)
