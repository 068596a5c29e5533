cimport cython

from headrace._streams.writer cimport Writer
from headrace._transport cimport (
    operation as operations, sender as senders, stream_protocol as protocols, timing as timings
)
from headrace._transport.operation cimport Kind, Operation, Waitable
from headrace._transport.sender cimport Sender
from headrace._transport.timing cimport Timing

cdef Kind WRITE
cdef Kind FLUSH
cdef Kind HOLD
cdef Py_ssize_t GATHER_BYTES
cdef double LOOK_SECONDS
cdef object _HELD

cdef class Outgoing(Waitable):
    cdef object __weakref__
    cdef Timing timing
    # How many writes and flushes there were.
    cdef long long operations
    # How many corked() blocks the tasks are in; what was gathered in them, and how much that is.
    cdef Py_ssize_t _corks
    cdef list _gathered
    cdef Py_ssize_t _gathered_bytes

    cdef object start(self, Kind kind, tuple pieces, double seconds)
    cdef object send(self, tuple pieces)
    cdef object check_open(self)
    cdef Py_ssize_t unsent(self) except -1
    cdef long long sent(self) except -1
    @cython.locals(chunks=list, chunk=bytes)
    cdef object pass_on(self, Py_ssize_t size)
    cdef object accept(self, tuple pieces)
    @cython.locals(gathered=list)
    cdef object send_gathered(self)
    cdef object cork(self)
    cdef object uncork(self)

cdef class Writes(Outgoing):
    cdef Writer writer
    # Those that wait, the first of which may go on; or None.
    cdef object _queue
    # What the limits of the transport are to be again, while a flush waits; or None.
    cdef tuple _limits

    @cython.locals(timing=Timing)
    cdef object start(self, Kind kind, tuple pieces, double seconds)
    cdef object send(self, tuple pieces)
    cdef object check_open(self)
    @cython.locals(sender=Sender)
    cdef Py_ssize_t unsent(self) except -1
    cdef long long sent(self) except -1
    cpdef object pass_on(self, Py_ssize_t size)
    cpdef object release(self)
    cdef object _h_attempt(self, Operation operation)
    cdef object _try(self, Operation operation)
    @cython.locals(writer=Writer)
    cdef object _check(self, Operation operation)
    @cython.locals(writer=Writer)
    cdef object _try_flush(self, Operation operation)
    cpdef object _look_again(self, Operation operation)
    cdef object _hold(self, Operation operation)
    cdef object _forget(self, Operation operation)
    cdef object _restore_limits(self)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)
    cdef object _wake_next(self)
    cdef list _h_waiting(self)
    cdef object _h_give_up(self, Operation operation)
    cdef long long _h_moved(self) except -1

cdef bint is_waiting(Operation operation) except -1
cpdef object set_limits(object transport, object high, object low=*)
