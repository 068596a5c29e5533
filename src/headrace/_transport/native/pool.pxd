from cpython.object cimport PyObject

cdef enum:
    # How many storages are kept: as many reads as may hold what they got at the same time without
    # the next one having to allocate.
    KEPT = 8

cdef class Pool:
    # Bytes objects that were received into, NULL for none, and what each was allocated for,
    # whatever length it has now.
    cdef PyObject *kept[KEPT]
    cdef Py_ssize_t capacity[KEPT]
    # The place of the one that was used last.
    cdef int at

    cdef bytes receive(self, int descriptor, Py_ssize_t most, ssize_t *size)
    cdef PyObject *storage(self, Py_ssize_t size) except NULL
    cdef bytes filled(self, PyObject *storage, Py_ssize_t capacity, Py_ssize_t size)
    cdef void clear(self) noexcept
