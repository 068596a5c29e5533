cimport cython

from headrace._core.cinline cimport references
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

    cdef object future_to_wait_for(self)
    cdef int wake(self, object future) except -1
    cdef int _schedule(self) except -1
    cdef int end_batch(self) except -1
    cdef bint is_quiet(self) except -1
    @cython.locals(waking=list, done=Py_ssize_t, alone=bint)
    cpdef object resume(self)
    cdef object current_task(self)
    cdef int step(self, object future) except -1
    cdef object _look_at(self, object outcome, object future)
    cpdef object start(self, object coroutine)
    cdef int _end_step(self) except -1
    cdef int gather(self, Flushable sender) except -1
    @cython.locals(first=Flushable, more=list, sender=Flushable)
    cdef int _flush(self) except -1
    cdef int _flush_one(self, Flushable sender) except -1
    cdef bytearray receive_buffer(self)

@cython.locals(waking=list, count=Py_ssize_t)
cdef Py_ssize_t count_held() except -1
cdef object complete(object future)
cdef object raise_later(Scheduler scheduler, object error)
@cython.locals(scheduler=Scheduler)
cpdef Scheduler scheduler_of(object loop)
