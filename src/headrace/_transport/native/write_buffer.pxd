from headrace._transport.native.linux cimport iovec

cdef class WriteBuffer:
    # What was added, or None where nothing ever was.
    cdef list pieces
    # The index of the first piece that is not sent.
    cdef Py_ssize_t first
    # How much of that piece is sent.
    cdef Py_ssize_t offset
    # How many bytes are unsent altogether.
    cdef Py_ssize_t size

    cdef object add(self, bytes piece, Py_ssize_t sent)
    cdef int fill(self, iovec *vectors, int most, Py_ssize_t *total) noexcept
    cdef object remove(self, Py_ssize_t sent)
    cdef object clear(self)
