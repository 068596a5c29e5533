"""Server: what start_server() returns. It wraps the server that the loop makes, and behaves as
asyncio's of Python 3.13 everywhere.

The loop's server accepts. Connections are counted here, because loops and versions differ:
wait_closed() of 3.11 and of uvloop returns while connections are open, and close_clients() is new
in 3.13. asyncio's transports say when they come and go; other loops' do not, and a connection there
counts from the making of its protocol until that is told of the end, or is freed.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import base_events
from asyncio.log import logger
from typing import Any

from headrace._streams.factory import ClientConnected, make
from headrace._streams.socketfile import SocketFile
from headrace._transport.base import Backend


class Client(weakref.ref):  # type: ignore[type-arg]
    """One connection as its server knows it: a weak reference to its protocol, so that a dropped
    writer is still noticed.

    The protocol and its transport call the methods. A protocol that dies without them (a handshake
    failed) is no connection any more.
    """

    __slots__ = ("connected", "refused", "server", "shaking")

    server: Server
    connected: bool
    refused: bool
    # The transport while a TLS handshake goes on, where it is ours; a loop keeps its own to itself.
    shaking: asyncio.Transport | None

    def handshake_began(self, transport: asyncio.Transport) -> None:
        """The TLS handshake begins."""
        self.shaking = transport

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The connection is made, TLS included."""
        self.connected = True
        self.shaking = None
        protocol = self()
        if self.refused and protocol is not None:
            # The server does not wait for this connection any more: its handler must not start.
            protocol._client_connected_cb = None
            transport.abort()

    def connection_lost(self, transport: asyncio.Transport) -> None:
        """The connection is lost."""
        self.server._h_leave(self)

    def handshake_failed(self, transport: asyncio.Transport, error: BaseException | None) -> None:
        """The TLS handshake has failed, or was given up."""
        self.shaking = None
        if error is not None:
            self.server._h_count_failure(transport, error)
        self.server._h_leave(self)


def _forget(client: Client) -> None:
    server = client.server
    server._h_clients.discard(client)
    if server._h_closed and not server._loop.is_closed():
        # The collector may have found the protocol from any thread.
        server._loop.call_soon_threadsafe(server._h_wake_if_done)


def _absent(server: object) -> None:
    raise AttributeError("of asyncio's server only")


class Server(base_events.Server):
    """A listening server: an asynchronous context manager that closes it and waits for its
    connections.

    Made by start_server() and start_unix_server(). Closing stops accepting and leaves the
    connections alone; close_clients() and abort_clients() end those too.
    """

    # asyncio's class is there for isinstance(); nothing of it is used, and its initialiser is not
    # called. These helpers of it would work on what this server does not have.
    _wakeup = property(_absent)
    _start_serving = property(_absent)

    def __init__(self, backend: Backend, callback: ClientConnected) -> None:
        self._loop = backend.loop
        self._h_backend = backend
        self._h_callback = callback
        self._h_inner: Any = None
        self._h_backlog = 0
        self._h_file: SocketFile | None = None
        self._h_clients: set[Client] = set()
        # How many transports there are, where the loop's server is asyncio's and says so; else the
        # clients are what is known.
        self._h_transports: int | None = None
        self._h_held = 0
        # Whether a connection in its handshake was given up: its transport lives on, and nobody
        # waits for it.
        self._h_gave_up = False
        self._h_failures = 0
        self._h_closed = False
        self._serving = False
        self._serving_forever_fut: asyncio.Future[None] | None = None
        # None once the server is closed and its last connection gone.
        self._waiters: list[asyncio.Future[None]] | None = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    # ---- what start_server.py and the loop call

    def _h_make_protocol(self) -> Any:
        """Return the protocol of a connection that was accepted just now, and count it from here
        on."""
        protocol: Any = make(self._h_backend, self._h_callback)[1]
        client = Client(protocol, _forget)
        client.server = self
        client.connected = client.refused = False
        client.shaking = None
        if self._waiters is None:
            client.refused = True
        else:
            self._h_clients.add(client)
        protocol._h_server = client
        return protocol

    def _h_adopt(self, inner: Any, backlog: int, file: SocketFile | None = None) -> None:
        """Take over *inner*, what listen() of the backend returned, and the *file* to remove at the
        end."""
        self._h_inner = inner
        self._h_backlog = backlog
        self._h_file = file
        if isinstance(inner, base_events.Server):
            # Its own _attach() fails an assertion, and drops the connection, where close() comes
            # between accept() and the transport (gh-109564). It is called with the transport from
            # Python 3.13 on.
            self._h_transports = 0
            inner._attach = self._attach  # type: ignore[attr-defined]
            inner._detach = self._detach  # type: ignore[attr-defined]

    def _attach(self, *transport: object) -> None:
        # Called by asyncio's transports; where there are none, by programs that hold the server
        # open.
        if self._h_transports is None:
            self._h_held += 1
        else:
            self._h_transports += 1

    def _detach(self, *transport: object) -> None:
        if self._h_transports is None:
            self._h_held -= 1
        else:
            self._h_transports -= 1
        self._h_wake_if_done()

    def _h_leave(self, client: Client) -> None:
        self._h_clients.discard(client)
        self._h_wake_if_done()

    def _h_count_failure(self, transport: asyncio.Transport, error: BaseException) -> None:
        self._h_failures += 1
        if self._h_failures == 1:
            # Once, and no traceback: whoever scans ports would fill the log.
            peer = transport.get_extra_info("peername")
            why = " ".join([str(error), *(f"({note})" for note in getattr(error, "__notes__", ()))])
            logger.warning(
                "%r: a TLS handshake with %r failed: %s; further ones are only counted "
                "(handshake_failures)",
                self,
                peer,
                why,
            )

    def _h_wake_if_done(self) -> None:
        if self._waiters is None or not self._h_closed or self._h_busy():
            return
        waiters, self._waiters = self._waiters, None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _h_busy(self) -> bool:
        """Tell whether there are connections."""
        if self._h_transports is None or self._h_gave_up:
            return bool(self._h_clients) or self._h_held > 0
        return self._h_transports > 0

    # ---- asyncio's surface

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the server belongs to."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether the server accepts connections."""
        return self._serving

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, for looking at: asyncio's TransportSocket or uvloop's; () once the
        server is closed."""
        return () if self._h_closed or self._h_inner is None else tuple(self._h_inner.sockets)

    @property
    def _sockets(self) -> list[Any] | None:
        return None if self._h_closed else list(self.sockets)

    @property
    def handshake_failures(self) -> int:
        """How many TLS handshakes have failed; the first is logged. On the portable way loops keep
        them to themselves, and this is 0."""
        return self._h_failures

    async def start_serving(self) -> None:
        """Start accepting; does nothing where it has been started.

        Raises: RuntimeError where the server is closed; OSError where the system refuses to listen.
        Cancellation: it may accept already; close() ends that.
        """
        self._h_check_open()
        await self._h_start()

    async def _h_start(self) -> None:
        if self._serving:
            return
        self._serving = True
        try:
            await self._h_backend.start_serving(self._h_inner, self._h_backlog)
        except Exception:
            self._serving = False
            raise

    def _h_check_open(self) -> None:
        if self._h_closed:
            raise RuntimeError(f"server {self!r} is closed")

    async def serve_forever(self) -> None:
        """Accept until cancelled or closed, then wait for the connections.

        Raises: RuntimeError where the server is closed or somebody serves already;
        asyncio.CancelledError at the end, also when it came by close().
        Cancellation: closes the server and, as from Python 3.14 on, its connections, as
        close_clients() does: an idle client would keep it waiting for ever. close() leaves them
        alone.
        """
        if self._serving_forever_fut is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._h_check_open()
        forever = self._serving_forever_fut = self._loop.create_future()
        try:
            await self._h_start()
            await forever
        except asyncio.CancelledError:
            task = asyncio.current_task()
            cancelled = not self._h_closed or (task is not None and task.cancelling() > 0)
            try:
                self.close()
                if cancelled:
                    self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever_fut = None

    def close(self) -> None:
        """Stop listening, at once; open connections go on. Closing twice is allowed."""
        if self._h_closed:
            return
        self._h_closed = True
        self._serving = False
        if self._h_inner is not None:
            self._h_inner.close()
        if self._h_file is not None:
            self._h_file.remove()
        forever = self._serving_forever_fut
        if forever is not None and not forever.done():
            forever.cancel()
            self._serving_forever_fut = None
        self._h_wake_if_done()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and the last of its connections is gone, in whichever
        order.

        It closes nothing: an idle client keeps it waiting for ever, unless close_clients() or
        abort_clients() ends it.

        Raises: nothing. Cancellation: safe; the connections go on.
        """
        if self._waiters is None:
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._waiters is not None:
                self._waiters.remove(waiter)

    def close_clients(self) -> None:
        """Close every connection after what was written to it, as its writer's close() does."""
        for protocol in self._h_connected():
            protocol._h_close()

    def abort_clients(self) -> None:
        """Close every connection at once, and forget what has not been sent."""
        for protocol in self._h_connected():
            transport = protocol._transport
            if transport is not None:
                transport.abort()

    def _h_connected(self) -> list[Any]:
        """Return the protocols of the connections that are made; those in a TLS handshake are
        ended.

        Where the transport is not ours, the loop keeps it to itself until the handshake is over, or
        has taken too long: such a connection is refused then.
        """
        found = []
        for client in tuple(self._h_clients):
            protocol = client()
            if client.connected and protocol is not None:
                found.append(protocol)
            elif client.shaking is not None:
                client.refused = True
                client.shaking.abort()
            else:
                client.refused = self._h_gave_up = True
                self._h_leave(client)
        return found
