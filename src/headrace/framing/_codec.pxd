cimport cython

from headrace._core.buffer cimport ReadBuffer

cdef object WANTED

cdef class Cursor:
    cdef BaseCodec codec
    # Its decode() is somebody's own.
    cdef bint is_python
    # So is its encode().
    cdef bint encodes_itself
    # How many bytes the next frame needs, from its start on, and where in the stream that is.
    cdef Py_ssize_t need
    cdef long long position
    # What was wrong behind the good frames of a batch, for the next call.
    cdef object error
    # Where in the stream that was.
    cdef long long error_at

    cdef object leave(self, ReadBuffer buffer, object error)
    cdef object want(self, ReadBuffer buffer, Py_ssize_t need)
    cdef bint is_short(self, ReadBuffer buffer) except -1

cdef class BaseCodec:
    # The longest frame, in bytes.
    cdef Py_ssize_t _h_limit

    @cython.locals(size=Py_ssize_t)
    cdef object _h_take(self, ReadBuffer buffer, Cursor cursor)
    @cython.locals(size=Py_ssize_t)
    cdef bint _h_is_ready(self, ReadBuffer buffer, Cursor cursor) except -1
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    cdef object _h_extract(self, ReadBuffer buffer, Py_ssize_t size)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_finish(self, ReadBuffer buffer, Cursor cursor)
    cdef tuple _h_encode_all(self, tuple frames)

cdef bint is_ours(object method) except -1
cdef bytes as_bytes(object data)
cdef tuple all_bytes(tuple frames)
cdef Py_ssize_t checked_limit(Py_ssize_t limit, Py_ssize_t least) except -1
cdef object set_limit(BaseCodec codec, Py_ssize_t limit)
cdef object decoded(Cursor cursor, ReadBuffer buffer)
cdef object take(Cursor cursor, ReadBuffer buffer)
@cython.locals(size=Py_ssize_t, taken=Py_ssize_t)
cdef object take_by_python(object codec, Cursor cursor, ReadBuffer buffer)
cdef object view_of(ReadBuffer buffer)
cdef bint is_ready(Cursor cursor, ReadBuffer buffer) except -1
cdef Py_ssize_t measure(Cursor cursor, ReadBuffer buffer) except? -1
@cython.locals(codec=BaseCodec, size=Py_ssize_t)
cdef object finish(Cursor cursor, ReadBuffer buffer)
cdef object decode_end(object codec, object view)
cdef Py_ssize_t limit_of(BaseCodec codec) except -1
@cython.locals(codec=BaseCodec)
cdef tuple encode_all(Cursor cursor, tuple frames)
cdef list pieces_of(object codec, object frame)
