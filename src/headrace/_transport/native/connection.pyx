# cython: language_level=3
"""Connection: one connected socket of ours, served by the loop's Reactor: it receives, sends and
ends.

Reading and writing are single system calls, made when there is something to read or to write. What
is received goes to the reader of a StreamProtocol without a Python call: into the very object that
a large readexactly() will return, as one object where a receive filled at least half of its
storage, else as a copy. Any other protocol is called as asyncio's transports call it.

    open --end_when_sent(), nothing unsent----------------------------> ending --on_end()--> closed
         --end_when_sent(), something unsent--> closing --all sent----> ending
         --finish(): abort(), or an error, in any state---------------> ending

A connection that broke is read to its end before the protocol is told: what the peer sent before is
still there, after a reset as after a failed send. Its socket is closed after that, so whoever waits
for the end finds it closed.
"""

import asyncio
import os
from asyncio.log import logger

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.native.linux cimport (
    AF_INET,
    AF_INET6,
    EAGAIN,
    EINTR,
    ENOBUFS,
    ENOMEM,
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    IPPROTO_TCP,
    MSG_MORE,
    MSG_NOSIGNAL,
    SHUT_WR,
    SO_ERROR,
    SOL_SOCKET,
    TCP_CORK,
    close as close_descriptor,
    errno,
    getsockname,
    getsockopt,
    iovec,
    msghdr,
    recv,
    send,
    sendmsg,
    setsockopt,
    shutdown,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from headrace._transport.stream_protocol cimport Receiver, StreamProtocol
from headrace._transport.native.reactor cimport Watched
from headrace._transport.native.states cimport (
    CLOSED,
    CLOSING,
    ENDED,
    ENDING,
    EOF_SENT,
    EOF_WAITS,
    LINGERING,
    PLAIN,
    READING_OUT,
    RECEIVING,
    Handshake,
    Life,
    Receiving,
    Sending,
    check,
)

from headrace._transport.native.addresses import address_of

cdef extern from *:
    # declared here so that -1 is ours to handle, not an exception
    int PyContext_Enter(object context)
    int PyContext_Exit(object context) except -1
    void PyErr_Clear()

cdef enum:
    # How many pieces one system call takes: few enough for the stack, and enough that the call is
    # not what it costs. Not measured.
    VECTORS = 64
    # How much is received of a connection that broke: more than Linux keeps for one by default
    # (net.ipv4.tcp_rmem: 6 MiB). There is an end to it, for the other side of a Unix socket may
    # refuse what we send and go on sending.
    REST_BYTES = 8 << 20
    # How many times as much as at first, where the reader waits for it. A peer that floods has to
    # be received from as fast as it sends: what waits in the system's buffer for long is out of the
    # processor's caches by then, and costs three times as much to copy.
    FLOOD_FACTOR = 4

# How long to wait where the system is short of memory for its buffers, in seconds. Nothing says
# when it has some again.
RETRY_SECONDS = 0.02


cdef class Connection(Watched):
    """See the module's documentation. What users see of it is SocketTransport."""

    # ---- the states

    cdef int set_receiving(self, Receiving state) except -1:
        check("receiving", self.receiving, state)
        self.receiving = state
        return 0

    cdef int set_sending(self, Sending state) except -1:
        check("sending", self.sending, state)
        self.sending = state
        return 0

    cdef int set_life(self, Life state) except -1:
        check("life", self.life, state)
        self.life = state
        return 0

    cdef int set_handshake(self, Handshake state) except -1:
        check("handshake", self.handshake, state)
        self.handshake = state
        return 0

    # ---- what the reactor calls

    cdef object begin(self):
        """Start to be served; the protocol knows of the connection."""
        if self.life < LINGERING:
            self.reactor.watch(self, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
            self.reactor.owners[self.fd] = self

    cdef bint is_internet(self) noexcept:
        """Tell whether this is TCP; else it is a Unix socket, or something stranger."""
        return self.family == AF_INET or self.family == AF_INET6

    cdef object on_events(self, uint32_t events):
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if self.life >= LINGERING:
            return
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.hangup = True
        if events & EPOLLPRI:
            # A receive ends at urgent data, whatever is behind it (tcp(7)).
            self.trickles = True
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI) and self.receiving < ENDED:
            self.readable = True
        if self.readable and not self.paused and self.life < CLOSING:
            # or it would receive twice before its reader has run, which then has to copy
            if not self.queued:
                self.on_turn()
        # After receiving, as asyncio's loop does it: what a receive says of a connection that broke
        # is more than EPIPE.
        if (
            events & (EPOLLOUT | EPOLLERR | EPOLLHUP)
            and self.outbox.size > 0
            and not self.send_waits
            and self.life < LINGERING
        ):
            self.send_queued()
        if (
            events & EPOLLERR
            and self.life < LINGERING
            and (self.receiving >= ENDED or (self.paused and self.stream is not None))
        ):
            # Nobody reads it, so nobody would see that it broke. (Another protocol than ours is
            # told nothing while it is paused.)
            getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &size)
            if error == 0:
                return
            if self.receiving >= ENDED:
                # Behind its end, with nothing unsent: there is nothing left that could fail.
                # asyncio's loop does not look any more.
                self.finish(None)
            else:
                self.set_receiving(READING_OUT)
                self.fail(os_error(error))

    cdef object on_turn(self):
        try:
            self.receive()
        except BaseException:
            # The program is about to leave the loop, and may come back: no event will tell again
            # what the system still has.
            self.reactor.continue_later(self)
            raise

    cdef object on_end(self):
        if self.fd < 0 or self.reactor.is_inherited():
            return
        if self.receiving == READING_OUT and not self.receive_rest():
            self._loop.call_later(RETRY_SECONDS, self.end_later, context=self.reactor.context)
            return
        try:
            self.tell_lost()
            if self.first is not None and self.first._h_server is not None:
                # It was not told itself: there is another protocol now.
                self.first._h_server._h_detach(self)
        finally:
            self.keep_names()
            self.reactor.unwatch(self, self.sock is None)
            self.close_socket()
            self.protocol = None
            self.stream = None
            self.first = None
            self.context = None
            self.error = None

    # ---- reading

    cdef object receive(self):
        """Receive once; where the end is known to come behind, go on to it, but not for ever."""
        cdef Py_ssize_t asked = 0
        cdef ssize_t size
        cdef int turns = 2
        while (
            turns > 0
            and self.readable
            and not self.paused
            and self.life < CLOSING
            and not self.receive_waits
        ):
            size = self.receive_once(&asked)
            if size > 0:
                self.reactor.received += size
                if size == asked:
                    break  # there may be more, and no event will say so
                self.readable = self.hangup or self.trickles or self.is_left()
                turns -= 1
            elif size == 0:
                self.on_eof()
            elif size == -EAGAIN:
                self.readable = False
            elif size == -ENOBUFS or size == -ENOMEM:
                self.retry_later()
                self.receive_waits = True
                return
            elif size != -EINTR:
                self.readable = False
                self.fail(os_error(-size))
        if self.readable and not self.paused and self.life < CLOSING and not self.receive_waits:
            self.reactor.continue_later(self)

    cdef ssize_t receive_once(self, Py_ssize_t *asked) except? -1000000:
        """Make one system call; return what it returned, or the negative number of its error, and
        how much was asked for."""
        cdef Receiver receiver = None
        cdef ReadBuffer buffer
        cdef bytes data
        cdef ssize_t size = 0
        if self.stream is not None:
            receiver = self.stream._h_receiver()
        if receiver is None:
            # There is no reader, one whose methods somebody overrides, or another protocol than
            # ours.
            return self.receive_foreign(asked)
        buffer = receiver._h_reserved()
        if buffer is not None:
            # Straight into what a readexactly() will return.
            asked[0] = min(PyBytes_GET_SIZE(buffer.head) - buffer.end, MOST_BYTES)
            size = recv(self.fd, PyBytes_AS_STRING(buffer.head) + buffer.end, asked[0], 0)
            if size < 0:
                return -errno
            if size > 0:
                buffer.end += size
                receiver._h_after_feed()
            return size
        asked[0] = self.to_ask(receiver)
        data = self.reactor.pool.receive(self.fd, asked[0], &size)
        self.adapt(asked[0], size)
        if data is not None:
            receiver._h_feed(data)
        return size

    cdef Py_ssize_t to_ask(self, Receiver receiver) except -1:
        """Return how much to receive at once: what the peer floods with only where somebody waits
        for it."""
        if (
            self.flood_bytes == self.receive_bytes
            or (receiver is not None and not receiver._h_waits())
        ):
            return self.receive_bytes
        return self.flood_bytes

    cdef bint is_left(self):
        """Tell whether something has been received that the protocol has not got."""
        return False

    cdef void adapt(self, Py_ssize_t asked, ssize_t size) noexcept:
        """Ask for more next time where *asked* bytes have come twice in a row, for no more than at
        first where not half of it has."""
        if size == asked:
            if self.filled:
                self.flood_bytes = min(
                    2 * self.flood_bytes, FLOOD_FACTOR * self.receive_bytes, MOST_BYTES
                )
            self.filled = True
        else:
            self.filled = False
            if 2 * size < asked:
                self.flood_bytes = self.receive_bytes

    cdef ssize_t receive_foreign(self, Py_ssize_t *asked) except? -1000000:
        """The same for a protocol that is called as asyncio's transports call it; what it raises
        breaks the connection."""
        cdef ssize_t size = 0
        cdef Py_buffer view
        protocol = self.protocol
        buffered = isinstance(protocol, asyncio.BufferedProtocol)
        what = "get_buffer"
        try:
            if buffered:
                PyObject_GetBuffer(self.call(protocol.get_buffer, (-1,)), &view, PyBUF_WRITABLE)
                asked[0] = view.len
                if view.len > 0:
                    size = recv(self.fd, view.buf, view.len, 0)
                    if size < 0:
                        size = -errno
                # Before the protocol is told: it may resize its buffer then.
                PyBuffer_Release(&view)
                if asked[0] == 0:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                if size > 0:
                    what = "buffer_updated"
                    self.call(protocol.buffer_updated, (size,))
            else:
                asked[0] = self.to_ask(None)
                data = self.reactor.pool.receive(self.fd, asked[0], &size)
                self.adapt(asked[0], size)
                if data is not None:
                    what = "data_received"
                    self.call(protocol.data_received, (data,))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, f"Fatal error: protocol.{what}() call failed.")
            return -EAGAIN
        return size

    cdef bint receive_rest(self) except -1:
        """Receive what came before the connection broke, for a reader, or a protocol that is not
        paused; return whether that is over."""
        cdef Py_ssize_t asked = 0
        cdef Py_ssize_t left = REST_BYTES
        cdef ssize_t size = 1
        if self.stream is None and self.paused:
            # loop.sendfile() puts a protocol of its own in front of the one that will read.
            behind = getattr(self.protocol, "_proto", None)
            if not is_direct(behind):
                return True
            self.stream = <StreamProtocol>behind
        while left > 0 and (size > 0 or size == -EINTR):
            size = self.receive_once(&asked)
            left -= size
        return size != -ENOBUFS and size != -ENOMEM

    def end_later(self):
        """Go on with the end, after a wait for memory."""
        self.reactor.end(self)

    cdef object on_eof(self):
        """The connection has no more for us."""
        self.set_receiving(ENDED)
        self.tell_eof()

    cdef object tell_eof(self):
        """Tell the protocol that the peer's stream is over; it says whether ours goes on."""
        self.readable = False
        try:
            keep_open = self.call(self.protocol.eof_received, ())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.end_when_sent()

    cdef object call(self, object method, tuple arguments):
        """Call a method of the protocol in the connection's context."""
        return run_in(self.context, method, arguments)

    cdef object use(self, object protocol):
        self.protocol = protocol
        self.stream = <StreamProtocol>protocol if is_direct(protocol) else None

    def retry(self):
        """Go on after retry_later()."""
        self.send_waits = self.receive_waits = False
        if self.life >= LINGERING:
            return
        if self.outbox.size > 0:
            self.send_queued()
        self.reactor.rearm(self)

    cdef object retry_later(self):
        """Try again in a while: the system is short of memory, and no event will tell when it has
        some."""
        if not self.send_waits and not self.receive_waits:
            self._loop.call_later(RETRY_SECONDS, self.retry, context=self.reactor.context)

    # ---- writing

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
        if self.outbox.size == 0 and not self.send_waits:
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
        self.outbox.add(data, sent)
        self.pause_if_high()

    cdef object send_all(self, list pieces):
        """The same for several pieces, none of them empty."""
        cdef bint idle = self.outbox.size == 0
        if self.life >= CLOSING:
            return
        self.reactor.check_thread()
        for piece in pieces:
            self.outbox.add(<bytes>piece, 0)
        if idle and self.outbox.size > 0 and not self.send_waits:
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
        while self.outbox.size > 0:
            message.msg_iovlen = self.outbox.fill(vectors, VECTORS, &total)
            sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if not self.may_send_later():
                    return
                break
            self.outbox.remove(sent)
            if sent < total:
                break  # the event for more room is on its way
        self.resume_if_low()
        if self.outbox.size == 0 and self.life < LINGERING:
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

    cdef object pause_if_high(self):
        if (
            self.outbox.size + self.held > self.high
            and not self.protocol_paused
            and self.life < LINGERING
        ):
            self.protocol_paused = True
            self.tell("pause_writing")

    cdef object resume_if_low(self):
        if self.protocol_paused and self.outbox.size + self.held <= self.low:
            self.protocol_paused = False
            self.tell("resume_writing")

    cdef object tell(self, str what):
        """Call a method of the protocol that says nothing of whether the connection goes on; what
        it raises is reported."""
        try:
            self.call(getattr(self.protocol, what), ())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.report(error, f"protocol.{what}() failed")

    # ---- the end

    cdef object report(self, object error, str message):
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        )

    cdef object fatal(self, object error, str message):
        """End the connection for *error*, which the protocol raised."""
        if isinstance(error, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        else:
            self.report(error, message)
        self.finish(error)

    cdef object fail(self, object error):
        """End the connection for *error*, which the system gave."""
        if self._loop.get_debug():
            logger.debug("%r: %s", self, error)
        self.finish(error)

    cdef object shut_writing(self):
        """Close the writing half: everything was sent."""
        self.set_sending(EOF_SENT)
        shutdown(self.fd, SHUT_WR)

    cdef object tell_lost(self):
        """Tell the protocol that the connection is over."""
        self.call(self.protocol.connection_lost, (self.error,))

    cdef object end_when_sent(self):
        """Send what was kept, then end. What arrives meanwhile is dropped."""
        if self.life >= CLOSING:
            return
        if self.reactor.is_inherited():
            self.leave()
            return
        self.reactor.check_thread()
        self.set_life(CLOSING)
        if self.outbox.size == 0:
            self.finish(None)

    cdef object finish(self, object error):
        """Have the protocol told, when nothing else is on the stack, that the connection is over,
        and close the socket then: after a close(), when the peer's system has everything."""
        self.stop(error, LINGERING if self.may_linger() else ENDING)

    cdef bint may_linger(self) noexcept:
        """Tell whether the end, if it were now, has to wait for the peer."""
        return False

    cdef object stop(self, object error, Life how):
        """End now: *how* is LINGERING or ENDING."""
        if self.life >= LINGERING:
            return
        self.reactor.check_thread()
        self.set_life(how)
        self.error = error
        self.outbox.clear()
        try:
            self.reactor.end(self)
        except RuntimeError:
            # The loop is closed: nobody will be told of anything any more.
            self.close_socket()
            raise

    cdef object leave(self):
        """Close the copy of a descriptor that belongs to the parent of this process, which goes on
        with its own."""
        self.outbox.clear()
        if self.fd >= 0:
            self.close_socket()

    cdef object close_socket(self):
        """Close the descriptor; the socket object does it where there is one."""
        fd = self.fd
        self.fd = -1
        self.set_life(CLOSED)
        if self.reactor.owners.get(fd) is self:
            del self.reactor.owners[fd]
        if self.sock is None:
            close_descriptor(fd)
        else:
            self.sock.close()

    cdef object keep_names(self):
        """Ask for the socket's own name, while it has one."""
        cdef sockaddr_storage name
        cdef socklen_t size = sizeof(name)
        if self.sockname is None and self.local_size == 0 and self.fd >= 0:
            if getsockname(self.fd, <sockaddr *>&name, &size) == 0:
                if size <= sizeof(self.local):
                    memcpy(self.local, &name, size)
                    self.local_size = size
                else:
                    self.sockname = address_of(PyBytes_FromStringAndSize(<char *>&name, size))


cdef bint is_direct(object protocol) except -1:
    """Tell whether bytes can be given to the protocol's reader without calling the protocol: nobody
    has overridden its data_received()."""
    return (
        isinstance(protocol, StreamProtocol)
        and type(protocol).data_received is StreamProtocol.data_received
    )


cdef object run_in(object context, object method, tuple arguments):
    """Call method(*arguments) in *context*, or in a copy where it is entered already."""
    if PyContext_Enter(context) < 0:
        PyErr_Clear()
        context = context.copy()
        if PyContext_Enter(context) < 0:
            raise RuntimeError("a new context cannot be entered")
    try:
        return method(*arguments)
    finally:
        PyContext_Exit(context)


cdef object os_error(int number):
    return OSError(number, os.strerror(number))
