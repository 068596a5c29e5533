# cython: language_level=3
"""ProtocolTransport: a SocketTransport for protocols that asyncio's loop was given, which are told
of everything as asyncio's own transports tell it.

Programs rely on the turns of the loop that lie between the calls. A task that data has woken runs
before the protocol hears of the end behind that data, and again before it hears that the connection
is lost. So a connection receives once in a turn, which is one look of the reactor, and its end is a
handle of its own where there is something to overtake. TLS has no half-close here: can_write_eof()
is False, and the peer's end closes the connection.
"""

import inspect
from asyncio import constants, futures
from asyncio.base_events import Server
from asyncio.log import logger
from contextvars import copy_context

from libc.stdint cimport uint32_t

from headrace._transport.native.connected_socket cimport os_error
from headrace._transport.native.linux cimport (
    EAGAIN, EINTR, ENOBUFS, ENOMEM, SIOCINQ, ioctl, sockaddr, socklen_t
)
from headrace._transport.native.reactor cimport Reactor, reactor_of
from headrace._transport.native.states cimport (
    CLOSING,
    ENDED,
    HANDSHAKING,
    LINGERING,
    OPEN,
    READING_OUT,
    SENDING,
)
from headrace._transport.native.tls_engine cimport TLS
from headrace._transport.native.transport cimport (
    SocketTransport, name_peer, set_options, set_up, show
)
from headrace._transport.receive cimport REST_BYTES, TURN_BYTES
from headrace._transport.sender cimport as_bytes

from headrace._transport.native.transport import Transport

# How much is received at once at first: a quarter of what asyncio's transports ask for, which is
# reached where the peer floods.
RECEIVE_BYTES = constants.FLOW_CONTROL_HIGH_WATER_SSL_READ * 1024 // 4
# asyncio's water mark for what is written over TLS.
HIGH_WATER_TLS_BYTES = constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024
# How many writes to a connection that is lost are dropped before asyncio says so.
SILENT_WRITES = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES

cdef enum:
    # How many handles are looked at for whether the reactor is among them: a bound where a program
    # has thousands, and more than others have.
    LOOKED_AT = 64

# From Python 3.13 on a server knows its connections, and not only how many they are.
NAMES_ITSELF = len(inspect.signature(Server._attach).parameters) == 2


class SSLTransport(Transport):
    """The class that a ProtocolTransport says it is of over TLS: there are programs that look for
    "ssl" in the name."""

    __slots__ = ()


SSLTransport.__name__ = SSLTransport.__qualname__ = "SSLSocketTransport"


cdef class ProtocolTransport(SocketTransport):
    """What a protocol gets of a connection that the loop has made. Made by attach() and
    attach_secure()."""

    # ---- what asyncio looks at

    @property
    def __class__(self):
        return Transport if self.tls is None else SSLTransport

    @property
    def _sock(self):
        self.get_extra_info("socket")
        return self.sock

    @property
    def _paused(self):
        return self.paused

    @property
    def _server(self):
        return self.server

    @property
    def _sendfile_compatible(self):
        mode = constants._SendfileMode
        return mode.TRY_NATIVE if self.tls is None else mode.FALLBACK

    def _make_empty_waiter(self):
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self.settle_empty_waiter()
        return self._empty_waiter

    def _reset_empty_waiter(self):
        self._empty_waiter = None

    cdef object settle_empty_waiter(self):
        if (
            self._empty_waiter is not None
            and self.write_buffer.size == 0
            and not self._empty_waiter.done()
        ):
            self._empty_waiter.set_result(None)

    def __repr__(self):
        info = ["SocketTransport"]
        if self.fd < 0:
            info.append("closed")
        elif self.life >= CLOSING:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self.fd >= 0:
            info.append("read=polling" if self.is_reading() else "read=idle")
            state = "polling" if self.write_buffer.size > 0 else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        if self.tls is not None:
            info.append(f"tls={self.tls.version}")
        return "<{}>".format(" ".join(info))

    # ---- the beginning

    cdef object use(self, object protocol):
        # Streams of ours are called as well: that is how they know the loop's transports.
        SocketTransport.use(self, protocol)
        self.stream = None

    cdef object begin(self):
        SocketTransport.begin(self)
        # The loop itself knows whose the descriptor is, and gives it away while it sends a file.
        self.reactor.owners.pop(self.fd, None)

    cdef object serve_for(self, object server):
        """Have *server*, an asyncio.Server or None, count the connection, and the loop know it.
        Raises: AssertionError where the server was closed meanwhile, as asyncio's transports do."""
        if server is not None:
            server._attach(self) if NAMES_ITSELF else server._attach()
            self.server = server
        loop = self._loop
        loop._transports[self._sock_fd] = self

    def start_reading(self):
        """The protocol was told of the connection, and hears no more in this turn."""
        self.begun = True
        self.told = self.reactor.turn + is_due(self.reactor)
        if self.early:
            self.reactor.rearm(self)

    cdef object start(self, unsigned long turn):
        """The same of a connection that the system was not asked to watch before; *turn* is that
        which the reactor has now, or is about to have."""
        self.begun = True
        self.told = turn
        try:
            self.begin()
        except OSError as error:
            self.fail(error)

    # ---- reading

    def resume_reading(self):
        """Undo pause_reading(). The protocol hears nothing in this turn: the loop's select() did
        not know that it would."""
        if self.paused and self.life < CLOSING:
            reactor = self.reactor
            self.told = reactor.turn + (not reactor.serving and is_due(reactor))
            self.readable = self.readable and self.has_more(True)
        SocketTransport.resume_reading(self)

    cdef object on_events(self, uint32_t events):
        if self.begun:
            SocketTransport.on_events(self, events)
        else:
            self.early = True

    cdef object receive(self):
        """Receive once, if that was not done in this turn."""
        cdef Py_ssize_t asked = 0
        cdef ssize_t size
        if not self.readable or self.paused or self.life >= CLOSING or self.receive_waits:
            return
        if self.told == self.reactor.turn:
            # What has brought us here may be read already: in the next turn it would be too early
            # for what has come by then.
            self.readable = self.has_more(True)
            if self.readable:
                self.reactor.continue_later(self)
            return
        # Outside of a batch the one that may follow in the same turn counts as well.
        self.told = self.reactor.next_turn()
        # What another look of run() finds might overtake a timer, or another descriptor.
        self.reactor.received = TURN_BYTES
        size = self.receive_once(&asked)
        if size > 0:
            self.readable = self.has_more(size == asked)
        elif size == 0:
            self.on_eof()
        elif size == -EAGAIN:
            self.readable = False
        elif size == -ENOBUFS or size == -ENOMEM:
            self.retry_later()
            self.receive_waits = True
        elif size != -EINTR:
            self.readable = False
            self.fail(os_error(-size))
        if self.readable and not self.paused and self.life < CLOSING and not self.receive_waits:
            # Behind what the protocol has put onto the loop's list, as the loop would.
            if self.is_left():
                self.wait_a_turn()  # the system does not know of it
            else:
                self.reactor.continue_later(self)

    cdef bint has_more(self, bint full):
        """Tell whether there is more to tell of, which only a *full* receive, or one that does not
        say so, can have left in the system. To go on in vain would be to tell of what comes then
        before its turn."""
        cdef int left = 0
        if self.hangup or self.is_left():
            return True
        if self.is_internet() and self.trickles:
            return True  # behind urgent data the system does not count
        if not full and not self.trickles:
            return False
        return self.fd >= 0 and (ioctl(self.fd, SIOCINQ, &left) < 0 or left > 0)

    cdef object wait_a_turn(self):
        """Have next_turn() called by the loop."""
        if not self.waits_a_turn:
            self.waits_a_turn = True
            self._loop.call_soon(self.next_turn, context=self.reactor.context)

    def next_turn(self):
        """Go on with receiving."""
        self.waits_a_turn = False
        # Nothing of this turn has told the protocol anything but what is behind us.
        if self.told == self.reactor.turn:
            self.told = self.reactor.turn - 1
        self.on_turn()

    cdef object tell_eof(self):
        if self.tls is None:
            SocketTransport.tell_eof(self)
            return
        self.readable = False
        try:
            keep_open = self.call(self.protocol.eof_received, ())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, "Error calling eof_received()")
            return
        if keep_open:
            logger.warning("returning true from eof_received() has no effect when using ssl")
        self.end_when_sent()

    # ---- writing

    cdef bint is_half_closable(self) except -1:
        return self.tls is None

    def write_eof(self):
        """Close the writing half after what was written. Raises: NotImplementedError over TLS."""
        if self.tls is not None:
            raise NotImplementedError
        SocketTransport.write_eof(self)

    def can_write_eof(self):
        """Return True, but for TLS."""
        return self.tls is None

    def write(self, data):
        """Send *data*, or keep what the system does not take; what asyncio's transports refuse is
        refused in their words."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        self.check_sending("write")
        chunk = data if type(data) is bytes else as_bytes(data)
        if not chunk or self.is_dropped():
            return
        if self.life == CLOSING:
            # What was written before close() is not all sent, and asyncio takes more until it is.
            self.reactor.check_thread()
            self.write_buffer.add(<bytes>chunk, 0)
            self.pause_if_high()
        else:
            self.send(<bytes>chunk, False)

    def writelines(self, list_of_data):
        """Send all of *list_of_data* as one write()."""
        pieces = [as_bytes(each) for each in list_of_data]
        self.check_sending("writelines")
        pieces = [piece for piece in pieces if piece]
        if not pieces or self.is_dropped():
            return
        if self.life == CLOSING:
            self.write(b"".join(pieces))
        else:
            self.send_all(pieces)

    cdef object check_sending(self, str method):
        if self.sending != SENDING:
            raise RuntimeError(f"Cannot call {method}() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError(f"unable to {method}; sendfile is in progress")

    cdef bint is_dropped(self) except -1:
        """Tell whether it is too late to write; asyncio says so when that has happened often."""
        if self.life == OPEN or (self.life == CLOSING and self.tls is None):
            return False
        self.dropped += 1
        if self.dropped > SILENT_WRITES:
            logger.warning(
                "socket.send() raised exception."
                if self.tls is None
                else "SSL connection is closed"
            )
        return True

    cdef object push(self):
        # Nothing is ever held: no write of a protocol says that it is followed by another.
        pass

    cdef object send_queued(self):
        SocketTransport.send_queued(self)
        self.settle_empty_waiter()

    # ---- TLS

    async def upgrade(self, protocol, tls, early, handshake_timeout, shutdown_timeout):
        """Go on in TLS, of the new session *tls*, with *protocol*, and return after the handshake,
        whose first received bytes are *early*.

        Raises and cancellation: as start_tls().
        """
        self.set_protocol(protocol)
        self.raise_water_marks()
        await self.start_tls(tls, early, handshake_timeout, shutdown_timeout)

    cdef object raise_water_marks(self):
        self.high = HIGH_WATER_TLS_BYTES
        self.low = HIGH_WATER_TLS_BYTES // 4

    cdef object say_goodbye(self, bint whole):
        # A connection that has just ended is closed without close_notify, as by asyncio.
        if self.receiving != ENDED:
            SocketTransport.say_goodbye(self, whole)

    # ---- the end

    cdef bint may_linger(self) noexcept:
        # Behind the peer's end nothing comes that could be answered by a reset, and programs know
        # the socket to be closed a turn later.
        return self.receiving < ENDED and SocketTransport.may_linger(self)

    cdef object end_soon(self):
        # A handle of its own where there is something that must not be overtaken.
        scheduler = self.reactor.scheduler
        if self.reactor.serving and scheduler.is_quiet() and not scheduler.waking:
            self.reactor.end(self)
            return
        self._loop.call_soon(self.take_leave, context=self.reactor.context)

    def take_leave(self):
        """The end; nothing else is on the stack."""
        self.on_end()

    cdef object on_end(self):
        cdef Py_ssize_t asked = 0
        cdef ssize_t size
        if (
            self.fd >= 0
            and self.receiving == READING_OUT
            and self.handshake != HANDSHAKING
            and not self.paused
            and self.rest > 0
            and not self.reactor.is_inherited()
        ):
            size = self.receive_once(&asked)
            if size > 0 or size == -EINTR:
                self.rest -= size
                self.end_soon()
                return
            if size != -ENOBUFS and size != -ENOMEM:
                self.rest = 0
        SocketTransport.on_end(self)

    cdef bint receive_rest(self) except -1:
        return self.rest <= 0 or self.paused or self.handshake == HANDSHAKING

    cdef object tell_lost(self):
        try:
            SocketTransport.tell_lost(self)
        finally:
            if self._empty_waiter is not None and not self._empty_waiter.done():
                self._empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    cdef object call_lost(self):
        if self.tls is None:
            SocketTransport.call_lost(self)
        else:
            # One turn more, as it takes asyncio's two layers; the socket is closed by then.
            self._loop.call_soon(
                self.protocol.connection_lost, self.error, context=self.context
            )

    cdef object close_socket(self):
        SocketTransport.close_socket(self)
        server, self.server = self.server, None
        if server is not None:
            server._detach(self) if NAMES_ITSELF else server._detach()


def attach(loop, sock, protocol, waiter, extra, server, context):
    """Return the transport of *sock*, a connected socket that belongs to it from now on.

    Args:
        loop: the loop of asyncio's that *sock* is for.
        protocol: told of the connection in the loop's next turn.
        waiter: a future that gets its result after that, or None.
        extra: None, or what the loop knows: "peername".
        server: the asyncio.Server that counts it, or None.
        context: what the protocol is called in; None for a copy of this one.

    Raises: OSError where the system cannot watch it; it is then still the caller's.
    """
    cdef ProtocolTransport transport = prepare(loop, sock, protocol, extra, server, context)
    transport.introduced = True
    loop.call_soon(protocol.connection_made, transport, context=transport.context)
    loop.call_soon(transport.start_reading, context=transport.context)
    if waiter is not None:
        loop.call_soon(futures._set_result_unless_cancelled, waiter, None)
    return transport


def attach_secure(
    loop, sock, protocol, waiter, extra, server, context, TLS tls, handshake_timeout,
    shutdown_timeout
):
    """The same over TLS, of the new session *tls*: the protocol is told after the handshake, and
    *waiter* how that ends."""
    cdef ProtocolTransport transport = prepare(loop, sock, protocol, extra, server, context)
    transport.begun = True
    transport.raise_water_marks()
    transport.secure(tls, b"", handshake_timeout, shutdown_timeout, waiter)
    return transport


cdef ProtocolTransport prepare(loop, sock, protocol, extra, server, context):
    cdef ProtocolTransport transport = ProtocolTransport.__new__(ProtocolTransport)
    set_options(sock)
    set_up(
        transport, reactor_of(loop), sock.fileno(), sock.family, protocol,
        copy_context() if context is None else context, RECEIVE_BYTES
    )
    transport._sock_fd = transport.fd
    transport.rest = REST_BYTES
    transport.dropped = 1
    transport.told = transport.reactor.turn - 1
    show(transport, sock)
    if extra is not None and "peername" in extra:
        transport.peername = extra["peername"]
    try:
        transport.begin()
        transport.serve_for(server)
    except BaseException:
        transport.reactor.unwatch(transport, False)
        transport.fd = -1  # it is the caller's
        raise
    return transport


cdef bint is_due(Reactor reactor) except -1:
    """Tell whether run() of *reactor* is on the loop's list in this turn, or may be."""
    cdef int left = LOOKED_AT
    if reactor.shares:
        return False  # a turn begins with select()
    ready = reactor.scheduler.ready
    if ready is None:
        return True
    run = reactor.run
    # What the selector has found is behind what was there before.
    for handle in reversed(ready):
        if left == 0 or handle._callback == run:
            return True
        left -= 1
    return False


cdef ProtocolTransport accepted(
    Reactor reactor, int fd, int family, sockaddr *peer, socklen_t peer_size, object sockname,
    object context
):
    """Return the transport of *fd*, which accept() has made; it has no protocol yet.

    *sockname* is its own name, where known; *context* is what its protocol is called in.
    """
    cdef ProtocolTransport transport = ProtocolTransport.__new__(ProtocolTransport)
    set_up(transport, reactor, fd, family, None, context, RECEIVE_BYTES)
    transport._sock_fd = fd
    transport.rest = REST_BYTES
    transport.dropped = 1
    transport.introduced = True
    transport.sockname = sockname
    name_peer(transport, peer, peer_size)
    return transport
