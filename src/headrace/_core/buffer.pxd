cdef class ReadBuffer:
    # The unread bytes are head[pos:end]; owned says that head is ours to write behind end.
    cdef bytes head
    cdef Py_ssize_t pos
    cdef Py_ssize_t end
    cdef bint owned
    # The bytearray that somebody else holds, or None: see expose().
    cdef bytearray live
    # What was last searched for, and how far: an absolute position in head, or one for each separator.
    cdef object separators
    cdef Py_ssize_t scanned_one
    cdef list scanned

    cpdef void append(self, bytes data) except *
    cpdef void append_front(self, bytearray scratch, Py_ssize_t size) except *
    cpdef void reserve(self, Py_ssize_t total) except *
    cdef void _make_room(self, Py_ssize_t size) except *
    cdef void _move(self, bytes storage) except *
    cpdef Py_ssize_t length(self) except -1
    cpdef bytes take(self, Py_ssize_t size)
    cpdef void skip(self, Py_ssize_t size) except *
    cdef void _clear(self) noexcept
    cpdef void spare(self) except *
    cpdef Py_ssize_t find_one(self, bytes separator) except -2
    cpdef tuple find_first(self, tuple separators)
    cdef void _rebase(self, Py_ssize_t shift) except *
    cpdef bytearray expose(self)
    cpdef void replace(self, bytearray live) except *
    cdef bint _conceal(self) except -1

cpdef tuple find_first_in(bytearray data, tuple separators)
cdef Py_ssize_t _holders(ReadBuffer buffer) except -1
cdef Py_ssize_t _ALONE
