cimport cython

cdef Py_ssize_t SPARE_BYTES

@cython.final
cdef class ReadBuffer:
    # The unread bytes are head[pos:end]; owned says that head is ours to write behind end.
    cdef bytes head
    cdef Py_ssize_t pos
    cdef Py_ssize_t end
    cdef bint owned
    # How many bytes were ever taken out.
    cdef readonly long long taken
    # The bytearray that somebody else holds, or None: see expose().
    cdef bytearray live
    # What was last searched for, and how far: an absolute position in head, or one for each
    # separator.
    cdef object separators
    cdef Py_ssize_t scanned_one
    cdef list scanned

    @cython.locals(size=Py_ssize_t)
    cpdef object append(self, bytes data)
    cpdef object append_front(self, bytearray scratch, Py_ssize_t size)
    @cython.locals(size=Py_ssize_t, unread=Py_ssize_t, storage=bytes)
    cpdef object prepend(self, bytes data)
    cpdef object reserve(self, Py_ssize_t total)
    cpdef Py_ssize_t room(self) except -1
    @cython.locals(unread=Py_ssize_t)
    cdef object _make_room(self, Py_ssize_t size)
    @cython.locals(unread=Py_ssize_t)
    cdef object _move(self, bytes storage)
    cpdef Py_ssize_t length(self) except -1
    @cython.locals(head=bytes, data=bytes)
    cpdef bytes take(self, Py_ssize_t size)
    cpdef bytes peek(self, Py_ssize_t start, Py_ssize_t size)
    @cython.locals(data=bytes)
    cpdef bytes take_behind(self, Py_ssize_t start, Py_ssize_t size)
    cpdef Py_ssize_t number(self, Py_ssize_t start, int size, bint big) except? -1
    cpdef object take_into(self, object view)
    cpdef object skip(self, Py_ssize_t size)
    cdef void _clear(self) noexcept
    @cython.locals(size=Py_ssize_t)
    cpdef object spare(self)
    @cython.locals(start=Py_ssize_t, hit=Py_ssize_t)
    cpdef Py_ssize_t find_one(self, bytes separator) except -2
    @cython.locals(
        best_start=Py_ssize_t, best_end=Py_ssize_t, until=Py_ssize_t, start=Py_ssize_t,
        hit=Py_ssize_t, i=Py_ssize_t, separator=bytes
    )
    cpdef tuple find_first(self, tuple separators)
    cdef object _rebase(self, Py_ssize_t shift)
    cpdef bytearray expose(self)
    cpdef object replace(self, bytearray live)
    cdef bint _conceal(self) except -1

@cython.locals(best_start=Py_ssize_t, best_end=Py_ssize_t, hit=Py_ssize_t)
cpdef tuple find_first_in(bytearray data, tuple separators)
cdef Py_ssize_t _holders(ReadBuffer buffer) except -1
cdef Py_ssize_t _ALONE
