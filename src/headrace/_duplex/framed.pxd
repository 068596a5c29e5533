cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace._duplex cimport writes
from headrace._duplex.stream cimport Duplex
from headrace._streams.read_half cimport Read, ReadHalf
from headrace._transport cimport operation as operations, receive, timing as timings
from headrace._transport.operation cimport Operation
from headrace.framing cimport _codec as codecs, _delimited as delimited
from headrace.framing._codec cimport BaseCodec, Cursor
from headrace.framing._delimited cimport DelimitedCodec

cdef class ReadFrame(Read):
    @cython.locals(cursor=Cursor)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef object end(self)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef bint is_large(self, Operation operation) except -1

cdef class NextFrame(ReadFrame):
    cdef object end(self)

cdef class Many:
    cdef Cursor cursor
    cdef Py_ssize_t most
    cdef bint views

cdef class ReadMany(Read):
    @cython.locals(many=Many, frames=list)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef bint is_large(self, Operation operation) except -1

cdef class Discard(Read):
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef class FramedStream:
    cdef Duplex _stream
    cdef Cursor _cursor

cdef Read READ_FRAME
cdef Read NEXT_FRAME
cdef Read READ_MANY
cdef Read DISCARD

@cython.locals(frames=list, buffer=ReadBuffer)
cdef list frames_of(Many many, ReadHalf reader)
@cython.locals(
    cursor=Cursor, codec=BaseCodec, buffer=ReadBuffer, size=Py_ssize_t, views=list, at=Py_ssize_t,
    start=Py_ssize_t, stop=Py_ssize_t
)
cdef list views_of(Many many, ReadHalf reader)
cdef object raise_left(Cursor cursor, ReadBuffer buffer)
cdef Py_ssize_t need_of(Cursor cursor) except -1
cdef Cursor cursor_of(Many many)
cdef bint wants_views(Many many) except -1
@cython.locals(codec=BaseCodec)
cdef Py_ssize_t too_large(Cursor cursor, Duplex stream) except -1
cdef bint drop(Cursor cursor, ReadHalf reader) except -1
