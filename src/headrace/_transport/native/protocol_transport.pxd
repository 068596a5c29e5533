from headrace._transport.native.linux cimport sockaddr, socklen_t
from headrace._transport.native.reactor cimport Reactor
from headrace._transport.native.transport cimport SocketTransport

cdef class ProtocolTransport(SocketTransport):
    # asyncio's server, which counts its connections; None where there is none.
    cdef object server
    # The descriptor's number, also after it was closed: see loop.sendfile().
    cdef readonly int _sock_fd
    # A fact: the protocol knows of the connection, or is not to know before a handshake.
    cdef bint begun
    # A fact: the system told of something before that.
    cdef bint early
    # The turn of the reactor in which the protocol was told of something.
    cdef unsigned long told
    # A fact: next_turn() is on the loop's list.
    cdef bint waits_a_turn
    # How much is received of a connection that broke: see REST_BYTES.
    cdef Py_ssize_t rest
    # How many writes came after the end, and one more.
    cdef int dropped
    # What loop.sendfile() waits for before it sends, until it is done; or None.
    cdef readonly object _empty_waiter

    cdef object settle_empty_waiter(self)
    cdef bint has_more(self, bint full)
    cdef object wait_a_turn(self)
    cdef object check_sending(self, str method)
    cdef bint is_dropped(self) except -1
    cdef object raise_water_marks(self)
    cdef object serve_for(self, object server)
    cdef object start(self, unsigned long turn)

cdef ProtocolTransport accepted(
    Reactor reactor, int fd, int family, sockaddr *peer, socklen_t peer_size, object sockname,
    object context
)
cdef bint is_due(Reactor reactor) except -1
