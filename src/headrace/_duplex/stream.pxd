cimport cython

from headrace._core cimport cprims
from headrace._duplex cimport foreign, reads, writes
from headrace._duplex.foreign cimport ForeignWrites
from headrace._duplex.writes cimport Outgoing, Writes
from headrace._streams.read_half cimport Read
from headrace._streams.reader cimport Reader
from headrace._streams.writer cimport Writer
from headrace._transport cimport operation as operations, sender as senders, timing as timings
from headrace._transport.operation cimport Operation
from headrace._transport.timing cimport Timing

cdef class Duplex:
    cdef object __weakref__
    # The pair as it was given.
    cdef object _given_reader
    cdef object _given_writer
    # The reader, where it is ours; else one that is given what fetch() gets from theirs.
    cdef Reader _reader
    cdef bint _is_foreign
    cdef Outgoing _out
    # What bounds the waits; None as long as nothing does.
    cdef Timing _timing
    # How many reads there were.
    cdef long long _reads

    cdef object _start(self, Read kind, Py_ssize_t amount, object argument, object timeout)
    cdef object _start_within(
        self, Read kind, Py_ssize_t amount, object argument, object timeout, Py_ssize_t limit
    )
    cdef object _start_foreign(
        self, Read kind, Py_ssize_t amount, object argument, object timeout, Py_ssize_t limit
    )
    cdef object _bound(self, Operation operation, object timeout)
    cdef Timing _timed(self)

cdef Outgoing outgoing(Duplex stream, object writer)
cdef bint has_flow(Writer writer) except -1
cdef object seconds_or_none(double seconds)
