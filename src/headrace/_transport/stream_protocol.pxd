from headrace._core cimport cprims
from headrace._core.buffer cimport ReadBuffer
from headrace._transport cimport operation as operations, scheduler as schedulers
from headrace._transport.operation cimport Kind, Operation, Waitable
from headrace._transport.sender cimport Sender

cdef int FRESH
cdef int TURNED
cdef int WAITED

cdef Kind DRAIN_HELPER
cdef Kind WAIT_CLOSED

cdef class Receiver(Waitable):
    # Nobody has overridden feed_data, feed_eof or set_exception, by a subclass or on the instance.
    cdef bint _h_plain

    cdef object _h_feed(self, bytes data)
    cdef object _h_feed_front(self, bytearray scratch, Py_ssize_t size)
    cdef ReadBuffer _h_reserved(self)
    cdef bint _h_waits(self) except -1
    cdef object _h_after_feed(self)
    cdef object _h_lose(self, object error)

cdef class FlowControl(Waitable):
    cdef public bint _paused
    cdef public bint _connection_lost
    # Operations that wait for resume_writing(), or None.
    cdef public object _drain_waiters
    # The writer's sender, once there is a connection.
    cdef Sender _h_sender
    # What connection_lost() was told.
    cdef object _h_error

    cdef object _h_wake_drains(self)
    cdef object _h_add_drain(self, Operation operation)
    cdef object _h_remove_drain(self, Operation operation)
    cdef object _h_check_drain(self, Operation operation)

cdef class StreamProtocol(FlowControl):
    # How much the transport may receive at a time, and the view of the shared buffer that says so.
    cdef public Py_ssize_t _h_receive_bytes
    cdef object _h_view
    # The future of asyncio's protocol, where somebody asked for it, and the operations that wait
    # for the end.
    cdef object _h_close_waiter
    cdef list _h_close_waiters
    cdef object _h_transport
    # The Server that counts this connection, or None.
    cdef public object _h_server
    cdef bint _h_lost
    # It was lost without an error, and without an end of the peer's: this side has closed it.
    cdef readonly bint _h_ended_here
    # Made by headrace: nobody else has the transport, and receives are bounded.
    cdef public bint _h_private
    cdef public object _strong_reader
    cdef public object _stream_reader_wr
    cdef public object _source_traceback
    cdef public object _task
    cdef public object _client_connected_cb
    cdef public bint _over_ssl

    cdef Receiver _h_receiver(self)
    cdef object _h_settle_close_waiter(self)

cdef bint takes_fast(Receiver reader) except -1
cdef object feed(Receiver reader, bytes data)
cdef object feed_front(Receiver reader, bytearray scratch, Py_ssize_t size)
cdef object lose(Receiver reader, object error)
