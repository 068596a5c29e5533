from headrace._transport.native.connected_socket cimport ConnectedSocket

cdef class SendingSocket(ConnectedSocket):
    # How many bytes were written besides those of the write buffer, and are kept elsewhere.
    cdef Py_ssize_t held
    # Above how many unsent bytes the protocol is paused, and at how many it is resumed.
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    # A fact: the protocol was told to pause writing, and not to resume.
    cdef bint protocol_paused
    # Facts about the system: it has no memory for a send, or for a receive, until retry().
    cdef bint send_waits
    cdef bint receive_waits

    cdef object send(self, bytes data, bint followed)
    cdef object send_all(self, list pieces)
    cdef object push(self)
    cdef object send_queued(self)
    cdef bint may_send_later(self) except -1
    cdef object retry_later(self)
    cdef object pause_if_high(self)
    cdef object resume_if_low(self)
    cdef object shut_writing(self)
