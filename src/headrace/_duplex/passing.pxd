cimport cython

from headrace._duplex cimport writes
from headrace._duplex.foreign cimport ForeignWrites
from headrace._duplex.stream cimport Duplex
from headrace._duplex.writes cimport Outgoing, Writes
from headrace._transport cimport timing as timings

cpdef object plain_transport(Duplex stream)
cdef object transport_of(Writes queue)
cpdef object hold(Duplex stream)
cpdef object release(Duplex stream)
cdef object release_queue(Writes queue)
cpdef object lock_of(Duplex stream)
cdef object foreign_lock(ForeignWrites queue)
cpdef Py_ssize_t unsent(Duplex stream) except -1
cpdef object passed_in(Duplex stream, Py_ssize_t size)
cpdef object passed_out(Duplex stream, Py_ssize_t size)
cdef object pass_on(Writes queue, Py_ssize_t size)
@cython.locals(out=Outgoing)
cpdef long long progress(Duplex stream) except? -1
