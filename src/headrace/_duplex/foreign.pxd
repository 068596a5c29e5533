from headrace._duplex cimport writes
from headrace._duplex.writes cimport Outgoing
from headrace._streams.read_half cimport Read
from headrace._streams.reader cimport Reader
from headrace._transport cimport (
    operation as operations, scheduler as schedulers, timing as timings
)
from headrace._transport.operation cimport Kind, Operation
from headrace._transport.timing cimport Timing

cdef object attempt(Read kind, Reader reader, Operation operation)
cdef object forget(Operation operation)
cdef object feed(Reader reader, bytes data)
cdef double rest_of(Timing timing, bint writing) except? -1
cdef object timing_of(Reader reader)
cpdef object give_back(Reader reader, object source)

cdef class ForeignWrites(Outgoing):
    # The stream, weakly.
    cdef object stream
    cdef object writer
    cdef long long written
    cdef object lock

    cdef object start(self, Kind kind, tuple pieces, double seconds)
    cdef object send(self, tuple pieces)
    cdef object check_open(self)
    cdef Py_ssize_t unsent(self) except -1
    cdef long long sent(self) except -1
    cpdef object pass_on(self, Py_ssize_t size)
    cdef list _h_waiting(self)
    cdef long long _h_moved(self) except -1
