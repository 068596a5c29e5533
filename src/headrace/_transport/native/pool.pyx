# cython: language_level=3
"""Pool: what connections receive into. Large storages are used again when everybody has dropped
them, and never given back in between.

A bytes object of 64 KiB that is allocated for every receive and freed a moment later is the most
expensive part of receiving: the C library gives its pages back to the system, and takes them again,
one fault each.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject

from headrace._transport.native.linux cimport errno, recv

cdef extern from *:
    """
    /* Give a bytes object that nobody else has another length, within what it was allocated for. It
       must not remember its old hash. */
    static void headrace_set_length(PyObject *data, Py_ssize_t length) {
        Py_SET_SIZE((PyVarObject *)data, length);
        PyBytes_AS_STRING(data)[length] = 0;
        _Py_COMP_DIAG_PUSH
        _Py_COMP_DIAG_IGNORE_DEPR_DECLS
        ((PyBytesObject *)data)->ob_shash = -1;
        _Py_COMP_DIAG_POP
    }
    """
    void set_length "headrace_set_length"(PyObject *, Py_ssize_t)
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    void Py_CLEAR(PyObject *)
    Py_ssize_t Py_REFCNT(object)


cdef class Pool:
    """The storages of one event loop."""

    def __dealloc__(self):
        self.clear()

    cdef bytes receive(self, int descriptor, Py_ssize_t most, ssize_t *size):
        """Receive up to *most* bytes; set *size* to what recv() returns, or to the negative number
        of its error.

        Returns: what was received, or None where *size* is not above 0.
        """
        cdef PyObject *storage = self.storage(most)
        size[0] = recv(descriptor, PyBytes_AS_STRING(<object>storage), most, 0)
        if size[0] > 0:
            return self.filled(storage, most, size[0])
        if size[0] < 0:
            size[0] = -errno
        return None

    cdef bytes filled(self, PyObject *storage, Py_ssize_t capacity, Py_ssize_t size):
        """Return the first *size* bytes of *storage*, of which there are *capacity*.

        The storage itself where at least half of it was filled, else a copy: a reader that keeps it
        keeps no more than twice its length.
        """
        if 2 * size < capacity:
            return PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object>storage), size)
        if size < capacity:
            set_length(storage, size)
        return <bytes>storage

    cdef PyObject *storage(self, Py_ssize_t size) except NULL:
        """Return a bytes object of *size* that nobody but the pool refers to."""
        cdef PyObject *found
        cdef int i
        cdef int place
        for i in range(KEPT):
            place = (self.at + i) % KEPT
            found = self.kept[place]
            if found != NULL and Py_REFCNT(<object>found) == 1 and self.capacity[place] == size:
                set_length(found, size)
                self.at = place
                return found
        # The oldest has been kept, or is of another size.
        place = (self.at + 1) % KEPT
        found = new_bytes(NULL, size)
        Py_CLEAR(self.kept[place])
        self.kept[place] = found
        self.capacity[place] = size
        self.at = place
        return found

    cdef void clear(self) noexcept:
        """Let go of everything."""
        cdef int i
        for i in range(KEPT):
            Py_CLEAR(self.kept[i])
