# The sizes that compiled code uses are C variables: Python sees only what is not declared here.
cdef Py_ssize_t MAX_RECEIVE_BYTES
cdef Py_ssize_t MIN_RECEIVE_BYTES
cdef Py_ssize_t FLOOD_FACTOR
cdef Py_ssize_t TURN_BYTES
cdef Py_ssize_t REST_BYTES
cdef Py_ssize_t RESERVE_BYTES
cdef Py_ssize_t RECORD_BYTES

cdef Py_ssize_t more_of_a_flood(Py_ssize_t now, Py_ssize_t first) noexcept
