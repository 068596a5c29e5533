from headrace._transport.native.connection cimport Connection
from headrace._transport.stream_protocol cimport Receiver
from headrace._transport.native.tls_engine cimport TLS

cdef class SecureConnection(Connection):
    # None in plain text.
    cdef TLS tls
    # The handshake goes on; the protocol knows of the connection; who waits for the handshake, a
    # future, or None.
    cdef bint shaking
    cdef bint introduced
    cdef object shaken
    # Something has come; and how it began, where that is not TLS.
    cdef bint heard
    cdef bytes opening
    # The timer of the handshake, or of the close; and how long the latter may take, in seconds.
    cdef object timer
    cdef double shutdown_timeout
    # What was written and cannot be encrypted yet: during the handshake, or a new one in its midst.
    cdef list unsecured
    # What was decrypted before its turn, and the protocol has not got; or None.
    cdef bytes stash
    # What a read of the session raised, which comes behind that.
    cdef object broken
    # It was told: the session is of no use any more.
    cdef bint failed
    # A close() in plain text waits until the peer has everything, too: see linger() of the
    # transport.
    cdef bint lingers
    # close() was called, not abort(); and it has to wait, for the session cannot send yet.
    cdef bint gentle
    cdef bint departing
    # After that: how long on_end() waits before it looks again whether the peer has everything, and
    # until when at most.
    cdef double look_seconds
    cdef double deadline
    # close_notify was said when everything else had been sent; and could not be sent itself.
    cdef bint parting
    cdef bint forgiven
    # The peer has ended the stream, and not merely the connection.
    cdef bint ended_well

    cdef object secure(
        self, TLS tls, bytes early, double handshake_timeout, double shutdown_timeout, object shaken
    )
    cdef object shake(self)
    cdef object end_handshake(self, object error)
    cdef object introduce(self)
    cdef object deliver(self)
    cdef bytes decrypted(self)
    cdef object hand_over(self, Receiver receiver, bytes data)
    cdef object send_secured(self, bytes data, bint followed)
    cdef object send_output(self)
    cdef object break_off(self, object error)
    cdef object look_for_alert(self)
    cdef object say_goodbye(self)
    cdef object cancel_timer(self)
    cdef bint is_half_closable(self) except -1
    cdef bint has_left(self) except -1
