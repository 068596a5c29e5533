cimport cython

from headrace._core cimport cprims
from headrace._transport cimport scheduler as schedulers
from headrace._transport.operation cimport Operation, Waitable
from headrace._transport.scheduler cimport Scheduler

cdef double NEVER
cdef double LOOKS_IN_TIMEOUT

@cython.freelist(16)
@cython.final
cdef class Bounds:
    # How long it may wait in all, in seconds, and until when that is, once it has begun to wait.
    cdef double seconds
    cdef double due
    # When it began to wait, or when something moved last; negative before that.
    cdef double since
    # How much a writer had moved then.
    cdef long long mark
    # How many bytes it may search; negative for the reader's limit.
    cdef Py_ssize_t limit
    # The innermost of the deadlines that it was started in.
    cdef Deadline deadline
    # What it raises when it runs, if it would have to wait again.
    cdef object error

@cython.final
cdef class Deadline:
    cdef Timing _timing
    cdef double _seconds
    cdef double _when
    cdef bint _expired
    cdef object _task
    # The deadline that the task was in before.
    cdef Deadline _outer

    @cython.locals(first=Deadline)
    cpdef tuple nearest(self)

@cython.final
cdef class Timing:
    cdef object _reader
    cdef object _writer
    cdef object _stream
    cdef object _loop
    cdef Scheduler scheduler
    # How long a read, or a write, may wait while nothing moves, in seconds.
    cdef double read_seconds
    cdef double write_seconds
    # Those that were entered and not left, of all tasks.
    cdef list deadlines
    # What is called when one of them is rescheduled: by what waits in coroutines (see bounded.py).
    cdef readonly list watchers
    # The loop's clock, where that is not the system's monotonic one.
    cdef object _time
    cdef object _handle
    # When the timer goes off.
    cdef double _when

    cpdef double now(self) except? -1
    cdef object current_task(self)
    @cython.locals(deadline=Deadline)
    cdef Deadline innermost(self, object task)
    cpdef Deadline current_deadline(self)
    @cython.locals(bounds=Bounds)
    cdef object bound(self, Operation operation, double seconds)
    @cython.locals(bounds=Bounds, rest=double, now=double)
    cdef object begin(self, Operation operation, bint writing)
    cdef object progressed(self, Operation operation)
    @cython.locals(when=double)
    cdef double _next(self, Bounds bounds, double rest, bint writing, double now) except? -1
    @cython.locals(deadline=Deadline)
    cdef object _failure(
        self, Operation operation, Bounds bounds, double rest, bint writing, double now
    )
    cdef object arm(self, double when)
    cdef object look(self)
    @cython.locals(deadline=Deadline, now=double, when=double)
    cpdef object _fire(self)
    @cython.locals(bounds=Bounds, operation=Operation, when=double, moved="long long")
    cdef double _look_at(self, Waitable owner, double rest, bint writing, double now) except? -1

@cython.locals(bounds=Bounds)
cdef Bounds bounds_of(Operation operation)
cdef long long moved_by(Waitable owner) except -1
cdef bint waits(Waitable owner) except -1
cdef Py_ssize_t limit_of(Operation operation, Py_ssize_t otherwise) except -1
cdef object limit_to(Operation operation, Py_ssize_t limit)
cdef object check(Operation operation)
cpdef object check_deadline(Deadline deadline, str name)
@cython.locals(first=Deadline)
cdef Deadline nearest_of(Deadline deadline)
cdef double checked_time(object at) except? -1
cpdef double checked_seconds(object seconds, str what) except? -1
