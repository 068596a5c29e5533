cimport cython

from headrace._core cimport cprims
from headrace._transport.scheduler cimport Scheduler

cdef enum:
    OUTSIDE = 8

cdef int NEW
cdef int PAUSED
cdef int WAITING
cdef int WOKEN
cdef int DONE

cdef object PENDING
cdef object TURN

cdef object _spare
cdef Py_ssize_t _ALONE

cdef class Kind:
    cdef readonly str name

cdef class Waitable:
    cdef public object _loop
    cdef Scheduler _h_scheduler

    cdef object _h_attempt(self, Operation operation)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)
    cdef list _h_waiting(self)
    cdef object _h_give_up(self, Operation operation)
    cdef long long _h_moved(self) except -1

@cython.final
cdef class Operation:
    cdef Waitable waitable
    cdef Kind kind
    cdef int state
    # How many bytes. For a search: the length of the longest separator. For what has no number: 1
    # once it has had its one turn.
    cdef Py_ssize_t amount
    # The separator or separators.
    cdef object argument
    # What a debugger of another process takes for a coroutine's state: see opslots.pyx. It stands
    # where that is (at 64 bytes from the start): what is new comes behind it.
    cdef char[OUTSIDE] outside
    # What the task waits for, while it waits.
    cdef object future
    # How long it may wait, and how much it may take, where that is bounded: a Bounds, or None. (Not
    # typed: it stands above.)
    cdef object bounds

    @cython.locals(state=int, waitable=Waitable)
    cdef object _advance(self)
    cdef object end(self)
    cdef bint is_waiting(self) except -1
    cdef object woken(self)

@cython.locals(operation=Operation)
cdef Operation start(Waitable waitable, Kind kind, Py_ssize_t amount, object argument)
@cython.locals(operation=Operation)
cdef Operation by_hand(Waitable waitable, Kind kind, Py_ssize_t amount, object argument)
cdef object woken(Operation operation)
cdef str name_of(Operation operation, str name)
cpdef object warn_never_awaited(Kind kind)
