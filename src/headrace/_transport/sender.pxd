from headrace._transport.stepper cimport Stepper

cdef class Sender:
    cdef readonly object transport
    cdef Stepper stepper
    # Somebody else has the transport, so nothing is gathered any more.
    cdef bint exposed
    # What was gathered: bytes objects, and the sum of their sizes.
    cdef list pending
    cdef readonly Py_ssize_t size
    # When settle() last sent something though input was unread, in seconds of the monotonic clock.
    cdef double flushed
    # A handshake is going on: everything waits.
    cdef bint held
    # After write_eof().
    cdef bint ended
    # After close(), or the loss of the connection.
    cdef readonly bint closing
    # Something was sent since drain() last asked the transport whether it is closing.
    cdef bint unchecked

    cpdef void write(self, object data) except *
    cdef void _send(self, bytes data) except *
    cpdef void flush(self) except *
    cdef void settle(self, bint unread) except *
    cdef object expose(self)
    cdef void rebind(self, object transport) except *
    cpdef void hold(self) except *
    cpdef void release(self) except *
    cdef object write_eof(self)
    cdef object close(self)
    cdef bint is_closing(self) except -1
    cdef void lost(self) except *
    cdef void drop(self) except *

cdef bytes as_bytes(object data)
