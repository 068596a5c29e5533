cimport cython

from headrace._duplex cimport foreign, writes
from headrace._duplex.foreign cimport ForeignWrites
from headrace._duplex.reading cimport Reading
from headrace._duplex.writes cimport Outgoing, Writes
from headrace._streams.reader cimport Reader
from headrace._streams.writer cimport Writer
from headrace._transport cimport timing as timings
from headrace._transport.timing cimport Timing

cdef class Duplex(Reading):
    # The writer as it was given, and what this writes through.
    cdef object _h_given_writer
    cdef Outgoing _h_out

    cdef Timing _h_timed(self)

cdef Outgoing outgoing(Duplex stream, object writer)
cdef tuple end_of(Reader reader, object writer)
cdef bint ended_here(Writer writer) except -1
cdef bint is_closed(Writer writer) except -1
cdef bint has_flow(Writer writer) except -1
cdef object seconds_or_none(double seconds)
