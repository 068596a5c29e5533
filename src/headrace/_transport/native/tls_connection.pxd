from headrace._transport.native.handshake cimport UpgradableConnection
from headrace._transport.stream_protocol cimport Receiver

cdef class SecureConnection(UpgradableConnection):
    # What was decrypted before its turn, and the protocol has not got; or None.
    cdef bytes stash
    # What a read of the session raised, which comes behind that.
    cdef object broken
    # A fact: when close_notify was said everything else had been sent.
    cdef bint notify_alone
    # A fact about the error: it has cost nothing but our close_notify.
    cdef bint harmless

    cdef bytes decrypted(self)
    cdef object hand_over(self, Receiver receiver, bytes data)
    cdef object break_off(self, object error)
    cdef object say_goodbye(self)
