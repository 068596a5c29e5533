from headrace._transport.native.linux cimport iovec

cdef class WriteBuffer:
    # The pieces from *first* on are unsent, the first of them from *offset* on; *size* is the sum
    # of what is unsent, in bytes.
    cdef list pieces
    cdef Py_ssize_t first
    cdef Py_ssize_t offset
    cdef Py_ssize_t size

    cdef object add(self, bytes piece, Py_ssize_t sent)
    cdef int fill(self, iovec *vectors, int most, Py_ssize_t *total) noexcept
    cdef object remove(self, Py_ssize_t sent)
    cdef object clear(self)
