# cython: language_level=3
"""The type slots of Operation that Cython would fill at a price: how an interpreter resumes an
awaitable, and its end.

In Cython a ``__next__`` that returns a value raises StopIteration, with a traceback: that alone
costs more than a read from the buffer. Here the slots of Operation are C functions. 3.11 resumes
through ``am_send``, which returns the value as it is; 3.12 and later through ``tp_iternext``, which
has to set a StopIteration: an exception object is kept for that and used again.
"""

import gc
import sys

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from headrace._transport.operation cimport (
    NEW, OUTSIDE, PENDING, TURN, Kind, Operation, name_of, warn_never_awaited
)

from headrace._transport.frames import nothing

cdef extern from *:
    """
    /* A StopIteration that holds on to more than this after it was consumed would be felt. */
    #define HEADRACE_KEEP_BYTES 65536

    #if PY_VERSION_HEX >= 0x030C0000
    static PyObject *headrace_stop = NULL;
    #endif

    /* Set StopIteration(value) as the current exception. */
    static void headrace_set_stop(PyObject *value) {
    #if PY_VERSION_HEX >= 0x030C0000
        PyObject *stop = headrace_stop;
        if (PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) <= HEADRACE_KEEP_BYTES) {
            if (stop != NULL && Py_REFCNT(stop) == 1
                && ((PyBaseExceptionObject *)stop)->traceback == NULL
                && ((PyBaseExceptionObject *)stop)->context == NULL) {
                PyObject *old = ((PyStopIterationObject *)stop)->value;
                Py_INCREF(value);
                ((PyStopIterationObject *)stop)->value = value;
                Py_XDECREF(old);
            } else {
                /* Made without args, which would keep the first value for ever. */
                stop = PyObject_CallNoArgs(PyExc_StopIteration);
                if (stop == NULL) return;
                Py_INCREF(value);
                Py_XSETREF(((PyStopIterationObject *)stop)->value, value);
                Py_XSETREF(headrace_stop, stop);
            }
            Py_INCREF(stop);
            PyErr_SetRaisedException(stop);
            return;
        }
    #endif
        PyErr_SetObject(PyExc_StopIteration, value);
    }

    /* Let go of the value that was returned last: who got it may have dropped it since, and a large
       one could be used again. */
    static CYTHON_INLINE void headrace_drop_value(void) {
    #if PY_VERSION_HEX >= 0x030C0000
        if (headrace_stop != NULL && Py_REFCNT(headrace_stop) == 1)
            Py_CLEAR(((PyStopIterationObject *)headrace_stop)->value);
    #endif
    }

    /* Freed operations, to be used again: one is made for every call of a stream's method. */
    #define HEADRACE_FREE_OPERATIONS 64
    static PyObject *headrace_free[HEADRACE_FREE_OPERATIONS];
    static int headrace_free_count = 0;

    /* Where a coroutine has the state of its frame, 0 for unknown, and the one that says that it
       has none any more. */
    static size_t headrace_state_at = 0;
    static char headrace_state_cleared = 0;

    static PyObject *headrace_allocate(PyTypeObject *type, Py_ssize_t items) {
        PyObject *self;
        if (headrace_free_count == 0) {
            self = PyType_GenericAlloc(type, items);
            if (self == NULL) return NULL;
        } else {
            self = headrace_free[--headrace_free_count];
            memset(
                (char *)self + sizeof(PyObject), 0, (size_t)type->tp_basicsize - sizeof(PyObject)
            );
            PyObject_Init(self, type);
            PyObject_GC_Track(self);
        }
        if (headrace_state_at != 0) ((char *)self)[headrace_state_at] = headrace_state_cleared;
        return self;
    }

    /* From Python 3.14 on `python -m asyncio ps` reads the tasks of another process, and takes
       whatever a task runs for a coroutine: where that is an operation it followed wild pointers,
       and gave up. A coroutine without a frame it passes over. Where the state is, is seen by
       closing *coroutine*: only one byte from *from* up to *to* may change, or an operation cannot
       look like that. */
    static int headrace_watch_close(PyObject *coroutine, size_t from, size_t to) {
        char before[64];
        size_t at, found = 0;
        PyObject *closed;
        if (to - from > sizeof(before) || to > (size_t)Py_TYPE(coroutine)->tp_basicsize) return 0;
        memcpy(before, (char *)coroutine + from, to - from);
        closed = PyObject_CallMethod(coroutine, "close", NULL);
        if (closed == NULL) return -1;
        Py_DECREF(closed);
        for (at = from; at < to; at++) {
            if (((char *)coroutine)[at] == before[at - from]) continue;
            if (found != 0) return 0;
            found = at;
        }
        if (found != 0) headrace_state_cleared = ((char *)coroutine)[found];
        headrace_state_at = found;
        return 0;
    }

    /* Report the exception that is being handled; Cython's own report calls sys.excepthook as
       well. */
    static void headrace_report(void) {
        PyObject *type, *value, *traceback;
        PyErr_GetExcInfo(&type, &value, &traceback);
        PyErr_SetObject(type, value);
        PyErr_WriteUnraisable(NULL);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }

    static void headrace_release(void *self) {
        if (headrace_free_count < HEADRACE_FREE_OPERATIONS)
            headrace_free[headrace_free_count++] = (PyObject *)self;
        else PyObject_GC_Del(self);
    }

    static void headrace_release_all(void) {
        while (headrace_free_count > 0) PyObject_GC_Del(headrace_free[--headrace_free_count]);
    }
    """
    int watch_close "headrace_watch_close"(object coroutine, size_t, size_t) except -1
    void headrace_set_stop(object value)
    void drop_value "headrace_drop_value"()
    PyObject *headrace_allocate(Type *, Py_ssize_t)
    void headrace_release(void *)
    void release_all "headrace_release_all"()
    void report "headrace_report"()
    void PyType_Modified(Type *)
    void PyObject_GC_UnTrack(PyObject *)

    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    void PyErr_Fetch(PyObject **, PyObject **, PyObject **)
    void PyErr_Restore(PyObject *, PyObject *, PyObject *)

    ctypedef void (*destructor)(PyObject *)
    ctypedef PyObject *(*iternextfunc)(PyObject *)
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **)

    ctypedef struct PyAsyncMethods:
        sendfunc am_send

    ctypedef struct Type "PyTypeObject":
        PyObject *tp_dict
        Py_ssize_t tp_basicsize
        destructor tp_dealloc
        PyObject *(*tp_alloc)(Type *, Py_ssize_t)
        void (*tp_free)(void *)
        int (*tp_clear)(PyObject *)
        iternextfunc tp_iternext
        PyAsyncMethods *tp_as_async


cdef PyObject *resume(PyObject *self) except? NULL:
    """tp_iternext: yield what to wait for, or None for a turn of the loop, or end with a
    StopIteration."""
    result = (<Operation>self)._advance()
    if result is PENDING:
        drop_value()
        result = (<Operation>self).future
        Py_INCREF(result)
        return <PyObject *>result
    if result is TURN:
        Py_INCREF(None)
        return <PyObject *>None
    if result is not None:
        headrace_set_stop(result)
    return NULL


cdef PySendResult send(PyObject *self, PyObject *value, PyObject **result) except? PYGEN_ERROR:
    """am_send: the same, with the value returned beside the kind of result."""
    result[0] = NULL
    outcome = (<Operation>self)._advance()
    if outcome is PENDING:
        outcome = (<Operation>self).future
    elif outcome is TURN:
        outcome = None
    else:
        Py_INCREF(outcome)
        result[0] = <PyObject *>outcome
        return PYGEN_RETURN
    Py_INCREF(outcome)
    result[0] = <PyObject *>outcome
    return PYGEN_NEXT


cdef destructor deallocate_as_before


cdef void deallocate(PyObject *self) noexcept:
    """tp_dealloc: warn of an operation that nobody ever started. (A finalizer would cost every
    operation more than its work.)"""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *traceback
    if (<Operation>self).state == NEW:
        # The warning runs Python code, and so perhaps a collection, which must not see what is
        # being freed.
        PyObject_GC_UnTrack(self)
        PyErr_Fetch(&kind, &value, &traceback)
        warn((<Operation>self).kind)
        PyErr_Restore(kind, value, traceback)
    deallocate_as_before(self)


cdef void warn(Kind kind) noexcept:
    # Where warnings are errors, this one is reported as ignored, like every error in a
    # deallocation.
    try:
        warn_never_awaited(kind)
    except BaseException:
        report()


def release_free(phase: str, info: dict) -> None:
    """Give the free operations back in a full collection, as Python does with its own free things:
    each may hold an arena of the allocator."""
    if phase == "stop" and info["generation"] == 2:
        release_all()


def install() -> None:
    """Put the functions into Operation's slots; ``__next__`` and ``send`` called from Python stay
    as they are."""
    global deallocate_as_before
    deallocate_as_before = (<Type *>Operation).tp_dealloc
    (<Type *>Operation).tp_dealloc = <destructor>deallocate
    (<Type *>Operation).tp_alloc = headrace_allocate
    (<Type *>Operation).tp_free = headrace_release
    # The collector of cycles does not clear it, as it does not clear a coroutine; what it is in a
    # cycle with is cleared. One that was never awaited still has its kind then, to warn by name.
    (<Type *>Operation).tp_clear = NULL
    gc.callbacks.append(release_free)
    if sys.version_info >= (3, 14):
        end = (<Type *>Operation).tp_basicsize - 2 * sizeof(void *)  # two fields are behind it
        watch_close(nothing(), end - OUTSIDE, end)
    # A __getattr__ would slow down every attribute; these two cannot be written in the class, where
    # they would name the class.
    names = <dict>(<Type *>Operation).tp_dict
    names["__name__"] = property(lambda operation: name_of(operation, "__name__"))
    names["__qualname__"] = property(lambda operation: name_of(operation, "__qualname__"))
    PyType_Modified(<Type *>Operation)
    (<Type *>Operation).tp_iternext = <iternextfunc>resume
    (<Type *>Operation).tp_as_async.am_send = <sendfunc>send
