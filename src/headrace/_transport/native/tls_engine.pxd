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
    # How many whole records have been fed that no read has begun.
    cdef readonly Py_ssize_t records
    # Of the record that is being fed: how many bytes of its header were seen.
    cdef int known
    # A fact about it: its type is none that there is.
    cdef bint strange
    # How much of its body is to come.
    cdef Py_ssize_t missing
    # A fact: a read did not take all of the record that it decrypted.
    cdef bint partial
    # A fact: a read was in vain. The record was one of the session's own, and output() may have an
    # answer to it.
    cdef bint stirred
    # A fact: our close_notify is in output(), or was.
    cdef readonly bint said_goodbye
    # A fact: the peer's close_notify has come.
    cdef readonly bint heard_goodbye

    cdef object receive(self, bytes chunk, Py_ssize_t size)
    cdef bint feed(self) except -1
    cdef bint handshake(self) except -1
    cdef bint has_data(self) noexcept
    cdef Py_ssize_t read(self, char *into, Py_ssize_t size) except -1
    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1
    cdef bytes output(self)
    cdef object say_goodbye(self)
