# cython: language_level=3
"""Who waits for a future: the wake-up of the one task, without the list of tuples that asyncio
makes of it.

Every wait that ends in a step needs it. From Python 3.14 on a future knows the tasks that await it,
too, and holds them: a task enters when it begins to wait, and leaves in its wake-up, but only the
future that it is woken with. A step wakes it with another, and takes it out here. The fields of
asyncio's C futures are private to it, and so are looked at only where a probe at import finds them
in the places that are meant; other futures, and a Python that has changed, take the way of the
twin, `future_py.py`.
"""

from contextvars import Context

from cpython.object cimport PyObject

from headrace._transport import future_py

cdef extern from *:
    """
    /* The beginning of FutureObj in CPython's Modules/_asynciomodule.c, 3.8 to 3.15 and later. */
    typedef struct {
        PyObject_HEAD
        PyObject *loop;
        PyObject *callback0;
        PyObject *context0;
        PyObject *callbacks;
    #if PY_VERSION_HEX >= 0x030E0000
        PyObject *exception;
        PyObject *exception_tb;
        PyObject *result;
        PyObject *source_tb;
        PyObject *cancel_msg;
        PyObject *cancelled_exc;
        /* NULL, the one, or a set of more; the one is no set, which is no future */
        PyObject *awaited_by;
    #endif
    } headrace_future;

    static PyTypeObject *headrace_future_type = NULL; /* NULL: not as expected, hands off */

    static CYTHON_INLINE headrace_future *headrace_known(PyObject *future) {
        return Py_TYPE(future) == headrace_future_type ? (headrace_future *)future : NULL;
    }

    static int headrace_is_large_enough(PyObject *type) {
        return ((PyTypeObject *)type)->tp_basicsize >= (Py_ssize_t)sizeof(headrace_future);
    }

    /* The one that awaits it, NULL where there is none, as in every Python before 3.14. */
    static CYTHON_INLINE PyObject *headrace_awaited_by(headrace_future *future) {
    #if PY_VERSION_HEX >= 0x030E0000
        return future->awaited_by;
    #else
        (void)future;
        return NULL;
    #endif
    }

    /* Take back the callback, which is bound to the one that awaits; return 0, having done nothing,
       where that is not all there is. */
    static int headrace_forget(headrace_future *future) {
    #if PY_VERSION_HEX >= 0x030E0000
        if (future->awaited_by != NULL) {
            if (!PyCFunction_Check(future->callback0)
                || PyCFunction_GET_SELF(future->callback0) != future->awaited_by) return 0;
            Py_CLEAR(future->awaited_by);
        }
    #endif
        Py_CLEAR(future->callback0);
        Py_CLEAR(future->context0);
        return 1;
    }

    /* What await does with a future: the first step of its iterator marks it. */
    static int headrace_begin_wait(PyObject *future) {
        PyObject *iterator = Py_TYPE(future)->tp_iter(future);
        PyObject *yielded = iterator == NULL ? NULL : Py_TYPE(iterator)->tp_iternext(iterator);
        Py_XDECREF(iterator);
        /* with an exception: a future that is done ends with StopIteration */
        if (yielded == NULL) return -1;
        Py_DECREF(yielded);
        return 0;
    }

    static void headrace_know(PyObject *type) {
        headrace_future_type = (PyTypeObject *)type;
    }
    """
    ctypedef struct Fields "headrace_future":
        PyObject *loop
        PyObject *callback0
        PyObject *context0
        PyObject *callbacks

    Fields *known "headrace_known"(PyObject *future)
    bint is_large_enough "headrace_is_large_enough"(PyObject *type)
    PyObject *awaited_by "headrace_awaited_by"(Fields *future)
    bint forget "headrace_forget"(Fields *future)
    void know "headrace_know"(PyObject *type)
    int step_iterator "headrace_begin_wait"(PyObject *future) except -1


cpdef object begin_wait(object future):
    """Mark *future*, which is pending, as awaited: a task asks that of what it is yielded."""
    if known(<PyObject *>future) == NULL:
        future_py.begin_wait(future)
    else:
        step_iterator(<PyObject *>future)


cpdef object task_callback(object future):
    """Return the one callback of *future*; None where there is none, or more than one."""
    cdef Fields *fields = known(<PyObject *>future)
    if fields == NULL:
        return future_py.task_callback(future)
    if fields.callback0 == NULL or fields.callbacks != NULL:
        return None
    return <object>fields.callback0


cpdef object task_context(object future):
    """Return the context of the one callback of *future*, which there is."""
    cdef Fields *fields = known(<PyObject *>future)
    return future_py.task_context(future) if fields == NULL else <object>fields.context0


cpdef bint forget_task(object future) except -1:
    """Take back the one callback of *future*, a task's wake-up, and the task out of those that
    await it; return whether there was one."""
    cdef Fields *fields = known(<PyObject *>future)
    if fields == NULL:
        return future_py.forget_task(future)
    if fields.callback0 == NULL or fields.callbacks != NULL:
        return False
    return forget(fields) or future_py.forget_task(future)


class _Loop:
    def get_debug(self):
        return False


cdef bint is_as_expected(object cls) except -1:
    """Tell whether the fields of a future of *cls* are where Fields says, by setting and reading
    each."""
    cdef Fields *fields
    if not is_large_enough(<PyObject *>cls):
        return False
    loop, context, callbacks = _Loop(), Context(), [lambda _: None, lambda _: None]
    future = cls(loop=loop)
    fields = <Fields *><PyObject *>future
    if (
        fields.loop != <PyObject *>loop
        or fields.callback0 != NULL
        or fields.context0 != NULL
        or fields.callbacks != NULL
    ):
        return False
    future.add_done_callback(callbacks[0], context=context)
    if (
        fields.callback0 != <PyObject *>callbacks[0]
        or fields.context0 != <PyObject *>context
        or fields.callbacks != NULL
    ):
        return False
    future.add_done_callback(callbacks[1], context=context)
    if fields.callbacks == NULL or <object>fields.callbacks != [(callbacks[1], context)]:
        return False
    future.remove_done_callback(callbacks[1])
    if not forget(fields) or future._callbacks:
        return False
    if future_py.add_to_awaited_by is None:
        return True
    waiters = [cls(loop=loop), cls(loop=loop)]
    for waiter in waiters:
        future.add_done_callback(waiter.cancel, context=context)
        future_py.add_to_awaited_by(future, waiter)
        if (
            awaited_by(fields) != <PyObject *>waiter
            or not forget(fields)
            or future._callbacks
            or future._asyncio_awaited_by
        ):
            return False
    for waiter in waiters:
        future_py.add_to_awaited_by(future, waiter)
    future.add_done_callback(waiters[0].cancel, context=context)
    return (
        awaited_by(fields) != NULL
        and not forget(fields)
        and future._asyncio_awaited_by == set(waiters)
    )


cdef list _kept = []


def _probe() -> None:
    try:
        from _asyncio import Future
    except ImportError:  # an interpreter without the C accelerator
        return
    if is_as_expected(Future):
        _kept.append(Future)
        know(<PyObject *>Future)


_probe()


def is_known() -> bool:
    """Tell whether the fields of asyncio's futures are where Fields says."""
    return bool(_kept)
