cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace.framing cimport _codec as codecs
from headrace.framing._codec cimport BaseCodec, Cursor

cdef bytes NEWLINE

cdef class DelimitedCodec(BaseCodec):
    cdef bint strip
    cdef bint yields_last
    # What a frame that is written ends with; all of them, the shortest first; the longest's length.
    cdef bytes first
    cdef tuple delimiters
    cdef Py_ssize_t longest

    @cython.locals(
        before=Py_ssize_t, after=Py_ssize_t, low=Py_ssize_t, start=Py_ssize_t, best=Py_ssize_t,
        near=bytes, piece=bytes, delimiter=bytes
    )
    cdef tuple _find(self, ReadBuffer buffer, bint ended)
    cdef object _check(self, ReadBuffer buffer, Py_ssize_t before)
    @cython.locals(before=Py_ssize_t, after=Py_ssize_t)
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t)
    cdef object _h_extract(self, ReadBuffer buffer, Py_ssize_t size)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
    @cython.locals(
        before=Py_ssize_t, after=Py_ssize_t, size=Py_ssize_t, position="long long"
    )
    cdef object _h_finish(self, ReadBuffer buffer, Cursor cursor)
    cdef object _last(self, bytes data, long long position)

cdef class LineCodec(DelimitedCodec):
    cdef object encoding

    @cython.locals(before=Py_ssize_t, line=bytes, position="long long")
    cdef object _h_take(self, ReadBuffer buffer, Cursor cursor)
    cdef object _decoded(self, bytes line, long long position)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
    cdef object _last(self, bytes data, long long position)

cdef class JSONCodec(DelimitedCodec):
    cdef object loads
    cdef object dumps

    @cython.locals(before=Py_ssize_t, line=bytes)
    cdef object _h_take(self, ReadBuffer buffer, Cursor cursor)
    cdef object _parsed(self, bytes line, long long position)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
    cdef object _h_finish(self, ReadBuffer buffer, Cursor cursor)

@cython.locals(before=Py_ssize_t, after=Py_ssize_t)
cdef bint drop(DelimitedCodec codec, ReadBuffer buffer) except -1
cdef object prepare(DelimitedCodec codec, Py_ssize_t limit, str last)
