from headrace._transport.native.linux cimport sockaddr, socklen_t
from headrace._transport.native.reactor cimport Reactor
from headrace._transport.native.tls_connection cimport SecureConnection
from headrace._transport.sender cimport Sender

cdef class SocketTransport(SecureConnection):
    cdef object __weakref__

cdef class SocketSender(Sender):
    # None once the connection goes on over another transport.
    cdef SocketTransport direct
    # When the handler last wrote with more input unread, in this step, in seconds of the monotonic
    # clock; or 0.
    cdef double last
    # The same of the oldest byte that the system holds for us.
    cdef double held_since
    # It took little time for the message before this one.
    cdef bint quick

cdef SocketTransport accepted(
    Reactor reactor, int fd, int family, sockaddr *peer, socklen_t peer_size,
    object protocol, object context, Py_ssize_t receive_bytes,
    object sockname, tuple secure,
)
cdef SocketTransport make(
    Reactor reactor, int fd, int family, object protocol, object context, Py_ssize_t receive_bytes
)
