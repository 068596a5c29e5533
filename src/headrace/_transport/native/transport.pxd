from headrace._transport.native.linux cimport sockaddr, socklen_t
from headrace._transport.native.reactor cimport Reactor
from headrace._transport.native.tls_connection cimport SecureConnection

cdef class SocketTransport(SecureConnection):
    cdef object __weakref__

cdef SocketTransport accepted(
    Reactor reactor, int fd, int family, sockaddr *peer, socklen_t peer_size,
    object protocol, object context, Py_ssize_t receive_bytes,
    object sockname, tuple secure,
)
cdef SocketTransport make(
    Reactor reactor, int fd, int family, object protocol, object context, Py_ssize_t receive_bytes
)
