cimport cython

from headrace._core cimport cprims
from headrace._transport cimport future as futures, receive

cdef int BUDGET
cdef object _CTask
cdef bint EAGER
cdef dict _current_tasks
cdef Py_ssize_t _ALONE
cdef Py_ssize_t _HELD

cdef class Flushable:
    cdef object flush(self)

@cython.final
cdef class Scheduler:
    cdef object __weakref__
    cdef readonly object loop
    # A task is being stepped: its writes end with the step.
    cdef readonly bint stepping
    # What a stepped task is told has ended.
    cdef object woken
    # A future that nobody waits for any more, to be waited for again.
    cdef object spare
    # How many more operations may complete at once before the loop gets a turn.
    cdef readonly int left
    # The senders that hold something written in this step.
    cdef Flushable dirty
    cdef list more_dirty
    cdef bytearray scratch
    # The loop is in debug mode.
    cdef bint debug
    # What the tasks wait for that resume() will resume, and the context of its handle.
    cdef list waking
    cdef object context
    # A reactor is receiving: whom it wakes is resumed at the end of its batch.
    cdef bint collecting
    # A handle for resume() is on its way.
    cdef bint scheduled
    # The loop's Reactor, once there is one. (Not typed: it stands on a higher floor.)
    cdef object reactor
    # What the loop will call next, once a reactor has found it; None where that cannot be seen.
    cdef object ready
    # A handler may have its first step before the loop's next turn.
    cdef bint eager

    cdef void renew(self) noexcept
    cdef object future_to_wait_for(self)
    cdef object wake(self, object future)
    cdef object _schedule(self)
    cdef object end_batch(self)
    cdef bint is_quiet(self) except -1
    @cython.locals(waking=list, done=Py_ssize_t, alone=bint)
    cpdef object resume(self)
    cdef object current_task(self)
    cdef object step(self, object future, object callback, object context)
    cpdef object start(self, object coroutine)
    cdef object _end_step(self)
    cdef object gather(self, Flushable sender)
    @cython.locals(first=Flushable, more=list, sender=Flushable)
    cdef object _flush(self)
    cdef object _flush_one(self, Flushable sender)
    cdef bytearray receive_buffer(self)

@cython.locals(waking=list, count=Py_ssize_t)
cdef Py_ssize_t count_held() except -1
cdef bint is_wake_up(object callback) except -1
cdef object complete(object future)
cdef object raise_later(Scheduler scheduler, object error)
@cython.locals(scheduler=Scheduler)
cpdef Scheduler scheduler_of(object loop)
