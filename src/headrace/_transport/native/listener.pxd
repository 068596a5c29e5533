from headrace._transport.native.reactor cimport Descriptor

cdef class Listener(Descriptor):
    cdef readonly object sock
    cdef int family
    cdef object factory
    cdef object context
    cdef object sockname
    cdef Py_ssize_t receive_bytes
    # What TLS needs: see accepted(); or None.
    cdef tuple secure
    # A fact: the server wants no connections for a while: see hold().
    cdef bint held

    cdef int accept(self) except -1
