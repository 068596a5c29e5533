cimport cython

from headrace._transport.stream_protocol cimport FlowControl, StreamProtocol
from headrace._transport.sender cimport Sender
from headrace._streams.reader cimport Reader

cdef class ConnectingProtocol(StreamProtocol):
    cdef object _h_call_back(self, object reader, object transport)

cdef object share_sender(Reader reader, Sender sender)

@cython.final
cdef class HandlerDone:
    cdef object loop
    cdef object transport
