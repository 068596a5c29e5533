from cpython.object cimport PyObject

cdef enum:
    # How many storages are kept: as many reads as may hold what they got at the same time without
    # the next one having to allocate.
    KEPT = 8
    # How many small messages are kept. A handler that echoes holds its message until the next has
    # come: so many connections go without an allocation.
    KEPT_SMALL = 64
    # A message is kept from the first size that the interpreter does not allocate by itself
    # (SMALL_REQUEST_THRESHOLD is 512) to one that many of which are no burden, in bytes.
    LEAST_KEPT = 480
    MOST_KEPT = 4096

cdef class Pool:
    # Bytes objects that were received into, NULL for none, and what each was allocated for,
    # whatever length it has now.
    cdef PyObject *kept[KEPT]
    cdef Py_ssize_t capacity[KEPT]
    # The place of the one that was used last.
    cdef int at
    # The same of small messages, in a ring, from the oldest to the youngest.
    cdef PyObject *small[KEPT_SMALL]
    cdef Py_ssize_t small_capacity[KEPT_SMALL]
    cdef int small_at

    cdef bytes receive(self, int descriptor, Py_ssize_t most, ssize_t *size)
    cdef PyObject *storage(self, Py_ssize_t size) except NULL
    cdef bytes filled(self, PyObject *storage, Py_ssize_t capacity, Py_ssize_t size)
    cdef bytes message(self, const char *data, Py_ssize_t size)
    cdef void clear(self) noexcept
