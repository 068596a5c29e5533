cimport cython

from headrace._core cimport cprims
from headrace._duplex cimport foreign, reads
from headrace._streams.read_half cimport Read
from headrace._streams.reader cimport Reader
from headrace._transport cimport operation as operations, sender as senders, timing as timings
from headrace._transport.operation cimport Operation
from headrace._transport.timing cimport Timing

cdef class Reading:
    cdef object __weakref__
    # The reader as it was given.
    cdef object _h_given_reader
    # The same, where it is ours; else one that is given what fetch() gets from theirs.
    cdef Reader _h_reader
    cdef bint _h_is_foreign
    # What bounds the waits; None as long as nothing does.
    cdef Timing _h_timing
    # How many reads there were.
    cdef long long _h_reads

    cdef object _h_start(self, Read kind, Py_ssize_t amount, object argument, object timeout)
    cdef object _h_start_bounded(
        self, Read kind, Py_ssize_t amount, object argument, object timeout
    )
    cdef object _h_start_within(
        self, Read kind, Py_ssize_t amount, object argument, object timeout, Py_ssize_t limit
    )
    cdef object _h_start_foreign(
        self, Read kind, Py_ssize_t amount, object argument, object timeout, Py_ssize_t limit
    )
    cdef Timing _h_timed(self)
