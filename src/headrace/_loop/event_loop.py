"""EventLoop: asyncio's own loop, which gives its connections transports of ours.

All that is not a connection's socket is asyncio's code: names, addresses, the race between them,
servers, callbacks, timers, datagrams, pipes, subprocesses, signals, debug mode.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import ssl
from asyncio import constants
from collections.abc import Coroutine
from typing import Any, TypeVar

from headrace._loop.seams import BASE, OBSTACLE
from headrace._transport import backend
from headrace._transport.scheduler import has_usual_tasks
from headrace._transport.tls_options import is_standard

_T = TypeVar("_T")


class EventLoop(BASE):
    """asyncio's SelectorEventLoop, whose TCP, Unix and TLS connections cost less.

    Every protocol that create_server(), create_connection(), create_unix_server(),
    create_unix_connection() or connect_accepted_socket() is given gets a transport of headrace's,
    and is called as asyncio's transports call it. Everything else is asyncio's own code. In debug
    mode, and where headrace has no sockets of its own (not on Linux, or not compiled), the
    transports are asyncio's too.

    Args:
        selector: a selectors.BaseSelector; None for headrace's, which serves its connections in
            the loop's own wait for events, or where there is none for the best that the system has.

    Raises: OSError where the system has no descriptor for it.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is None and OBSTACLE is None and not _is_portable():
            selector = backend.native.Selector()
        # Only where there is one: asyncio's loop on Windows takes something else.
        super().__init__(*(() if selector is None else (selector,)))

    def _make_socket_transport(self, sock: Any, protocol: Any, *args: Any, **options: Any) -> Any:
        if not self._h_takes(sock):
            return super()._make_socket_transport(sock, protocol, *args, **options)
        self._ensure_fd_no_transport(sock)
        return self._h_attach(sock, protocol, *args, **options)

    def _h_attach(
        self,
        sock: socket.socket,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> Any:
        return backend.native.attach(self, sock, protocol, waiter, extra, server, context)

    def _make_ssl_transport(
        self, rawsock: Any, protocol: Any, sslcontext: Any, *args: Any, **options: Any
    ) -> Any:
        if not self._h_takes(rawsock) or not (not sslcontext or is_standard(sslcontext)):
            return super()._make_ssl_transport(rawsock, protocol, sslcontext, *args, **options)
        self._ensure_fd_no_transport(rawsock)
        return self._h_attach_secure(rawsock, protocol, sslcontext, *args, **options)

    def _h_attach_secure(
        self,
        sock: socket.socket,
        protocol: Any,
        sslcontext: ssl.SSLContext | None,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Any = None,
    ) -> Any:
        timeouts = _timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
        session = backend.native.session(
            sslcontext or _default_context(server_side, server_hostname),
            server_side,
            server_hostname,
        )
        return backend.native.attach_secure(
            self, sock, protocol, waiter, extra, server, context, session, *timeouts
        )

    def _start_serving(
        self, protocol_factory: Any, sock: Any, sslcontext: Any = None, *args: Any, **options: Any
    ) -> None:
        if sslcontext or not self._h_takes(sock) or not has_usual_tasks(self):
            super()._start_serving(protocol_factory, sock, sslcontext, *args, **options)
        else:
            self._h_start_serving(protocol_factory, sock, sslcontext, *args, **options)

    def _h_start_serving(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Any = None,
    ) -> None:
        timeouts = (ssl_handshake_timeout, ssl_shutdown_timeout)
        given: tuple[Any, ...] = () if context is None else (context,)
        arguments = (protocol_factory, sock, sslcontext, server, backlog, *timeouts, *given)
        acceptor = backend.native.ProtocolAcceptor(self, arguments, context)
        self.add_reader(sock.fileno(), acceptor.accept)

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Have *transport* go on in TLS with *protocol*, and return the transport to go on with.

        Where *transport* is headrace's, in plain text or over TLS, that is the same object.

        Args:
            transport: an asyncio.Transport of this loop's.
            protocol: an asyncio.Protocol or BufferedProtocol; its connection_made() is not called.
            sslcontext: an ssl.SSLContext.
            server_side: whether this is the side that accepted the connection.
            server_hostname: the name that a client verifies.
            ssl_handshake_timeout: seconds, 60 by default.
            ssl_shutdown_timeout: seconds, 30 by default.

        Raises: ssl.SSLError, ConnectionError: the handshake failed; TypeError: not a transport, or
        not a context, that it takes; ValueError: a timeout that is not positive.
        Cancellation: the connection is closed.
        """
        if not (
            backend.native is not None
            and backend.native.is_of_loop(transport)
            and backend.native.is_upgradable(transport)
            and isinstance(sslcontext, ssl.SSLContext)
            and not transport.is_closing()
        ):
            return await super().start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
        timeouts = _timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
        session = backend.native.session(
            sslcontext, server_side, server_hostname, backend.native.kind_over(transport)
        )
        early = _early(protocol) if server_side else b""
        await transport.upgrade(protocol, session, early, *timeouts)
        return transport

    def _h_takes(self, sock: Any) -> bool:
        """Tell whether the connection *sock* gets a transport of ours."""
        return (
            OBSTACLE is None
            and not self.get_debug()
            and isinstance(sock, socket.socket)
            and backend.socket_obstacle(sock) is None
            and not _is_portable()
        )


def _is_portable() -> bool:
    """Tell whether the environment leaves all to asyncio."""
    return os.environ.get(backend.VARIABLE) == "portable"


def _timeouts(handshake: float | None, shutdown: float | None) -> tuple[float, float]:
    """Return both timeouts in seconds. Raises: ValueError, in asyncio's words."""
    if handshake is None:
        handshake = constants.SSL_HANDSHAKE_TIMEOUT
    elif handshake <= 0:
        raise ValueError(f"ssl_handshake_timeout should be a positive number, got {handshake}")
    if shutdown is None:
        shutdown = constants.SSL_SHUTDOWN_TIMEOUT
    elif shutdown <= 0:
        raise ValueError(f"ssl_shutdown_timeout should be a positive number, got {shutdown}")
    return handshake, shutdown


def _early(protocol: object) -> bytes:
    """Return, and take, what a client has sent too early and the reader of asyncio's streams has:
    its ClientHello (gh-142352)."""
    reader = getattr(protocol, "_stream_reader", None)
    if not isinstance(protocol, asyncio.StreamReaderProtocol) or reader is None:
        return b""
    early = bytes(reader._buffer)
    reader._buffer.clear()
    return early


def _default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    """Return what ssl=True means. Raises: ValueError on a server."""
    if server_side:
        raise ValueError("Server side SSL needs a valid SSLContext")
    context = ssl.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new EventLoop: a loop_factory for asyncio.Runner, and for asyncio.run() from Python
    3.12 on.

    Raises: OSError where the system has no descriptor for it.
    """
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run *main*, a coroutine, on a new EventLoop, as asyncio.run() does on asyncio's, and return
    what it returns.

    Args:
        main: a coroutine.
        debug: whether the loop is in debug mode; None for what the environment says
            (PYTHONASYNCIODEBUG, python -X dev).

    Raises: what *main* raises; RuntimeError where a loop is running in this thread;
    KeyboardInterrupt after the first Ctrl-C, for which *main* was cancelled.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("headrace.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
