cimport cython

from headrace._transport.operation cimport Operation
from headrace._streams.read_half cimport ReadHalf

cdef unsigned int _looked_at
cdef bint _plain
cdef bint _plain_reads

cdef class Reader(ReadHalf):
    # Nobody has overridden readuntil, readline or exception.
    cdef bint _h_plain_reads

    @cython.locals(version=cython.uint)
    cdef object _h_notice_overrides(self)
    @cython.locals(kind=int)
    cdef object _h_attempt(self, Operation operation)
    cdef object _h_check(self)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_read(self, Py_ssize_t limit)
    cdef object _h_read_all(self)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_readexactly(self, Py_ssize_t wanted, object asked)
    @cython.locals(size=Py_ssize_t, before=Py_ssize_t)
    cdef object _h_readline(self)
    cdef object _h_line_overrun(self, str message, Py_ssize_t consumed)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_drop_overrun(self, Py_ssize_t consumed)
    @cython.locals(size=Py_ssize_t, before=Py_ssize_t, after=Py_ssize_t, searched=Py_ssize_t)
    cdef object _h_readuntil(self, Operation operation)
    cdef object _h_wait_once(self, Operation operation)

cdef tuple _last
@cython.locals(separators=tuple, last=tuple)
cdef object prepare_separators(Operation operation)
cdef bytes as_separator(object separator)
