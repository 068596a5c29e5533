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
from types import GetSetDescriptorType

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

    /* The setter of _asyncio_future_blocking, called without a look-up: it is what the iterator of
       a future does, without the iterator. */
    static setter headrace_set_blocking = NULL;
    static void *headrace_closure = NULL;

    static int headrace_begin_wait(PyObject *future) {
        return headrace_set_blocking(future, Py_True, headrace_closure);
    }

    /* Whether the callback is a task's wake-up: a C function that is bound to the task. */
    static CYTHON_INLINE int headrace_is_awaited_by(headrace_future *future, PyObject *cls) {
        PyObject *callback = future->callback0, *task;
        if (callback == NULL || future->callbacks != NULL || !PyCFunction_Check(callback)) return 0;
        task = PyCFunction_GET_SELF(callback);
        return task != NULL && PyObject_TypeCheck(task, (PyTypeObject *)cls);
    }

    /* Call the callback in its context. Return 0 where that is entered already, -1 where the call
       raised. (A C function of one argument is called as the interpreter calls it.) */
    static int headrace_call(headrace_future *future, PyObject *argument) {
        PyObject *callback = future->callback0, *context = future->context0;
        PyObject *result, *type = NULL, *value = NULL, *traceback = NULL;
        int left;
        if (PyContext_Enter(context) < 0) {
            PyErr_Clear();
            return 0;
        }
        Py_INCREF(callback);
        Py_INCREF(context);
        if (PyCFunction_GET_FLAGS(callback) == METH_O)
            result = PyCFunction_GET_FUNCTION(callback)(PyCFunction_GET_SELF(callback), argument);
        else result = PyObject_CallOneArg(callback, argument);
        if (result == NULL) PyErr_Fetch(&type, &value, &traceback);
        left = PyContext_Exit(context);
        Py_DECREF(callback);
        Py_DECREF(context);
        if (result == NULL) {
            PyErr_Restore(type, value, traceback);
            return -1;
        }
        Py_DECREF(result);
        return left < 0 ? -1 : 1;
    }

    /* The exception that was raised, which is no more raised then. */
    static PyObject *headrace_take_error(void) {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback != NULL) PyException_SetTraceback(value, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    #endif
    }

    static void headrace_know(PyObject *type, PyObject *blocking) {
        headrace_set_blocking = ((PyGetSetDescrObject *)blocking)->d_getset->set;
        headrace_closure = ((PyGetSetDescrObject *)blocking)->d_getset->closure;
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
    bint is_awaited "headrace_is_awaited_by"(Fields *future, PyObject *cls)
    int call "headrace_call"(Fields *future, PyObject *argument)
    object take_error "headrace_take_error"()
    void know "headrace_know"(PyObject *type, PyObject *blocking)
    int set_blocking "headrace_begin_wait"(PyObject *future) except -1


# What they do is said in the twin.


cdef int begin_wait(object future) except -1:
    if known(<PyObject *>future) == NULL:
        future_py.begin_wait(future)
        return 0
    return set_blocking(<PyObject *>future)


cdef bint is_awaited_by(object future, object cls) except -1:
    cdef Fields *fields = known(<PyObject *>future)
    if fields == NULL:
        return future_py.is_awaited_by(future, cls)
    return is_awaited(fields, <PyObject *>cls)


cdef object wake_up(object future, object argument):
    cdef Fields *fields = known(<PyObject *>future)
    cdef int called
    if fields == NULL:
        return future_py.wake_up(future, argument)
    called = call(fields, <PyObject *>argument)
    if called <= 0:
        return take_error() if called < 0 else False
    if fields.callback0 == NULL or fields.callbacks != NULL:
        return True
    return None if forget(fields) else future_py.forget(future)


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
    blocking = Future.__dict__["_asyncio_future_blocking"]
    if is_as_expected(Future) and type(blocking) is GetSetDescriptorType:
        _kept.append((Future, blocking))
        know(<PyObject *>Future, <PyObject *>blocking)


_probe()


def is_known() -> bool:
    """Tell whether the fields of asyncio's futures are where Fields says."""
    return bool(_kept)
