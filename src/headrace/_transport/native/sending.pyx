# cython: language_level=3
"""SendingSocket: a connected socket of ours that sends, each write at once. What the system does
not take is kept, and sent when there is room."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memset

from headrace._transport.native.connected_socket cimport ConnectedSocket, RETRY_SECONDS, os_error
from headrace._transport.native.linux cimport (
    EAGAIN,
    EINTR,
    ENOBUFS,
    ENOMEM,
    IPPROTO_TCP,
    MSG_MORE,
    MSG_NOSIGNAL,
    SHUT_WR,
    TCP_CORK,
    errno,
    iovec,
    msghdr,
    send,
    sendmsg,
    setsockopt,
    shutdown,
)
from headrace._transport.native.states cimport (
    CLOSING, EOF_SENT, EOF_WAITS, LINGERING, READING_OUT, RECEIVING
)

cdef enum:
    # How many pieces one system call takes: few enough for the stack, and enough that the call is
    # not what it costs. Not measured.
    VECTORS = 64


cdef class SendingSocket(ConnectedSocket):
    """The writing half of a connection: sends, keeps what is unsent, pauses the protocol."""

    cdef object send(self, bytes data, bint followed):
        """Send *data*, which is not empty, or keep what the system does not take.

        *followed* lets the system hold the end of it for what is sent next, or for push(): for
        max(200 ms, RTO) at most (tcp(7)).
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef ssize_t sent = 0
        if self.life >= CLOSING:
            return
        self.reactor.check_thread()
        if self.write_buffer.size == 0 and not self.send_waits:
            sent = send(
                self.fd, PyBytes_AS_STRING(data), size,
                MSG_NOSIGNAL | MSG_MORE if followed else MSG_NOSIGNAL
            )
            if sent == size:
                return
            if sent < 0:
                if not self.may_send_later():
                    return
                sent = 0
        self.write_buffer.add(data, sent)
        self.pause_if_high()

    cdef object send_all(self, list pieces):
        """The same for several pieces, none of them empty."""
        cdef bint idle = self.write_buffer.size == 0
        if self.life >= CLOSING:
            return
        self.reactor.check_thread()
        for piece in pieces:
            self.write_buffer.add(<bytes>piece, 0)
        if idle and self.write_buffer.size > 0 and not self.send_waits:
            self.send_queued()
        self.pause_if_high()

    cdef object push(self):
        """Have the system send at once what it holds; TCP only."""
        cdef int off = 0
        # Taking back a cork that is not there sends what there is, and leaves TCP_NODELAY alone. (A
        # send() of nothing does neither.)
        if self.life < LINGERING:
            setsockopt(self.fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off))

    cdef object send_queued(self):
        """Send what was kept, until the system takes no more."""
        cdef iovec vectors[VECTORS]
        cdef msghdr message
        cdef Py_ssize_t total
        cdef ssize_t sent
        memset(&message, 0, sizeof(message))
        message.msg_iov = vectors
        while self.write_buffer.size > 0:
            message.msg_iovlen = self.write_buffer.fill(vectors, VECTORS, &total)
            sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if not self.may_send_later():
                    return
                break
            self.write_buffer.remove(sent)
            if sent < total:
                break  # the event for more room is on its way
        self.resume_if_low()
        if self.write_buffer.size == 0 and self.life < LINGERING:
            if self.life == CLOSING:
                self.finish(None)
            elif self.sending == EOF_WAITS:
                self.shut_writing()

    cdef bint may_send_later(self) except -1:
        """Look at the error of a send: return whether it was no more than a lack of room; else the
        connection has broken."""
        cdef int error = errno
        if error == EAGAIN:
            return True
        if error == EINTR or error == ENOBUFS or error == ENOMEM:
            self.retry_later()
            self.send_waits = True
            return True
        if self.receiving == RECEIVING:
            self.set_receiving(READING_OUT)
        self.fail(os_error(error))
        return False

    cdef object retry_later(self):
        """Try again in a while: the system is short of memory, and no event will tell when it has
        some."""
        if not self.send_waits and not self.receive_waits:
            self._loop.call_later(RETRY_SECONDS, self.retry, context=self.reactor.context)

    def retry(self):
        """Go on after retry_later()."""
        self.send_waits = self.receive_waits = False
        if self.life >= LINGERING:
            return
        if self.write_buffer.size > 0:
            self.send_queued()
        self.reactor.rearm(self)

    cdef object pause_if_high(self):
        if (
            self.write_buffer.size + self.held > self.high
            and not self.protocol_paused
            and self.life < LINGERING
        ):
            self.protocol_paused = True
            self.tell("pause_writing")

    cdef object resume_if_low(self):
        if self.protocol_paused and self.write_buffer.size + self.held <= self.low:
            self.protocol_paused = False
            self.tell("resume_writing")

    cdef object shut_writing(self):
        """Close the writing half: everything was sent."""
        self.set_sending(EOF_SENT)
        shutdown(self.fd, SHUT_WR)
