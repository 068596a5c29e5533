# What compiled modules have in themselves instead of calling cprims for it: a call of a function in
# another module costs more than what these do.

cdef extern from *:
    """
    /* What a weak reference refers to, with a new reference, or None where that is gone. */
    static CYTHON_INLINE PyObject *headrace_referent(PyObject *reference) {
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

    /* The same of an object that is known to be a weak reference. (What is being freed has no
       references any more when its weak ones are cleared.) */
    static CYTHON_INLINE PyObject *headrace_known_referent(PyObject *reference) {
    #ifdef Py_GIL_DISABLED
        return headrace_referent(reference);
    #else
        PyObject *referent = ((PyWeakReference *)reference)->wr_object;
        if (Py_REFCNT(referent) <= 0) referent = Py_None;
        Py_INCREF(referent);
        return referent;
    #endif
    }

    /* An integer as a size, or the nearest one that a size can be. */
    static CYTHON_INLINE Py_ssize_t headrace_clipped(PyObject *number) {
    #if PY_VERSION_HEX >= 0x030C0000
        if (PyLong_CheckExact(number) && PyUnstable_Long_IsCompact((PyLongObject *)number))
            return PyUnstable_Long_CompactValue((PyLongObject *)number);
    #endif
        return PyNumber_AsSsize_t(number, NULL); /* NULL: clip, as a slice does */
    }
    """
    Py_ssize_t references "Py_REFCNT"(object)
    object referent "headrace_referent"(object)
    object known_referent "headrace_known_referent"(object)
    Py_ssize_t clipped "headrace_clipped"(object) except? -1
