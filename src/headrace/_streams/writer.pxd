from headrace._transport cimport operation as operations, sender as senders, scheduler as schedulers
from headrace._transport cimport stream_protocol as protocols
from headrace._transport.operation cimport Kind, Operation, Waitable
from headrace._transport.stream_protocol cimport FlowControl, StreamProtocol
from headrace._transport.sender cimport Sender
from headrace._streams.reader cimport Reader

cdef Kind DRAIN

cdef class Writer(Waitable):
    cdef Sender _h_sender
    cdef object _h_protocol
    # The protocol, where its flow control is ours, else None.
    cdef FlowControl _h_flow
    cdef object _h_any_reader
    # What get_extra_info() returns before it asks the transport: a dict, or None.
    cdef dict _h_extra
    # The reader, where it is ours, else None.
    cdef Reader _h_reader

    cdef object _h_link(self, object protocol, object reader)
    cdef object _h_attend(self)
    cdef object _h_attempt(self, Operation operation)
    cdef object _h_check_reader(self)
    cdef object _h_wait(self, Operation operation)
    cdef object _h_detach(self, Operation operation)

cdef bint is_flow_ours(object protocol) except -1
cpdef object close_sender(Sender sender)
