# One enum for each independent axis of a connection, in the order of TABLE.

cdef enum Receiving:
    RECEIVING
    # The connection broke while the system still has something for us.
    READING_OUT
    # The TLS session broke: nothing that comes can be read any more.
    UNREADABLE
    # The peer's stream is over: by the end of the connection, or by its close_notify.
    ENDED
    ENDED_WELL

cdef enum Sending:
    SENDING
    # write_eof() was called; what was written before is not all sent.
    EOF_WAITS
    EOF_SENT

cdef enum Life:
    OPEN
    # close() was called, and the TLS session can send only after it has heard something.
    DEPARTING
    # What was written before close() is not all sent.
    CLOSING
    # It is over, and the socket stays open until the peer's system has everything.
    LINGERING
    # It is over.
    ENDING
    # It has no descriptor any more.
    CLOSED

cdef enum Handshake:
    PLAIN
    HANDSHAKING
    SECURE

cpdef int check(str axis, int old, int new) except -1
