# cython: language_level=3
"""The C leaf: the few things that neither Python nor Cython's pure mode says well.

Every function here has a twin of the same name and meaning in `cprims_py.py`, and one test runs
both. Nothing else in headrace touches memory by pointer.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.object cimport PyObject
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    #if defined(__linux__) || defined(__APPLE__) || defined(__FreeBSD__)
    #define headrace_memmem memmem
    extern void *memmem(const void *, size_t, const void *, size_t);
    #else
    static void *headrace_memmem(const void *hay, size_t n, const void *needle, size_t m) {
        const char *at = (const char *)hay, *last = at + (n - m);
        if (m > n) return NULL;
        for (; at <= last; at++)
            if (*at == *(const char *)needle && memcmp(at, needle, m) == 0) return (void *)at;
        return NULL;
    }
    #endif

    /* The tag is 0, or marked as void, from a change until the next time that an attribute is
       looked up. */
    static unsigned int headrace_version_of(PyObject *cls) {
        PyTypeObject *type = (PyTypeObject *)cls;
    #if PY_VERSION_HEX < 0x030D0000
        if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
    #endif
        return type->tp_version_tag;
    }

    static PyObject *headrace_referent(PyObject *reference) {
        PyObject *referent;
    #if PY_VERSION_HEX >= 0x030D0000
        if (PyWeakref_GetRef(reference, &referent) < 0) return NULL;
        if (referent == NULL) referent = Py_NewRef(Py_None);
    #else
        referent = PyWeakref_GetObject(reference);
        Py_XINCREF(referent);
    #endif
        return referent;
    }

    static int headrace_hide_vtable(PyObject *cls) {
        PyTypeObject *type = (PyTypeObject *)cls;
        if (PyDict_DelItemString(type->tp_dict, "__pyx_vtable__") < 0) return -1;
        PyType_Modified(type);
        return 0;
    }
    """
    void *headrace_memmem(const void *, size_t, const void *, size_t) nogil
    Py_ssize_t Py_REFCNT(object)
    Py_ssize_t PyNumber_AsSsize_t(object, void *) except? -1  # NULL: clip, as a slice does
    # declared here so that -1 is ours to handle, not an exception
    int PyContext_Enter(object context)
    int PyContext_Exit(object context) except -1
    void PyErr_Clear()
    int PyObject_GenericSetAttr(object, object, object) except -1
    bint PyCFunction_Check(object)
    object headrace_referent(object)
    int headrace_hide_vtable(object cls) except -1
    unsigned int headrace_version_of(object)
    int headrace_hide_vtable(object) except -1
    PyObject *PyCFunction_GET_SELF(object)


cpdef bytes piece(bytes data, Py_ssize_t start, Py_ssize_t size):
    """Return *size* bytes of *data* from *start*: one allocation, one copy."""
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, size)


cpdef bytes front(bytearray data, Py_ssize_t size):
    """Return a copy of the first *size* bytes of *data*."""
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(data), size)


cpdef Py_ssize_t find(bytes data, bytes needle, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Return where *needle* (not empty) lies wholly within data[start:end], or -1."""
    cdef const char *base = PyBytes_AS_STRING(data)
    cdef Py_ssize_t width = PyBytes_GET_SIZE(needle)
    cdef const void *hit
    if end - start < width:
        return -1
    if width == 1:
        hit = memchr(base + start, PyBytes_AS_STRING(needle)[0], end - start)
    else:
        hit = headrace_memmem(base + start, end - start, PyBytes_AS_STRING(needle), width)
    if hit == NULL:
        return -1
    return <const char *>hit - base


cpdef Py_ssize_t clipped(object number) except? -1:
    """Return *number*, an integer of any size, or the nearest one that a size can be."""
    return PyNumber_AsSsize_t(number, NULL)


cpdef bytes allocate(Py_ssize_t size):
    """Return *size* bytes whose content is undefined; only their owner, and nobody else yet, may
    write them."""
    return PyBytes_FromStringAndSize(NULL, size)


cpdef void put(
    bytes storage, Py_ssize_t at, bytes data, Py_ssize_t start, Py_ssize_t size
) noexcept:
    """Copy data[start:start + size] to storage[at:]; *storage* comes from allocate() and nobody
    else has seen it."""
    memcpy(PyBytes_AS_STRING(storage) + at, PyBytes_AS_STRING(data) + start, size)


cpdef void put_front(bytes storage, Py_ssize_t at, bytearray data, Py_ssize_t size) noexcept:
    """Copy the first *size* bytes of *data* to storage[at:], under the same condition as put()."""
    memcpy(PyBytes_AS_STRING(storage) + at, PyByteArray_AS_STRING(data), size)


cpdef Py_ssize_t number_at(bytes data, Py_ssize_t at, int size, bint big) noexcept:
    """Return the unsigned number that is written in data[at:at + size], at most 8 bytes; one of 8
    bytes whose highest bit is set is returned as negative."""
    cdef unsigned char *written = <unsigned char *>PyBytes_AS_STRING(data) + at
    cdef unsigned long long number = 0
    cdef int i
    if size == 4 and big:  # what most protocols have
        return <Py_ssize_t>written[0] << 24 | written[1] << 16 | written[2] << 8 | written[3]
    for i in range(size):
        number = number << 8 | written[i if big else size - 1 - i]
    return <Py_ssize_t>number


cpdef void put_number(
    bytes storage, Py_ssize_t at, long long number, int size, bint big
) noexcept:
    """Write *number*, which fits, to storage[at:at + size], under the same condition as put()."""
    cdef char *written = PyBytes_AS_STRING(storage) + at
    cdef int i
    for i in range(size):
        written[size - 1 - i if big else i] = <char>(number & 0xFF)
        number >>= 8


cpdef Py_ssize_t references(object data) noexcept:
    """Return how many references to *data* there are, those of this very call included (so compare,
    never trust the number)."""
    return Py_REFCNT(data)


cpdef double seconds() noexcept:
    """Return the monotonic clock, in seconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cpdef object bound_to(object callback):
    """Return what the C function *callback* is bound to, or None where it is anything else."""
    if not PyCFunction_Check(callback):
        return None
    cdef PyObject *target = PyCFunction_GET_SELF(callback)
    return None if target == NULL else <object>target


cpdef object referent(object reference):
    """Return what the weak reference *reference* refers to, or None where that is gone."""
    return headrace_referent(reference)


cpdef unsigned int version_of(object cls) noexcept:
    """Return a number that changes whenever an attribute of *cls*, or of a class that it inherits
    from, does; 0 where there is none."""
    return headrace_version_of(cls)


cpdef object set_attribute(object target, str name, object value):
    """Do what object.__setattr__() does; that one refuses the types of an extension before Python
    3.12."""
    PyObject_GenericSetAttr(target, name, value)


cpdef bint enter(object context, object callback, object argument) except -1:
    """Call callback(argument) in *context* and return True, or return False where *context* is
    entered already."""
    if PyContext_Enter(context) < 0:
        PyErr_Clear()
        return False
    try:
        callback(argument)
    finally:
        PyContext_Exit(context)
    return True


cpdef void hide_vtable(object cls) except *:
    """Take the table of C functions out of the attributes of *cls*, which a compiled class has:
    help() shows it, and only modules that are still to be loaded look for it there."""
    if "__pyx_vtable__" in cls.__dict__:
        headrace_hide_vtable(cls)
