from headrace._transport.native.connection cimport Connection
from headrace._transport.sender cimport Sender

cdef class SocketSender(Sender):
    # None once the stream goes on over another transport.
    cdef Connection direct
    # When the handler last wrote with more input unread, in this step, in seconds of the monotonic
    # clock; or 0.
    cdef double last
    # The same of the oldest byte that the system holds for us.
    cdef double held_since
    # A fact: the message before this one took little time.
    cdef bint quick
