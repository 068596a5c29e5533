cdef int begin_wait(object future) except -1
cdef bint is_awaited_by(object future, object cls) except -1
cdef object wake_up(object future, object argument)
