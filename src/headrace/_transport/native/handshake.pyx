# cython: language_level=3
"""UpgradableConnection: a Connection that may go on in TLS, from its beginning or from some moment
on: the session and its handshake.

What is written during a handshake waits in plain text. An alert that ends it is sent if the system
takes it at once.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject

from headrace._transport.native.connection cimport Connection
from headrace._transport.native.linux cimport recv
from headrace._transport.native.states cimport (
    CLOSING,
    ENDING,
    EOF_WAITS,
    HANDSHAKING,
    LINGERING,
    READING_OUT,
    SECURE,
    UNREADABLE,
    Life,
)
from headrace._transport.native.tls_engine cimport TLS
from headrace._transport.receive cimport RECORD_BYTES


cdef class UpgradableConnection(Connection):
    """A connection with a TLS session, once secure() has given it one."""

    cdef object secure(
        self, TLS tls, bytes early, double handshake_timeout, double shutdown_timeout, object shaken
    ):
        """Begin a handshake; *early* has been received already. *shaken*, a future or None, is told
        how it ends."""
        self.tls = tls
        self.set_handshake(HANDSHAKING)
        self.shaken = shaken
        self.shutdown_timeout = shutdown_timeout
        self.unsecured = []
        self.timer = self._loop.call_later(
            handshake_timeout, self.give_up, handshake_timeout, context=self.reactor.context
        )
        if early:
            tls.receive(early, PyBytes_GET_SIZE(early))
        self.shake()

    def give_up(self, timeout):
        """The handshake has taken too long; asyncio's words."""
        self.end_handshake(
            ConnectionAbortedError(
                f"SSL handshake is taking longer than {timeout} seconds: aborting the connection"
            )
        )

    cdef object shake(self):
        """Go on with the handshake."""
        try:
            complete = self.tls.handshake()
        except Exception as error:  # whatever a callback of the context raises, too
            if self.opening:
                error.add_note(
                    f"the peer does not speak TLS here: its first bytes were {self.opening!r}"
                )
            self.send_output()
            self.end_handshake(error)
            return
        self.send_output()
        if complete and self.life < LINGERING:
            self.end_handshake(None)

    cdef object end_handshake(self, object error):
        if self.handshake != HANDSHAKING:
            return
        self.cancel_timer()
        if error is not None:
            # *shaken* is told when the connection is closed. What has come is thrown away, or the
            # reset for it could overtake the alert.
            if self.life < LINGERING:
                self.stop(error, LINGERING)
                return
            # Nothing could be sent, which is less than what is known.
            self.error = error
            if self.receiving == READING_OUT:
                self.set_receiving(UNREADABLE)
            if self.life == ENDING:
                self.set_life(LINGERING)
            return
        self.set_handshake(SECURE)
        if self.unsecured:
            self.send_secured(b"", False)
        else:
            self.unsecured = None
        shaken, self.shaken = self.shaken, None
        if not self.introduced:
            try:
                self.introduce()
            except (SystemExit, KeyboardInterrupt):
                self.finish(None)
                raise
            except BaseException as failure:
                self.finish(None)
                if shaken is None:
                    self.report(failure, "Error on transport creation for incoming connection")
                elif not shaken.done():
                    shaken.set_exception(failure)
                return
        if shaken is not None and not shaken.done():
            shaken.set_result(None)
        self.resume_if_low()
        if self.sending == EOF_WAITS:
            if self.is_half_closable():
                self.shut_writing()
            else:
                self.end_when_sent()
        if not self.paused and self.life < CLOSING:
            self.deliver()

    cdef object introduce(self):
        """Tell the protocol that it is connected."""
        raise NotImplementedError

    cdef object deliver(self):
        """Give the protocol what it takes at once of what has been received."""
        raise NotImplementedError

    cdef object send_secured(self, bytes data, bint followed):
        """Encrypt *data*, and before it what waits for that, and send it."""
        raise NotImplementedError

    cdef object send_output(self):
        """Send what the session has to say."""
        cdef bytes output = self.tls.output()
        if PyBytes_GET_SIZE(output) > 0 and self.life < LINGERING:
            Connection.send(self, output, False)

    cdef bint is_half_closable(self) except -1:
        """Tell whether one direction can be closed without the other."""
        return self.handshake != SECURE or self.tls.version == "TLSv1.3"

    # ---- the end

    cdef object stop(self, object error, Life how):
        self.cancel_timer()
        self.unsecured = None
        self.held = 0
        Connection.stop(self, error, how)

    cdef object on_end(self):
        if self.handshake == HANDSHAKING and self.receiving == READING_OUT:
            self.set_receiving(UNREADABLE)
            self.look_for_alert()
        Connection.on_end(self)

    cdef object look_for_alert(self):
        """Read what came before a send of the handshake failed: the peer's alert says why, if there
        is one."""
        cdef PyObject *storage = self.reactor.pool.storage(RECORD_BYTES)
        cdef bytes scratch = <bytes>storage  # so that nobody else is given it meanwhile
        cdef bytes received
        cdef ssize_t size = 1
        cdef int turns = 8
        try:
            while turns > 0 and size > 0:
                if self.tls.version is not None or self.tls.handshake():
                    while (
                        self.tls.has_data()
                        and self.tls.read(PyBytes_AS_STRING(scratch), RECORD_BYTES) > 0
                    ):
                        pass
                received = PyBytes_FromStringAndSize(NULL, RECORD_BYTES)
                size = recv(self.fd, PyBytes_AS_STRING(received), RECORD_BYTES, 0)
                if size > 0:
                    self.tls.receive(received, size)
                turns -= 1
        except Exception as error:  # whatever a callback of the context raises, too
            self.error = error

    cdef object tell_lost(self):
        shaken, self.shaken = self.shaken, None
        try:
            if self.introduced:
                Connection.tell_lost(self)
            elif self.stream is not None and self.stream._h_server is not None:
                self.stream._h_server.handshake_failed(self, self.error)
        finally:
            if shaken is not None and not shaken.done():
                shaken.set_exception(
                    self.error or ConnectionAbortedError(
                        "the connection was aborted during the TLS handshake"
                    )
                )

    cdef object cancel_timer(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
