cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.scheduler cimport Flushable, Scheduler

cdef Py_ssize_t GATHER_BYTES
cdef Py_ssize_t JOIN_BYTES
cdef int COST_SHIFT

cdef class Sender(Flushable):
    cdef readonly object transport
    cdef Scheduler scheduler
    # Somebody else has the transport, so nothing is gathered any more.
    cdef bint exposed
    # What is written in a step is kept for a while: TLS.
    cdef bint gathers
    # What the reader of the same connection holds; None where there is no reader of ours.
    cdef ReadBuffer input
    # What was gathered: the first piece, all pieces where there are several, and the sum of their
    # sizes.
    cdef bytes pending
    cdef list more
    cdef readonly Py_ssize_t size
    # How many bytes were ever written.
    cdef readonly long long written
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
    @cython.locals(chunks=list, chunk=bytes, size=Py_ssize_t)
    cpdef object write_pieces(self, object pieces)
    cdef object _send_pieces(self, list pieces)
    cdef object _keep(self, bytes chunk, Py_ssize_t size)
    cdef bint is_followed(self) except -1
    cdef object _send(self, bytes data, bint followed)
    cdef object flush(self)
    @cython.locals(pending=bytes, more=list)
    cdef object _hand_over(self, bint followed)
    cdef object settle(self)
    cdef bint has_ended(self) except -1
    cdef object expose(self)
    cdef object rebind(self, object transport, bint exposed)
    cpdef object hold(self)
    cpdef object release(self)
    cdef object write_eof(self)
    cdef object close(self)
    cdef bint is_closing(self) except -1
    cdef object lost(self)
    cdef object drop(self)

@cython.locals(incoming=ReadBuffer)
cpdef tuple counts_of(Sender sender)
cdef object pass_on(Sender sender, Py_ssize_t size)
cdef bint is_secure(object transport) except -1
cdef bytes as_bytes(object data)
