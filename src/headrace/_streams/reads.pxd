cimport cython

from headrace._streams.read_half cimport Read, ReadHalf
from headrace._transport cimport operation as operations, receive, timing as timings
from headrace._transport.operation cimport Operation

cdef bytes NEWLINE

cdef class ReadSome(Read):
    @cython.locals(size=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef class ReadAll(Read):
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef bint is_greedy(self, ReadHalf reader, Operation operation) except -1

cdef class ReadExactly(Read):
    @cython.locals(wanted=Py_ssize_t, size=Py_ssize_t)
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef bint is_large(self, Operation operation) except -1

cdef class ReadLine(Read):
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1
    cdef object waits_in(self, Operation operation)

cdef class NextLine(ReadLine):
    cdef object attempt(self, ReadHalf reader, Operation operation)

cdef class ReadUntil(Read):
    @cython.locals(
        size=Py_ssize_t, before=Py_ssize_t, after=Py_ssize_t, searched=Py_ssize_t, limit=Py_ssize_t
    )
    cdef object attempt(self, ReadHalf reader, Operation operation)
    @cython.locals(found=bint, searched=Py_ssize_t)
    cdef bint is_ready(self, ReadHalf reader, Operation operation) except -1

cdef class WaitForData(Read):
    cdef object attempt(self, ReadHalf reader, Operation operation)
    cdef object waits_in(self, Operation operation)

cdef Read READ
cdef Read READ_ALL
cdef Read READEXACTLY
cdef Read READUNTIL
cdef Read READLINE
cdef Read NEXT_LINE
cdef Read WAIT_FOR_DATA

cdef Py_ssize_t limit_of(ReadHalf reader, Operation operation) except -1
@cython.locals(before=Py_ssize_t, size=Py_ssize_t)
cdef object take_line(ReadHalf reader)
cdef object raise_overrun(ReadHalf reader, str message, Py_ssize_t consumed)
@cython.locals(size=Py_ssize_t)
cdef object drop_overrun(ReadHalf reader, Py_ssize_t consumed)

cdef tuple _last
@cython.locals(separators=tuple, last=tuple)
cdef object prepare_separators(Operation operation)
cdef bytes as_separator(object separator)
cdef str overrun_message(bint found, Py_ssize_t size, Py_ssize_t limit)
