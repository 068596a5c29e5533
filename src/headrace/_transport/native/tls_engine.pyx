# cython: language_level=3
"""TLS: one side of one TLS session, without any input or output of its own: bytes in, bytes out.

It is the ssl module's SSLObject between two MemoryBIOs, so it works with whatever OpenSSL Python
was built with, and with every option of an SSLContext. What it adds is that a read is only tried
where it will bring something: the module says that there is nothing by an exception, which costs
more than decrypting a small record. Records can be counted from outside: their first five bytes are
never encrypted (RFC 8446, 5.1). Each read takes one record; where a record brings no data (a
session ticket, a new key), or was read along with another, there is one read in vain, and nothing
worse.

A MemoryBIO keeps for ever as much memory as it has ever held, so it gets no more than RECORD_BYTES
at a time, or one record.
"""

import ssl

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING

from headrace._transport.receive cimport RECORD_BYTES

cdef enum:
    HEADER_BYTES = 5
    # The types of a record, and how much longer than what it brings one may be (RFC 8446, 5.1 and
    # 5.2; RFC 5246, 6.2.3).
    FIRST_TYPE = 20
    LAST_TYPE = 24
    EXPANSION_BYTES = 2048


cdef class Window:
    """Memory of ours, for the ssl module to read from or to write into: one object, used again for
    every call."""

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, False, flags)


cdef class TLS:
    """One side of a session: bytes in, bytes out. Every method raises ssl.SSLError unless it says
    otherwise; what output() returns after that is the alert for the peer."""

    def __init__(self, context, bint server_side, server_hostname, resume):
        self.context = context
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self.incoming, self.outgoing, server_side, server_hostname, resume
        )
        self.window = Window.__new__(Window)
        self.take_in = self.incoming.write
        self.give_out = self.outgoing.read
        # The object inside does the work, without a method in Python between. Where a program has
        # put a class of its own there, that is called.
        inner = self.ssl_object
        if type(inner) is ssl.SSLObject:
            inner = getattr(inner, "_sslobj", inner)
        self.decrypt = inner.read
        self.encrypt = inner.write
        self.pending = inner.pending

    cdef object receive(self, bytes chunk, Py_ssize_t size):
        """Take the first *size* bytes of *chunk*, which came from the peer, and nobody changes;
        those before have been read (see has_data())."""
        self.chunk = chunk
        self.at = 0
        self.end = size

    cdef bint feed(self) except -1:
        """Feed the next records of what was received, or what there is of one; return whether one
        has become whole."""
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(self.chunk)
        cdef Py_ssize_t at = self.at
        cdef Py_ssize_t whole = at  # where the last whole record ends
        cdef Py_ssize_t step, records = 0
        while at < self.end:
            if self.known < HEADER_BYTES:
                self.known += 1
                if self.known == 1:
                    self.strange = not FIRST_TYPE <= data[at] <= LAST_TYPE
                if self.known >= HEADER_BYTES - 1:  # the last two: the length of the body
                    self.missing = self.missing << 8 | data[at]
                at += 1
                if self.known < HEADER_BYTES:
                    continue
                if self.strange or self.missing > RECORD_BYTES + EXPANSION_BYTES:
                    # No record: the session shall say so, and not wait for the rest of it.
                    self.missing = 0
            step = min(self.end - at, self.missing)
            at += step
            self.missing -= step
            if records > 0 and at - self.at > RECORD_BYTES:
                break
            if self.missing == 0:
                self.known = 0
                records += 1
                whole = at
        if records > 0 and at - self.at > RECORD_BYTES:
            # The rest begins with a record of its own.
            at = whole
            self.known = 0
            self.missing = 0
        self.window.start = <char *>data + self.at
        self.window.size = at - self.at
        self.take_in(self.window)
        self.at = at
        if at == self.end:
            self.chunk = None
        self.records += records
        return records > 0

    cdef bint handshake(self) except -1:
        """Go on with the handshake; return whether it is complete. Raises: ssl.SSLError,
        ssl.CertificateError."""
        if self.chunk is not None:
            self.feed()
        while True:
            try:
                self.ssl_object.do_handshake()
                # It is kept, for a session that has failed does not know it any more.
                self.version = self.ssl_object.version()
                # Some of the records were the peer's last messages, and behind them there may be
                # data already.
                return True
            except ssl.SSLWantReadError:
                self.records = 0
                if self.chunk is None:
                    return False
                self.feed()

    cdef bint has_data(self) noexcept:
        """Tell whether it is worth while to read()."""
        return self.records > 0 or self.partial or self.chunk is not None

    cdef Py_ssize_t read(self, char *into, Py_ssize_t size) except -1:
        """Decrypt up to *size* bytes, of one record, into *into*; return how many there were. None
        also means the peer's close_notify."""
        cdef Py_ssize_t got = -1
        while got < 0:
            if self.records == 0 and not self.partial and (self.chunk is None or not self.feed()):
                return 0
            self.window.start = into
            self.window.size = size
            try:
                got = self.decrypt(size, self.window)
            except ssl.SSLWantReadError:
                self.records = 0
                self.partial = False
                self.stirred = True
            except ssl.SSLZeroReturnError:
                got = 0
        if got == 0:
            self.records = 0
            self.partial = False
            self.chunk = None  # whatever comes behind the end
            self.heard_goodbye = True
            return 0
        if not self.partial:
            self.records -= 1
        self.partial = got == size and <Py_ssize_t>self.pending() > 0
        return got

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1:
        """Encrypt some of *data*; return how much, which is nothing where the peer has to say
        something first."""
        self.window.start = <char *>data
        self.window.size = size
        try:
            return self.encrypt(self.window)
        except ssl.SSLWantReadError:
            return 0

    cdef bytes output(self):
        """Return what is to be sent to the peer, b"" where that is nothing."""
        return self.give_out()

    cdef object say_goodbye(self):
        """Have output() return close_notify. What has come and was not read cannot be read after
        this."""
        self.said_goodbye = True
        try:
            self.ssl_object.unwrap()
        except ssl.SSLError:
            pass  # it would like to wait for the peer's
