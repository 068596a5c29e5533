cimport cython

from headrace._core cimport cprims
from headrace._streams cimport reads
from headrace._streams.read_half cimport ReadHalf

cdef unsigned int _looked_at
cdef bint _plain
cdef bint _plain_reads

cdef class Reader(ReadHalf):
    # Nobody has overridden readuntil, readline or exception.
    cdef bint _h_plain_reads

    @cython.locals(version=cython.uint)
    cdef object _h_notice_overrides(self)

cdef bint is_number(object n) except -1
