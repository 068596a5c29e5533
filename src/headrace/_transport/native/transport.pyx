# cython: language_level=3
"""SocketTransport: a whole asyncio.Transport over a SecureConnection, and the making of them."""

import asyncio
import socket as sockets
import sys
import warnings
from asyncio import trsock
from contextvars import copy_context

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from headrace._transport.native.linux cimport sockaddr, socklen_t
from headrace._transport.native.reactor cimport Reactor, reactor_of
from headrace._transport.native.socket_sender cimport SocketSender
from headrace._transport.native.states cimport (
    CLOSING,
    ENDED,
    ENDED_WELL,
    EOF_WAITS,
    HANDSHAKING,
    LINGERING,
    OPEN,
    SENDING,
)
from headrace._transport.native.tls_connection cimport SecureConnection
from headrace._transport.native.tls_engine cimport TLS
from headrace._transport.native.write_buffer cimport WriteBuffer
from headrace._transport.sender cimport as_bytes

from headrace._transport.native.addresses import address_of

# asyncio's water mark (asyncio.transports), in bytes.
HIGH_WATER_BYTES = 64 * 1024


class Transport(asyncio.transports._FlowControlMixin, asyncio.Transport):
    """The class that a SocketTransport says it is of. It cannot inherit from asyncio's, whose
    instances are laid out otherwise."""

    __slots__ = ()


Transport.__name__ = Transport.__qualname__ = "SocketTransport"


cdef class SocketTransport(SecureConnection):
    """What the program gets of a connection of ours. Made by adopt() and accepted()."""

    # loop.start_tls() of asyncio asks for it, and loop.sendfile() for the other: it then sends the
    # file through write().
    _start_tls_compatible = True
    _sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK

    def __init__(self):
        raise TypeError("transports are made by open_connection() and start_server()")

    @property
    def __class__(self):
        return Transport

    def __repr__(self):
        info = ["SocketTransport"]
        if self.fd < 0:
            info.append("closed")
        else:
            if self.life >= CLOSING:
                info.append("closing")
            info.append(f"fd={self.fd}")
            info.append("paused" if self.paused else "reading")
            info.append(f"unsent={self.write_buffer.size + self.held}")
            if self.tls is not None:
                info.append(f"tls={self.tls.version}")
        return "<{}>".format(" ".join(info))

    def __del__(self):
        if self.fd < 0:
            return
        try:
            if not self.reactor.is_inherited():
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        finally:
            self.close_socket()

    # ---- asyncio's surface

    def get_extra_info(self, name, default=None):
        """Return 'peername' or 'sockname' as the socket module writes addresses, or 'socket', an
        asyncio.trsock.TransportSocket.

        With TLS also 'sslcontext', 'ssl_object', 'peercert', 'cipher' and 'compression' as asyncio
        has them, and 'close_notify': None while the peer may send, then True where it has ended the
        stream itself, and False where the connection has merely ended, or was cut.
        """
        if name == "peername":
            if self.peername is None and self.peer_size > 0:
                self.peername = address_of(PyBytes_FromStringAndSize(self.peer, self.peer_size))
            return self.peername
        if name == "sockname":
            self.keep_names()
            if self.sockname is None and self.local_size > 0:
                self.sockname = address_of(PyBytes_FromStringAndSize(self.local, self.local_size))
            return self.sockname
        if name == "socket":
            if self.shown is None:
                if self.sock is None:
                    if self.fd >= 0 and self.is_internet():
                        # from now on somebody else may set the socket's options, and nothing is
                        # held
                        self.push()
                    self.sock = sockets.socket(fileno=self.fd) if self.fd >= 0 else _closed_socket()
                self.shown = trsock.TransportSocket(self.sock)
            return self.shown
        if self.tls is not None:
            return self.get_tls_info(name, default)
        return default

    def get_tls_info(self, name, default):
        """Return what get_extra_info() does, of TLS."""
        session = self.tls.ssl_object
        if name == "sslcontext":
            return self.tls.context
        if self.handshake == HANDSHAKING:
            return default
        if name == "ssl_object":
            return session
        if name == "peercert":
            return session.getpeercert()
        if name == "cipher":
            return session.cipher()
        if name == "compression":
            return session.compression()
        if name == "close_notify":
            if self.receiving == ENDED_WELL:
                return True
            return False if self.receiving == ENDED or self.life >= LINGERING else None
        return default

    def set_protocol(self, protocol):
        """Have *protocol*, an asyncio.Protocol or BufferedProtocol, called from now on."""
        self.use(protocol)

    def get_protocol(self):
        """Return the protocol."""
        return self.protocol

    @property
    def _protocol(self):
        return self.protocol

    @property
    def _protocol_paused(self):
        return self.protocol_paused

    def is_closing(self):
        """Return whether the transport is closed or being closed."""
        return self.life != OPEN

    def is_reading(self):
        """Return whether the protocol is told of what arrives."""
        return self.life < CLOSING and not self.paused

    def pause_reading(self):
        """Tell the protocol nothing more of what arrives, until resume_reading()."""
        if self.life >= CLOSING or self.paused:
            return
        self.reactor.check_thread()
        self.paused = True

    def resume_reading(self):
        """Undo pause_reading()."""
        if self.life >= CLOSING or not self.paused:
            return
        self.reactor.check_thread()
        self.paused = False
        if self.readable:
            self.reactor.continue_later(self)

    def write(self, data):
        """Send *data*, a bytes-like object, or keep what the system does not take; a mutable one is
        copied.

        Raises: TypeError for anything else; RuntimeError after write_eof(), and in a thread or
        process that the loop is not in. After close() or the loss of the connection it is dropped.
        """
        chunk = data if type(data) is bytes else as_bytes(data)
        if self.sending != SENDING:
            raise RuntimeError("Cannot call write() after write_eof()")
        if PyBytes_GET_SIZE(<bytes>chunk) > 0:
            self.send(<bytes>chunk, False)

    def writelines(self, list_of_data):
        """Send all of *list_of_data*, an iterable of bytes-like objects, as one write()."""
        pieces = [as_bytes(each) for each in list_of_data]
        if self.sending != SENDING:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        self.send_all([piece for piece in pieces if piece])

    def write_eof(self):
        """Close the writing half after what was written; reading goes on. Raises:
        NotImplementedError over TLS before 1.3."""
        if self.life >= CLOSING or self.sending != SENDING:
            return
        if not self.is_half_closable():
            raise NotImplementedError("TLS before version 1.3 has no half-close")
        self.reactor.check_thread()
        self.set_sending(EOF_WAITS)
        if self.write_buffer.size == 0:
            self.shut_writing()

    def can_write_eof(self):
        """Return True, but for TLS before version 1.3, which has no half-close."""
        return self.is_half_closable()

    def get_write_buffer_size(self):
        """Return how many bytes are unsent; with TLS as they will be sent, encrypted."""
        return self.write_buffer.size + self.held

    def get_write_buffer_limits(self):
        """Return (low, high): the protocol is paused above *high* unsent bytes and resumed at
        *low*."""
        return self.low, self.high

    def set_write_buffer_limits(self, high=None, low=None):
        """Set when the protocol is paused and resumed: asyncio's defaults are 64 KiB for *high*,
        and a quarter of it for *low*."""
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        # More than there can be in memory is no limit, however it is written.
        self.high, self.low = min(high, sys.maxsize), min(low, sys.maxsize)
        self.pause_if_high()

    def close(self):
        """Send what was written, then close. What arrives meanwhile is dropped. Closing twice is
        allowed."""
        self.end_when_sent()

    def abort(self):
        """Close at once, and forget what was not sent."""
        if self.reactor.is_inherited():
            self.leave()
        else:
            self.cut()

    def linger(self):
        """Have a later close() of a connection in plain text wait, as that of TLS does, until the
        peer's system has everything that was sent.

        Meanwhile what comes is thrown away. Without that Linux answers it by a reset, which takes
        from the peer what is still on its way.
        """
        if self.tls is None:
            self.lingers = True
            self.shutdown_timeout = asyncio.constants.SSL_SHUTDOWN_TIMEOUT

    def _force_close(self, exc):
        self.finish(exc)

    # ---- TLS

    cdef object introduce(self):
        stream = self.first = self.stream
        self.introduced = True
        if stream is not None:
            stream._h_sender = SocketSender(self, self.reactor.scheduler, not stream._h_private)
        self.call(self.protocol.connection_made, (self,))

    async def start_tls(self, tls, early, handshake_timeout, shutdown_timeout):
        """Go on in TLS, of the new session *tls*, and return after the handshake, whose first
        received bytes are *early*.

        What was written before is sent in plain text. Raises: ssl.SSLError or ConnectionError where
        the handshake fails; the connection is then closed, and so it is by a cancellation.
        """
        if self.life >= CLOSING or self.receiving >= ENDED:
            raise ConnectionResetError("Connection lost before the TLS handshake")
        shaken = self._loop.create_future()
        self.paused = False
        self.secure(tls, early, handshake_timeout, shutdown_timeout, shaken)
        if self.readable:
            self.reactor.continue_later(self)
        try:
            await shaken
        except BaseException:
            if not self._loop.is_closed():
                self.finish(None)
            raise


def adopt(loop, sock, protocol, Py_ssize_t receive_bytes):
    """Return the transport of *sock*, a connected socket that belongs to it from now on, and tell
    *protocol* that it is connected.

    Raises: OSError where the socket is none that can be watched; it is then still the caller's.
    """
    cdef SocketTransport transport = take(loop, sock, protocol, receive_bytes)
    connect(transport)
    return transport


async def adopt_secure(
    loop, sock, protocol, receive_bytes, tls, handshake_timeout, shutdown_timeout
):
    """The same over TLS, of the new session *tls*, after the handshake. Raises also what
    start_tls() does."""
    cdef SocketTransport transport = take(loop, sock, protocol, receive_bytes)
    try:
        transport.begin()
    except BaseException:
        transport.abort()
        raise
    await transport.start_tls(tls, b"", handshake_timeout, shutdown_timeout)
    return transport


cdef SocketTransport take(loop, sock, protocol, Py_ssize_t receive_bytes):
    cdef SocketTransport transport
    sock.setblocking(False)
    if sock.family in (sockets.AF_INET, sockets.AF_INET6):
        try:
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        except OSError:
            pass  # a protocol other than TCP
    transport = make(
        reactor_of(loop), sock.fileno(), sock.family, protocol, copy_context(), receive_bytes
    )
    transport.sock = sock
    transport.sockname = _name_or_none(sock.getsockname)
    transport.peername = _name_or_none(sock.getpeername)
    return transport


cdef SocketTransport accepted(
    Reactor reactor, int fd, int family, sockaddr *peer, socklen_t peer_size, object protocol,
    object context, Py_ssize_t receive_bytes, object sockname, tuple secure
):
    """Return the transport of the descriptor *fd*, which accept() has made, and tell *protocol*;
    *sockname* is its own name, where known.

    *secure* is None, or (context, seconds for the handshake, seconds for the shutdown) of TLS; the
    protocol is then told after the handshake.
    """
    cdef SocketTransport transport = make(reactor, fd, family, protocol, context, receive_bytes)
    transport.sockname = sockname
    if peer_size <= sizeof(transport.peer):
        memcpy(transport.peer, peer, peer_size)
        transport.peer_size = peer_size
    else:
        transport.peername = address_of(PyBytes_FromStringAndSize(<char *>peer, peer_size))
    if secure is None:
        connect(transport)
        return transport
    sslcontext, handshake_timeout, shutdown_timeout = secure
    if transport.stream is not None and transport.stream._h_server is not None:
        transport.stream._h_server.handshake_began(transport)
    try:
        transport.begin()
        transport.secure(
            TLS(sslcontext, True, None, None), b"", handshake_timeout, shutdown_timeout, None
        )
    except BaseException:
        transport.abort()
        raise
    return transport


cdef SocketTransport make(
    Reactor reactor, int fd, int family, object protocol, object context, Py_ssize_t receive_bytes
):
    cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
    transport.reactor = reactor
    transport._loop = reactor.loop
    transport.fd = fd
    transport.family = family
    transport.context = context
    transport.receive_bytes = transport.flood_bytes = receive_bytes
    transport.write_buffer = WriteBuffer.__new__(WriteBuffer)
    transport.high = HIGH_WATER_BYTES
    transport.low = HIGH_WATER_BYTES // 4
    # What a receive says of the system's buffer holds of TCP. A Unix socket ends a receive where
    # descriptors or credentials were sent.
    transport.trickles = not transport.is_internet()
    transport.use(protocol)
    return transport


cdef object connect(SocketTransport transport):
    """Tell the protocol of the connection, then begin to read."""
    try:
        transport.introduce()
        transport.begin()
    except BaseException:
        transport.abort()
        raise


def _name_or_none(ask):
    try:
        return ask()
    except OSError:
        return None


def _closed_socket():
    sock = sockets.socket()
    sock.close()
    return sock
