cimport cython

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.operation cimport Operation
from headrace._transport.protocol cimport Receiver
from headrace._transport.sender cimport Sender

cdef Py_ssize_t DEFAULT_LIMIT
cdef Py_ssize_t RESERVE_BYTES
cdef bytes _NEWLINE

cdef class Reader(Receiver):
    cdef public Py_ssize_t _limit
    cdef public bint _eof
    cdef public bint _paused
    cdef public object _exception
    cdef public object _source_traceback
    cdef ReadBuffer _h_bytes
    # The exception, where it came from the loss of the connection and not from set_exception().
    cdef object _h_lost
    # The operation that waits, or whatever somebody assigned to _waiter.
    cdef object _h_waiter
    cdef object _h_transport
    # The context in which the transport was set, for what the transport schedules later.
    cdef object _h_context
    # The writer's sender, which must know when somebody takes the transport from here.
    cdef Sender _h_sender
    # Nobody has overridden readuntil, readline or exception.
    cdef bint _h_plain_reads

    cdef object _h_notice_overrides(self)
    cdef Operation _h_feed(self, bytes data)
    cdef Operation _h_feed_front(self, bytearray scratch, Py_ssize_t size)
    @cython.locals(operation=Operation)
    cdef Operation _h_after_feed(self)
    cdef object _h_maybe_pause(self)
    cdef object _h_pause_once(self, Operation waiter)
    cdef object _h_resume(self)
    cdef object _h_lose(self, object error)
    cdef object _h_wake_later(self)
    @cython.locals(kind=int)
    cdef object _h_attempt(self, Operation operation)
    cdef object _h_check(self)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_read(self, Py_ssize_t limit)
    cdef object _h_read_all(self)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_readexactly(self, Py_ssize_t wanted)
    @cython.locals(size=Py_ssize_t, before=Py_ssize_t)
    cdef object _h_readline(self)
    cdef object _h_line_overrun(self, str message, Py_ssize_t consumed)
    @cython.locals(size=Py_ssize_t)
    cdef object _h_drop_overrun(self, Py_ssize_t consumed)
    @cython.locals(size=Py_ssize_t, before=Py_ssize_t, after=Py_ssize_t, searched=Py_ssize_t)
    cdef object _h_readuntil(self, Operation operation)
    cdef object _h_wait_once(self, Operation operation)
    cdef bytes _h_take(self, Py_ssize_t size)
    cdef object _h_pending(self)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)

cdef object wake(Operation operation)
@cython.locals(kind=int, size=Py_ssize_t, found=bint)
cdef bint is_ready(Reader reader, Operation operation) except -1
cdef bint is_greedy(Reader reader, Operation operation) except -1
cdef object _last_given
cdef tuple _last_prepared
@cython.locals(separators=tuple)
cdef object prepare_separators(Operation operation)
cdef bytes as_separator(object separator)
