from headrace._transport.native.tls_engine cimport TLS

cdef class InnerTLS(TLS):
    cdef TLS outer
    # What the outer session could not take; or None.
    cdef bytes backlog

    cdef object begin_inside(self, TLS outer, bytes early, bytes backlog)
    cdef object pass_down(self)
