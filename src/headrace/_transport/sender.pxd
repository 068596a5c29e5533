cimport cython

from headrace._transport.stepper cimport Gathering, Stepper

cdef Py_ssize_t GATHER_BYTES
cdef double BATCH_SECONDS
cdef int COST_SHIFT

cdef class Sender(Gathering):
    cdef readonly object transport
    cdef Stepper stepper
    # Somebody else has the transport, so nothing is gathered any more.
    cdef bint exposed
    # What was gathered: the first piece, all pieces where there are several, and the sum of their sizes.
    cdef bytes pending
    cdef list more
    cdef readonly Py_ssize_t size
    # How many bytes were ever written.
    cdef readonly long long written
    # When settle() first found unread input behind what is gathered, in seconds of the monotonic clock; 0 where it has not.
    cdef double began
    # A handshake is going on: everything waits.
    cdef bint held
    # After write_eof().
    cdef bint ended
    # After close(), or the loss of the connection.
    cdef readonly bint closing
    # Something was sent since drain() last asked the transport whether it is closing.
    cdef bint unchecked

    @cython.locals(chunk=bytes, size=Py_ssize_t)
    cpdef object write(self, object data)
    cdef object _keep(self, bytes chunk, Py_ssize_t size)
    cdef object _send(self, bytes data)
    cdef object _send_all(self, list pieces, Py_ssize_t size)
    @cython.locals(pending=bytes, more=list, size=Py_ssize_t)
    cdef object flush(self)
    @cython.locals(now=double)
    cdef object settle(self, bint unread)
    cdef object expose(self)
    cdef object rebind(self, object transport)
    cpdef object hold(self)
    cpdef object release(self)
    cdef object write_eof(self)
    cdef object close(self)
    cdef bint is_closing(self) except -1
    cdef object lost(self)
    cdef object drop(self)

cdef bytes as_bytes(object data)
