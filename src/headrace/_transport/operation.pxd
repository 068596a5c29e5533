cimport cython

from headrace._transport.stepper cimport Stepper

cdef int NEW
cdef int PAUSED
cdef int WAITING
cdef int WOKEN
cdef int CANCELLED
cdef int DONE

cdef int READ
cdef int READ_ALL
cdef int READEXACTLY
cdef int READUNTIL
cdef int READLINE
cdef int NEXT_LINE
cdef int WAIT_FOR_DATA
cdef int DRAIN
cdef int DRAIN_HELPER

cdef object PENDING
cdef object TURN

cdef object _spare
cdef Py_ssize_t _ALONE

cdef class Source:
    cdef public object _loop
    cdef Stepper _h_stepper

    cdef object _h_attempt(self, Operation operation)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)

@cython.final
cdef class Operation:
    cdef Source source
    cdef int kind
    cdef int state
    cdef bint blocking
    # How many bytes; for a search: the shortest and the longest separator's.
    cdef Py_ssize_t amount
    # The separator or separators; the message of a cancellation once cancelled.
    cdef object argument
    # The task's wake-up and the context to call it in; others is for a caller who is not a task.
    cdef object callback
    cdef object context
    cdef list others

    @cython.locals(state=int, source=Source)
    cdef object _advance(self)
    cdef object _end(self)
    cdef object _cancelled_error(self)
    cdef object wake_later(self)
    cdef object wake_now(self)
    cdef object _schedule(self)

@cython.locals(operation=Operation)
cdef Operation start(Source source, int kind, Py_ssize_t amount, object argument)
cdef str name_of(Operation operation, str name)
cpdef object warn_never_awaited(int kind)
