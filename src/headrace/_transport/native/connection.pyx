# cython: language_level=3
"""Connection: one connected socket of ours, served by the loop's Reactor: it receives, sends and
ends.

Reading and writing are single system calls, made when there is something to read or to write. What
is received goes to the reader of a StreamProtocol without a Python call: into the very object that
a large readexactly() will return, as one object where a receive filled at least half of its
storage, else as a copy. Any other protocol is called as asyncio's transports call it.
"""

import asyncio

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t

from headrace._core.buffer cimport ReadBuffer
from headrace._transport.native.connected_socket cimport is_direct, os_error
from headrace._transport.native.linux cimport (
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
    SO_ERROR,
    SOL_SOCKET,
    errno,
    getsockopt,
    recv,
    socklen_t,
)
from headrace._transport.native.sending cimport SendingSocket
from headrace._transport.native.states cimport CLOSING, ENDED, LINGERING, READING_OUT
from headrace._transport.receive cimport MAX_RECEIVE_BYTES, REST_BYTES, more_of_a_flood
from headrace._transport.stream_protocol cimport Receiver, StreamProtocol


cdef class Connection(SendingSocket):
    """The whole of a connection in plain text: it adds the reading half, and what the reactor
    calls."""

    # ---- what the reactor calls

    cdef object begin(self):
        """Start to be served; the protocol knows of the connection."""
        if self.life < LINGERING:
            self.reactor.watch(self, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
            self.reactor.owners[self.fd] = self

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
        if (
            events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)
            and self.receiving < ENDED
        ):
            self.readable = True
        if self.readable and not self.paused and self.life < CLOSING:
            # or it would receive twice before its reader has run, which then has to copy
            if not self.queued:
                self.on_turn()
        # After receiving, as asyncio's loop does it: what a receive says of a connection that broke
        # is more than EPIPE.
        if (
            events & (EPOLLOUT | EPOLLERR | EPOLLHUP)
            and self.write_buffer.size > 0
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
            asked[0] = min(PyBytes_GET_SIZE(buffer.head) - buffer.end, MAX_RECEIVE_BYTES)
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
                self.flood_bytes = more_of_a_flood(self.flood_bytes, self.receive_bytes)
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
