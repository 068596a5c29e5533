cimport cython

from headrace._core cimport cprims
from headrace._core.buffer cimport ReadBuffer
from headrace.framing cimport _codec as codecs
from headrace.framing._codec cimport BaseCodec, Cursor

cdef Py_ssize_t COPY_BYTES
cdef Py_ssize_t MOST_BYTES

cdef class LengthCodec(BaseCodec):
    # The length: its bytes, whether the highest comes first, what is before it, and what is to be
    # added.
    cdef int size
    cdef bint is_big
    cdef Py_ssize_t offset
    cdef Py_ssize_t adjust
    # How many bytes a frame has up to the end of the length; how many the user does not get.
    cdef Py_ssize_t head
    cdef Py_ssize_t skip

    @cython.locals(size=Py_ssize_t)
    cdef object _h_take(self, ReadBuffer buffer, Cursor cursor)
    @cython.locals(there=Py_ssize_t, value="long long", whole=Py_ssize_t, known=bint)
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    cdef object _h_extract(self, ReadBuffer buffer, Py_ssize_t size)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
    @cython.locals(
        chunks=tuple, chunk=bytes, total=Py_ssize_t, head=bytes, storage=bytes, at=Py_ssize_t,
        size=Py_ssize_t
    )
    cdef tuple _h_encode_all(self, tuple frames)
    @cython.locals(whole=Py_ssize_t, value="long long")
    cdef Py_ssize_t _whole(self, Py_ssize_t size) except -1
    @cython.locals(size=Py_ssize_t, value="long long")
    cdef bytes _checked(self, bytes frame)

cdef class VarintCodec(BaseCodec):
    cdef Py_ssize_t offset
    # The most bytes of a length.
    cdef int most
    cdef bint canonical
    cdef bint keep_head

    @cython.locals(there=Py_ssize_t, count=Py_ssize_t, byte=int)
    cdef Py_ssize_t _head(self, ReadBuffer buffer) except -1
    @cython.locals(
        there=Py_ssize_t, head=Py_ssize_t, value="long long", at=Py_ssize_t, whole=Py_ssize_t
    )
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    @cython.locals(start=Py_ssize_t)
    cdef object _h_extract(self, ReadBuffer buffer, Py_ssize_t size)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)

cdef class NetstringCodec(BaseCodec):
    # The most digits of a length.
    cdef Py_ssize_t most

    @cython.locals(there=Py_ssize_t, at=Py_ssize_t, byte=int)
    cdef Py_ssize_t _head(self, ReadBuffer buffer) except -1
    @cython.locals(
        there=Py_ssize_t, head=Py_ssize_t, value="long long", at=Py_ssize_t, whole=Py_ssize_t
    )
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    @cython.locals(start=Py_ssize_t)
    cdef object _h_extract(self, ReadBuffer buffer, Py_ssize_t size)
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)

cdef class FixedCodec(BaseCodec):
    cdef Py_ssize_t _h_measure(self, ReadBuffer buffer) except? -1
    cdef tuple _h_span(self, ReadBuffer buffer, Py_ssize_t size)
