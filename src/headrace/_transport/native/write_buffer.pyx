# cython: language_level=3
"""WriteBuffer: bytes that the system did not take yet. They are kept as they came, never copied or
joined; their count is a counter."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from headrace._transport.native.linux cimport iovec


cdef class WriteBuffer:
    """A queue of pieces, in the order in which they were added. Most connections never have one:
    *pieces* is None until they do."""

    cdef object add(self, bytes piece, Py_ssize_t sent):
        """Add *piece*, of which the first *sent* bytes are sent already: more than 0 only where the
        queue is empty."""
        if self.size == 0:
            self.offset = sent
            if self.pieces is None:
                self.pieces = []
        self.pieces.append(piece)
        self.size += PyBytes_GET_SIZE(piece) - sent

    cdef int fill(self, iovec *vectors, int most, Py_ssize_t *total) noexcept:
        """Point up to *most* of *vectors* to what is next; return how many, and in *total* the sum
        of their sizes."""
        cdef int count = 0
        cdef Py_ssize_t size, skip = self.offset
        total[0] = 0
        while count < most and self.first + count < len(self.pieces):
            piece = <bytes>self.pieces[self.first + count]
            size = PyBytes_GET_SIZE(piece) - skip
            vectors[count].iov_base = PyBytes_AS_STRING(piece) + skip
            vectors[count].iov_len = size
            total[0] += size
            skip = 0
            count += 1
        return count

    cdef object remove(self, Py_ssize_t sent):
        """Forget the first *sent* bytes: they have left."""
        cdef Py_ssize_t left
        self.size -= sent
        while sent > 0:
            left = PyBytes_GET_SIZE(<bytes>self.pieces[self.first]) - self.offset
            if sent < left:
                self.offset += sent
                break
            sent -= left
            self.offset = 0
            self.pieces[self.first] = None
            self.first += 1
        # Twice as many places as pieces at most, so that a queue that never empties costs O(1) a
        # piece.
        if self.first * 2 >= len(self.pieces):
            del self.pieces[: self.first]
            self.first = 0

    cdef object clear(self):
        """Forget everything."""
        self.pieces = None
        self.first = 0
        self.offset = 0
        self.size = 0
