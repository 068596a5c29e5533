cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace._transport cimport (
    operation as operations, scheduler as schedulers, timing as timings
)
from headrace._transport.operation cimport Kind, Operation
from headrace._transport.stream_protocol cimport Receiver
from headrace._transport.sender cimport Sender
from headrace._transport.timing cimport Timing

cdef class Read(Kind):
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef bint is_large(self, Operation operation) except -1
    cdef bint is_greedy(self, ReadHalf reader, Operation operation) except -1
    cdef object waits_in(self, Operation operation)

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
    # How long a read may wait, where a Stream bounds that, else None.
    cdef Timing _h_timing

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
    cdef object _h_check(self)
    cdef bytes _h_take(self, Py_ssize_t size)
    cdef object _h_pending(self)
    cdef object _h_start(self, Read kind, Py_ssize_t amount, object argument)
    cdef object _h_time(self, Timing timing)
    cdef list _h_waiting(self)
    cdef object _h_give_up(self, Operation operation)
    cdef object _h_attempt(self, Operation operation)
    @cython.locals(kind=Read)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)
    cdef bint _h_occupied(self) except -1

cdef bint is_waiting(Operation operation) except -1
cdef Read kind_of(Operation operation)
