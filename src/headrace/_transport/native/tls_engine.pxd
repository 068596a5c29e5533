cdef enum:
    # The most that one record brings (RFC 8446, 5.1). Offered less, a read leaves the rest of it in
    # the session.
    RECORD_BYTES = 1 << 14

cdef class Window:
    cdef char *start
    cdef Py_ssize_t size

cdef class TLS:
    cdef readonly object context
    cdef readonly object ssl_object
    # "TLSv1.3" and the like, after the handshake.
    cdef readonly object version
    cdef object incoming
    cdef object outgoing
    cdef Window window
    # Methods of the ssl module's objects, looked up once.
    cdef object take_in
    cdef object give_out
    cdef object decrypt
    cdef object encrypt
    cdef object pending
    # What has been received and not been fed yet: from *at* to *end* of *chunk*; or None.
    cdef bytes chunk
    cdef Py_ssize_t at
    cdef Py_ssize_t end
    # How many whole records have been fed that no read has begun; and the record that is being fed:
    # what is known of its header, and how much of its body is to come.
    cdef readonly Py_ssize_t records
    cdef int known
    cdef bint strange
    cdef Py_ssize_t missing
    # The rest of a record that has been decrypted, where a read did not take all of it.
    cdef bint partial
    # A read was in vain: the record was one of the session's own, and may want an answer, which
    # output() has.
    cdef bint stirred
    # close_notify was sent; the peer's has come.
    cdef readonly bint said_goodbye
    cdef readonly bint heard_goodbye

    cdef object receive(self, bytes chunk, Py_ssize_t size)
    cdef bint feed(self) except -1
    cdef bint handshake(self) except -1
    cdef bint has_data(self) noexcept
    cdef Py_ssize_t read(self, char *into, Py_ssize_t size) except -1
    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1
    cdef bytes output(self)
    cdef object say_goodbye(self)
