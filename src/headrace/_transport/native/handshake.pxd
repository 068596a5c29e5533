from headrace._transport.native.connection cimport Connection
from headrace._transport.native.tls_engine cimport TLS

cdef class UpgradableConnection(Connection):
    # None in plain text.
    cdef TLS tls
    # A fact: connection_made() was called, before TLS or after it.
    cdef bint introduced
    # The future of start_tls(), which waits for the handshake; or None.
    cdef object shaken
    # How the handshake began, where that is not TLS; b"" where it is, and None before it began.
    cdef bytes opening
    # The timer of the handshake, or of the close.
    cdef object timer
    # What was written and cannot be encrypted yet: during the handshake, or a new one in its midst.
    cdef list unsecured

    cdef object secure(
        self, TLS tls, bytes early, double handshake_timeout, double shutdown_timeout, object shaken
    )
    cdef object shake(self)
    cdef object end_handshake(self, object error)
    cdef object introduce(self)
    cdef object deliver(self)
    cdef object send_secured(self, bytes data, bint followed)
    cdef object send_output(self)
    cdef bint is_half_closable(self) except -1
    cdef object look_for_alert(self)
    cdef object cancel_timer(self)
