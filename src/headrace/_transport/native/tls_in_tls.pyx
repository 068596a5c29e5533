# cython: language_level=3
"""InnerTLS: one side of a TLS session whose records are the data of another session, as behind an
HTTPS proxy. To its connection the two are one session.

A session that has to hear something from the peer before it sends (a renegotiation of TLS 1.2)
keeps what it is given: the outer one by *blocked*, which the inner one's write() obeys.
"""

import ssl

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from headrace._transport.native.tls_engine cimport TLS
from headrace._transport.receive cimport RECORD_BYTES


cdef class InnerTLS(TLS):
    """One side of a session inside *outer*, once begin_inside() was called."""

    cdef object begin_inside(self, TLS outer, bytes early, bytes backlog):
        """Go on inside *outer*, whose handshake is complete. *early* was read from it already;
        *backlog* was written and could not be encrypted."""
        self.outer = outer
        if early:
            TLS.receive(self, early, PyBytes_GET_SIZE(early))
        if backlog:
            self.backlog = backlog
            self.blocked = True

    # ---- in

    cdef object receive(self, bytes chunk, Py_ssize_t size):
        self.outer.receive(chunk, size)

    cdef bint has_more(self) noexcept:
        return self.chunk is not None or self.outer.has_data()

    cdef bint feed(self) except -1:
        cdef bytes data
        cdef Py_ssize_t size
        if self.chunk is None:
            data = PyBytes_FromStringAndSize(NULL, RECORD_BYTES)
            size = self.outer.read(PyBytes_AS_STRING(data), RECORD_BYTES)
            if self.outer.stirred:
                self.outer.stirred = False
                self.stirred = True
            if size == 0:
                self.was_cut = self.outer.heard_goodbye or self.outer.was_cut
                return False
            TLS.receive(self, data, size)
        return TLS.feed(self)

    # ---- out

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1:
        return 0 if self.blocked else TLS.write(self, data, size)

    cdef bytes output(self):
        self.pass_down()
        return self.outer.output()

    cdef object pass_down(self):
        """Have the outer session encrypt what this one has to say."""
        cdef bytes data = TLS.output(self)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t step = 1
        cdef Py_ssize_t size
        if self.backlog is not None:
            data = self.backlog + data
            self.backlog = None
        size = PyBytes_GET_SIZE(data)
        try:
            while at < size and step > 0:
                step = self.outer.write(PyBytes_AS_STRING(data) + at, min(size - at, RECORD_BYTES))
                at += step
        except ssl.SSLError:
            at = size  # it has failed, and the connection ends for that: see read()
        self.blocked = at < size
        if self.blocked:
            self.backlog = data[at:]

    cdef bint say_goodbye(self, bint whole) except -1:
        cdef bint is_new = TLS.say_goodbye(self, False)
        if whole:
            self.pass_down()
            is_new |= self.outer.say_goodbye(True)
        return is_new
