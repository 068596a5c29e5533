cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.operation cimport Operation
from headrace._transport.stream_protocol cimport Receiver
from headrace._transport.sender cimport Sender

cdef bytes NEWLINE

cdef class ReadHalf(Receiver):
    cdef public Py_ssize_t _limit
    cdef public bint _eof
    cdef public bint _paused
    cdef public object _exception
    cdef public object _source_traceback
    cdef ReadBuffer _h_bytes
    # The exception, where it came from the loss of the connection and not from set_exception().
    cdef object _h_lost
    # The operation that waits, or whatever somebody assigned to _waiter.
    cdef object _h_waiter
    cdef object _h_transport
    # The context in which the transport was set, for what the transport schedules later.
    cdef object _h_context
    # The writer's sender, which must know when somebody takes the transport from here.
    cdef Sender _h_sender

    cdef object _h_feed(self, bytes data)
    cdef object _h_feed_front(self, bytearray scratch, Py_ssize_t size)
    cdef ReadBuffer _h_reserved(self)
    cdef bint _h_waits(self) except -1
    cdef object _h_after_feed(self)
    cdef object _h_maybe_pause(self)
    cdef object _h_pause_once(self, Operation waiter)
    cdef object _h_maybe_resume(self)
    cdef object _h_resume(self)
    cdef object _h_lose(self, object error)
    cdef object _h_wake(self)
    cdef bytes _h_take(self, Py_ssize_t size)
    cdef object _h_pending(self)
    cdef object _h_wait(self, Operation operation)
    cdef bint _h_occupied(self) except -1
    cdef object _h_detach(self, Operation operation)

cdef bint is_waiting(Operation operation) except -1
cdef bint is_large(Operation operation) except -1
@cython.locals(kind=int, size=Py_ssize_t, found=bint)
cdef bint is_ready(ReadHalf reader, Operation operation) except -1
cdef bint is_greedy(ReadHalf reader, Operation operation) except -1
