cimport cython

from headrace._streams.read_half cimport Read, ReadHalf
from headrace._streams cimport reads as readers
from headrace._streams.reads cimport ReadAll, ReadExactly, ReadLine, ReadSome, ReadUntil
from headrace._transport cimport operation as operations
from headrace._transport.operation cimport Operation

cdef class Line(ReadLine):
    @cython.locals(before=Py_ssize_t, size=Py_ssize_t, limit=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    @cython.locals(size=Py_ssize_t)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef object waits_in(self, Operation operation)

cdef class NextLine(Line):
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef class ReadAllWithin(ReadAll):
    @cython.locals(size=Py_ssize_t, limit=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1

cdef class Peek(Read):
    @cython.locals(size=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1

cdef class ReadInto(Read):
    @cython.locals(size=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef class Skip(Read):
    @cython.locals(size=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef Read READ
cdef Read READ_ALL
cdef Read READ_ALL_WITHIN
cdef Read READEXACTLY
cdef Read READUNTIL
cdef Read READLINE
cdef Read NEXT_LINE
cdef Read PEEK
cdef Read READ_INTO
cdef Read SKIP
