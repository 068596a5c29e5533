from headrace._transport.native.connection cimport Connection
from headrace._transport.stream_protocol cimport Receiver
from headrace._transport.native.tls_engine cimport TLS

cdef class SecureConnection(Connection):
    # None in plain text.
    cdef TLS tls
    # A fact: connection_made() was called. TLS comes before it on a connection made for it, else
    # behind.
    cdef bint introduced
    # The future of start_tls(), which waits for the handshake; or None.
    cdef object shaken
    # How the handshake began, where that is not TLS; b"" where it is, and None before it began.
    cdef bytes opening
    # The timer of the handshake, or of the close.
    cdef object timer
    # How long the close may take, in seconds.
    cdef double shutdown_timeout
    # What was written and cannot be encrypted yet: during the handshake, or a new one in its midst.
    cdef list unsecured
    # What was decrypted before its turn, and the protocol has not got; or None.
    cdef bytes stash
    # What a read of the session raised, which comes behind that.
    cdef object broken
    # A fact about the program: a close() in plain text lingers, too. See linger() of the transport.
    cdef bint lingers
    # While it lingers: how long on_end() waits before it looks again.
    cdef double look_seconds
    # While it lingers: until when at most.
    cdef double deadline
    # A fact: when close_notify was said everything else had been sent.
    cdef bint notify_alone
    # A fact about the error: it has cost nothing but our close_notify.
    cdef bint harmless

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
