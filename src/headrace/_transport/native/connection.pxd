from headrace._transport.native.sending cimport SendingSocket
from headrace._transport.stream_protocol cimport Receiver

cdef class Connection(SendingSocket):
    # A fact, until the system says that there is no more: it may have something for us.
    cdef bint readable
    # A fact: the other half is closed or broken.
    cdef bint hangup
    # A fact: a short receive does not mean that there is no more.
    cdef bint trickles
    # A fact, whatever the states are: the protocol wants nothing before resume_reading().
    cdef bint paused
    # How much one receive may bring now that the peer floods.
    cdef Py_ssize_t flood_bytes
    # A fact: the last receive brought all that it asked for.
    cdef bint filled

    cdef object begin(self)
    cdef object receive(self)
    cdef ssize_t receive_once(self, Py_ssize_t *asked) except? -1000000
    cdef ssize_t receive_foreign(self, Py_ssize_t *asked) except? -1000000
    cdef Py_ssize_t to_ask(self, Receiver receiver) except -1
    cdef bint is_left(self)
    cdef void adapt(self, Py_ssize_t asked, ssize_t size) noexcept
    cdef object on_eof(self)
    cdef object tell_eof(self)
