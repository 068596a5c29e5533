# cython: language_level=3
"""SecureConnection: a Connection that may speak TLS: what comes is decrypted, what is written is
encrypted.

What is received is decrypted as far as the reader takes it. A paused reader leaves the rest of one
receive encrypted, and comes back to it (is_left()). What is written is encrypted at once, so that
what waits to be sent is ciphertext, and the water marks count that; during a handshake it waits in
plain text, and counts as well.

The end of a stream is close_notify. A connection that just ends may have been cut by somebody in
between: the reader sees the end, as it does in asyncio, and ``get_extra_info("close_notify")``
tells one from the other. We say close_notify and do not wait for the peer's (RFC 8446, 6.1 does not
ask for it). From TLS 1.3 on, and only then, the other direction goes on until that is closed too.
"""

import asyncio
import ssl

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.native.connection cimport Connection
from headrace._transport.native.handshake cimport UpgradableConnection
from headrace._transport.native.linux cimport EAGAIN, errno, recv
from headrace._transport.native.states cimport (
    CLOSING,
    DEPARTING,
    ENDED,
    ENDED_WELL,
    EOF_SENT,
    HANDSHAKING,
    LINGERING,
    OPEN,
    SECURE,
    UNREADABLE,
)
from headrace._transport.receive cimport RECORD_BYTES
from headrace._transport.stream_protocol cimport Receiver

cdef enum:
    # How much of what a peer says that does not speak TLS is shown in the error.
    OPENING_BYTES = 40


cdef class SecureConnection(UpgradableConnection):
    """A connection in plain text until secure() is called, and in TLS after that."""

    # ---- reading

    cdef bint is_left(self):
        if self.handshake != SECURE or self.receiving >= UNREADABLE:
            return False
        return (
            self.stash is not None
            or self.broken is not None
            or self.tls.has_data()
            or self.tls.heard_goodbye
        )

    cdef ssize_t receive_once(self, Py_ssize_t *asked) except? -1000000:
        cdef PyObject *storage
        cdef Receiver receiver
        cdef ssize_t size
        if self.tls is None:
            return Connection.receive_once(self, asked)
        if self.receiving == UNREADABLE:
            return -EAGAIN  # nothing that comes now can be read
        if self.is_left():
            # From the receive before; as after a full one, the system may have more.
            self.deliver()
            asked[0] = 1
            return 1
        receiver = None if self.stream is None else self.stream._h_receiver()
        asked[0] = self.receive_bytes if self.handshake == HANDSHAKING else self.to_ask(receiver)
        storage = self.reactor.pool.storage(asked[0])
        received = <bytes>storage  # so that the pool does not give it to the plain text as well
        size = recv(self.fd, PyBytes_AS_STRING(received), asked[0], 0)
        if size < 0:
            return -errno
        self.adapt(asked[0], size)
        if size > 0:
            self.tls.receive(received, size)
            if self.handshake == SECURE:
                self.deliver()
                return size
            if self.opening is None:
                self.opening = b""
                if not 0x14 <= received[0] <= 0x17:  # no type of a record (RFC 8446, 5.1)
                    self.opening = PyBytes_FromStringAndSize(
                        PyBytes_AS_STRING(received), min(size, OPENING_BYTES)
                    )
            self.shake()
        return size

    cdef object deliver(self):
        """Give the protocol what it takes at once of what has been received: is_left() tells of the
        rest."""
        cdef Receiver receiver = None if self.stream is None else self.stream._h_receiver()
        cdef ReadBuffer buffer
        cdef Py_ssize_t size = 1
        if self.receiving >= ENDED:
            return
        try:
            if self.stash is not None:
                data, self.stash = self.stash, None
                self.hand_over(receiver, data)
            elif receiver is None or receiver._h_reserved() is None:
                data = self.decrypted()
                if data is not None:
                    self.hand_over(receiver, data)
            else:
                if self.broken is not None:
                    raise self.broken
                buffer = receiver._h_reserved()
                # Straight into what a readexactly() will return.
                while (
                    size > 0
                    and buffer.end < PyBytes_GET_SIZE(buffer.head)
                    and self.tls.has_data()
                ):
                    size = self.tls.read(
                        PyBytes_AS_STRING(buffer.head) + buffer.end,
                        PyBytes_GET_SIZE(buffer.head) - buffer.end
                    )
                    buffer.end += size
                receiver._h_after_feed()
        except ssl.SSLError as error:
            self.set_receiving(UNREADABLE)
            self.break_off(error)
            return
        if self.tls.stirred:
            # To a new key, or to a renegotiation.
            self.tls.stirred = False
            self.send_output()
        if self.unsecured is not None:
            self.send_secured(b"", False)
            if self.life == DEPARTING and self.unsecured is None:
                self.end_when_sent()
        if self.tls.heard_goodbye and self.stash is None and self.receiving < UNREADABLE:
            self.set_receiving(ENDED_WELL)
            if self.life >= CLOSING:
                return  # connection_lost() is about to tell
            self.tell_eof()
            if not self.is_half_closable():
                self.end_when_sent()

    cdef bytes decrypted(self):
        """Decrypt as much as may be received at first; return it, or None where there is
        nothing."""
        if self.broken is not None:
            raise self.broken
        cdef Py_ssize_t most = self.receive_bytes
        cdef PyObject *storage = self.reactor.pool.storage(most)
        cdef bytes ours = <bytes>storage  # so that nobody else is given it meanwhile
        cdef char *start = PyBytes_AS_STRING(ours)
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t step = 1
        # What is left of the storage has to take a whole record, but for the first.
        while step > 0 and self.tls.has_data() and (size == 0 or most - size >= RECORD_BYTES):
            try:
                step = self.tls.read(start + size, most - size)
            except ssl.SSLError as error:
                if size == 0:
                    raise
                self.broken = error  # what came before it is good
                break
            size += step
        return self.reactor.pool.filled(storage, most, size) if size > 0 else None

    cdef object hand_over(self, Receiver receiver, bytes data):
        """Give *data* to the reader, or to a protocol that is called as asyncio's transports call
        it; what that raises ends the connection."""
        if receiver is not None:
            receiver._h_feed(data)
            return
        protocol = self.protocol
        what = "data_received"
        try:
            if not isinstance(protocol, asyncio.BufferedProtocol):
                self.call(protocol.data_received, (data,))
                return
            what = "get_buffer"
            buffer = memoryview(self.call(protocol.get_buffer, (len(data),))).cast("B")
            if not buffer:
                raise RuntimeError("get_buffer() returned an empty buffer")
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            # Before the protocol is told: it may resize its buffer then, and pause, or give way to
            # another protocol.
            buffer.release()
            if size < len(data):
                self.stash = data[size:]
            what = "buffer_updated"
            self.call(protocol.buffer_updated, (size,))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, f"Fatal error: protocol.{what}() call failed.")

    cdef object on_eof(self):
        if self.tls is None:
            Connection.on_eof(self)
        elif self.handshake == HANDSHAKING:
            self.readable = False
            self.end_handshake(
                ConnectionResetError("the peer closed the connection during the TLS handshake")
            )
        elif self.receiving >= ENDED:
            # The end of the stream was told, and now the connection ends too.
            self.readable = False
        else:
            Connection.on_eof(self)
            self.end_when_sent()

    # ---- writing

    cdef object send(self, bytes data, bint followed):
        if self.tls is None:
            Connection.send(self, data, followed)
        elif self.life == OPEN:
            self.reactor.check_thread()
            self.send_secured(data, followed)

    cdef object send_all(self, list pieces):
        if self.tls is None:
            Connection.send_all(self, pieces)
        elif pieces:
            self.send(b"".join(pieces), False)

    cdef object send_secured(self, bytes data, bint followed):
        """Encrypt *data*, and before it what waits for that, and send it."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t step = 1
        cdef Py_ssize_t size
        cdef list outputs = []
        if self.life >= LINGERING or self.broken is not None:
            return  # it is lost, and the reader is about to hear why
        if self.unsecured is not None:
            self.unsecured.append(data)
            self.held += PyBytes_GET_SIZE(data)
            if self.handshake == HANDSHAKING or data:
                # Only what the peer says next can change that: deliver() comes here then, without
                # data.
                self.pause_if_high()
                return
            data = b"".join(self.unsecured)
            self.unsecured = None
            self.held = 0
        size = PyBytes_GET_SIZE(data)
        try:
            while at < size and step > 0:
                # A record at a time, for the sake of what the BIO would keep. Nothing is sent
                # before all is encrypted: the protocol may be told of a high-water mark then, and
                # write or close.
                step = self.tls.write(PyBytes_AS_STRING(data) + at, min(size - at, RECORD_BYTES))
                at += step
                output = self.tls.output()
                if output:
                    outputs.append(output)
        except ssl.SSLError as error:
            self.break_off(error)
            return
        if at < size:
            self.unsecured = [data[at:]]
            self.held = size - at
        if len(outputs) == 1:
            Connection.send(self, outputs[0], followed)
        elif outputs:
            Connection.send_all(self, outputs)
        self.resume_if_low()

    cdef object shut_writing(self):
        if self.tls is None:
            Connection.shut_writing(self)
        elif self.handshake == SECURE:
            self.set_sending(EOF_SENT)
            # The session takes what has come and is not decrypted by now for an error of the
            # peer's.
            parts = [] if self.stash is None else [self.stash]
            try:
                while self.tls.has_data():
                    data = self.decrypted()
                    if data is not None:
                        parts.append(data)
            except ssl.SSLError as error:
                self.broken = error
            if parts:
                self.stash = b"".join(parts)
            if self.is_left():
                self.readable = True
                self.reactor.continue_later(self)
            self.say_goodbye()

    # ---- the end

    cdef object break_off(self, object error):
        """End the connection for *error*, which the session raised; the peer gets its alert, if the
        system takes it at once."""
        self.send_output()
        if self.life >= LINGERING:
            self.error = error  # of more use than that nothing could be sent
        else:
            self.fail(error)

    cdef object say_goodbye(self):
        """Send close_notify, once."""
        if self.tls.said_goodbye:
            return
        self.notify_alone = self.write_buffer.size == 0
        self.tls.say_goodbye()
        self.send_output()

    cdef object end_when_sent(self):
        if self.tls is not None and self.life < CLOSING and not self.reactor.is_inherited():
            self.reactor.check_thread()
            if self.handshake == HANDSHAKING:
                self.end_handshake(
                    ConnectionAbortedError("the connection was closed during the TLS handshake")
                )
                return
            if self.unsecured is not None:
                # The session has to hear something before it can take this: close after that.
                if self.life == OPEN:
                    self.set_life(DEPARTING)
                    self.timer = self._loop.call_later(
                        self.shutdown_timeout, self.cut, context=self.reactor.context
                    )
                return
            self.cancel_timer()
            self.say_goodbye()
            if self.life >= CLOSING:
                return  # by the protocol, which was told of the high-water mark
            if self.write_buffer.size > 0:
                self.timer = self._loop.call_later(
                    self.shutdown_timeout, self.cut, context=self.reactor.context
                )
        Connection.end_when_sent(self)

    cdef object fail(self, object error):
        # Where the peer has not waited for our close_notify, and nothing else is lost, that is no
        # error: see tell_lost().
        self.harmless = (
            self.notify_alone
            or (self.tls is not None and self.tls.said_goodbye and self.write_buffer.size == 0)
        )
        Connection.fail(self, error)

    cdef object tell_lost(self):
        if self.harmless and (self.life == LINGERING or self.receiving == ENDED_WELL):
            self.error = None
        UpgradableConnection.tell_lost(self)
