cimport cython

cdef int BUDGET
cdef object _CTask
cdef dict _current_tasks
cdef object _get_running_loop

cdef class Gathering:
    cdef object flush(self)

@cython.final
cdef class Stepper:
    cdef object __weakref__
    cdef readonly object loop
    # A task is being stepped, so what it writes is gathered.
    cdef readonly bint stepping
    cdef object woken
    # How many more operations may complete at once before the loop gets a turn.
    cdef readonly int left
    # When the last step began, in seconds of the monotonic clock.
    cdef double began
    # The senders that hold something written in this step.
    cdef Gathering dirty
    cdef list more_dirty
    cdef bytearray scratch
    cdef bint is_base

    cdef void renew(self) noexcept
    cdef bint may_step(self, object callback) except -1
    cdef bint step(self, object callback, object context) except -1
    cdef object gather(self, Gathering sender)
    @cython.locals(first=Gathering, more=list, sender=Gathering)
    cdef object _flush(self)
    cdef object _flush_one(self, Gathering sender)
    cdef bytearray receive_buffer(self)

cpdef Stepper stepper_of(object loop)
