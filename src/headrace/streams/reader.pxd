from headrace._core.buffer cimport ReadBuffer
from headrace._transport.operation cimport Operation
from headrace._transport.protocol cimport Receiver
from headrace._transport.sender cimport Sender

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
    # The writer's sender, which must know when somebody takes the transport from here.
    cdef Sender _h_sender
    # Nobody has overridden readuntil, readline or exception.
    cdef bint _h_plain_reads

    cdef void _h_notice_overrides(self) except *
    cdef Operation _h_feed(self, bytes data)
    cdef Operation _h_feed_front(self, bytearray scratch, Py_ssize_t size)
    cdef Operation _h_after_feed(self)
    cdef void _h_maybe_pause(self) except *
    cdef void _h_resume(self) except *
    cdef void _h_lose(self, object error) except *
    cdef void _h_wake_later(self) except *
    cdef object _h_attempt(self, Operation operation)
    cdef void _h_check(self) except *
    cdef object _h_read(self, Py_ssize_t limit)
    cdef object _h_read_all(self)
    cdef object _h_readexactly(self, Py_ssize_t wanted)
    cdef object _h_readline(self)
    cdef object _h_line_overrun(self, str message, Py_ssize_t consumed)
    cdef void _h_drop_overrun(self, Py_ssize_t consumed) except *
    cdef object _h_readuntil(self, Operation operation)
    cdef object _h_wait_once(self, Operation operation)
    cdef bytes _h_take(self, Py_ssize_t size)
    cdef object _h_pending(self)
    cdef void _h_wait(self, Operation operation) except *
    cdef void _h_detach(self, Operation operation) except *

cdef void wake(Operation operation) except *
cdef bint is_ready(Reader reader, Operation operation) except -1
cdef void prepare_separators(Operation operation) except *
cdef bytes as_separator(object separator)
