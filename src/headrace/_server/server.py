"""StreamServer: what serve() makes: the life of its connections, from admission to the end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import socket
import ssl as ssl_module
from asyncio import trsock
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from headrace._server.admission import Gate, Networks, Peers
from headrace._server.certificates import Certificates
from headrace._server.config import Limits
from headrace._server.connection import Connection
from headrace._server.endpoints import Endpoint
from headrace._server.monitor import Monitor
from headrace._server.negotiation import cause_of, is_a_check, is_over, read_proxy_header, secure
from headrace._server.process.signals import Signals
from headrace._server.shutdown import Shutdown, ShutdownReport
from headrace._server.statistics import Statistics
from headrace._streams.factory import make
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.acceptor import Acceptor
from headrace._transport.backend import for_loop, linger
from headrace._transport.base import Backend, Way
from headrace._transport.stepper import stepper_of

logger = logging.getLogger("headrace.server")

# How long max_connections must not have been reached for the next time to be worth a warning, in
# seconds.
FULL_SECONDS = 60.0

Handler = Callable[[StreamReader, StreamWriter], Awaitable[object]]
OnError = Callable[[Connection, Exception], object]


@dataclass(frozen=True)
class Options:
    """What serve() was given, checked."""

    # None: where it listens.
    name: str | None
    limit: int
    limits: Limits
    ssl: ssl_module.SSLContext | Certificates | None = None
    shutdown_timeout: float | None = None
    proxies: Networks = field(default_factory=lambda: Networks(()))
    refusal: bytes | None = None
    grace: float = 30.0
    on_error: OnError | None = None
    backlog: int = 4096
    way: Way | None = None


class StreamServer:
    """A server over streams: an asynchronous context manager that begins to accept, and is shut
    down at the end. Made by serve()."""

    def __init__(self, handler: Handler, endpoints: Sequence[Endpoint], options: Options) -> None:
        self._connections: set[Connection] = set()
        self._draining = asyncio.Event()
        self._signals = Signals(self)
        self._handler = handler
        self._endpoints = endpoints
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: Shutdown | None = None
        self._stopped: asyncio.Task[ShutdownReport] | None = None
        self._drain_seconds: float | None = None
        self._began = 0.0
        # When max_connections was reached last, in the loop's seconds.
        self._full_at = -math.inf
        self._context = contextvars.Context()
        self._numbers = self._left = self._negotiating = self._handled = 0
        self._received = self._sent = 0
        self._errors: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<StreamServer {self.name} with {len(self.connections)} connections>"

    @property
    def name(self) -> str:
        """What logs and metrics call the server: name= of serve(), or else where it listens, from
        the start on with the bound port."""
        return self._options.name or self._endpoints[0].name

    @property
    def connections(self) -> set[Connection]:
        """Every Connection that is open, those that are turned away or in their handshake among
        them; for looking at."""
        return self._connections

    @property
    def draining(self) -> asyncio.Event:
        """An asyncio.Event that is set when the server begins to shut down: handlers look
        (``draining.is_set()``), or wait for it."""
        return self._draining

    # ---- the life of the server

    async def __aenter__(self) -> StreamServer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Whoever leaves by an error, or is cancelled, does not want to wait.
        await self.shutdown(None if error is None else 0)

    async def start(self) -> None:
        """Bind, listen, and accept from now on; `async with` does it.

        Raises: OSError where an address is taken or forbidden; RuntimeError where the server was
        started before.
        """
        if self._loop is not None:
            raise RuntimeError(f"{self!r} was started before: a server runs once")
        loop = self._loop = asyncio.get_running_loop()
        self._signals.start()
        options = self._options
        self._gate = Gate(loop, options.limits)
        self._peers = Peers(options.limits.max_connections_per_peer or 0)
        self._monitor = Monitor(self, options.limits, self._end)
        found: list[socket.socket] = []
        try:
            for endpoint in self._endpoints:
                bound = await endpoint.sockets(loop)
                found += bound
                for sock in bound:
                    self._gate.acceptors.append(await self._acceptor(sock))
            for acceptor in self._gate.acceptors:
                acceptor.listen(options.backlog)
        except BaseException:
            self._gate.abandon()
            for sock in found:
                sock.close()
            self._close_endpoints()
            self._signals.stop()
            raise
        self._began = loop.time()
        self._monitor.start()
        self._signals.accepts()

    async def _acceptor(self, sock: socket.socket) -> Acceptor:
        """Return what accepts from *sock*, a bound socket."""
        loop, options = self.get_loop(), self._options
        backend = await for_loop(loop, options.limit, sock=sock, way=options.way)
        return backend.acceptor(sock, functools.partial(self._make_protocol, backend))

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the server was started in. Raises: RuntimeError before
        that."""
        if self._loop is None:
            raise RuntimeError(f"{self!r} was not started")
        return self._loop

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """The listening sockets, for looking at; () before the start and once the server is shut
        down."""
        return (
            ()
            if self._loop is None
            else tuple(trsock.TransportSocket(each.sock) for each in self._gate.acceptors)
        )

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the workers that accept; () without workers."""
        return ()

    async def serve_forever(self) -> ShutdownReport:
        """Serve until SIGTERM or SIGINT, or until somebody calls shutdown(); return how that went.

        The first signal lets connections finish, for as long as the grace of serve(); a second one
        cancels their handlers, a third cuts them off. SIGHUP does what renew() does; it does so
        from the start of the server on, unless the program has taken it. In another thread than the
        main one there are no signals. Service managers that ask for it are told when the server is
        ready, and when it stops (sd_notify(3)). Cancellation: the server is shut down without a
        grace, then it is raised.
        """
        signals = self._signals
        try:
            signals.install()
            await self.draining.wait()
            signals.say_stopping()
            return await self.shutdown()
        except asyncio.CancelledError:
            signals.say_stopping()
            await self.shutdown(0)
            raise
        finally:
            signals.remove()

    async def shutdown(self, grace: float | None = None) -> ShutdownReport:
        """Stop accepting, and bring all connections to their end; return how many ended how.

        Connections that wait in the system's queue are still accepted, as soon as the bounds of
        serve() have room for them. The event ``draining`` tells handlers. They have *grace* seconds
        to finish (default: the grace of serve()); then they are cancelled, and after two more
        seconds cut off. What a handler has written is sent if it returns or is cancelled. Called
        again, it waits for the same shutdown, and a smaller *grace* hurries it. A handler that
        waits for it waits for itself, for the whole grace: it starts a task for that. Cancellation:
        safe; the shutdown goes on.
        """
        return await asyncio.shield(self._begin_shutdown(grace))

    def _begin_shutdown(self, grace: float | None = None) -> asyncio.Task[ShutdownReport]:
        if self._stopping is None or self._stopped is None:
            self._stopping = Shutdown(self, self._options.grace if grace is None else grace)
            self.draining.set()
            # Never eagerly: what it accepts may call shutdown() there and then.
            self._stopped = asyncio.Task(self._stop(self._stopping), loop=self.get_loop())
        elif grace is not None:
            self._stopping.hurry(grace)
        return self._stopped

    def _hurry(self) -> None:
        """Go on with the shutdown: from waiting for handlers to cancelling them, from that to
        cutting them off."""
        if self._stopping is not None:
            self._stopping.skip()

    async def _stop(self, stopping: Shutdown) -> ShutdownReport:
        await self._gate.close()
        self._close_endpoints()
        report = await stopping.run()
        self._monitor.stop()
        self._signals.stop()
        self._drain_seconds = report.seconds
        logger.info("%s: shut down: %s", self.name, report, extra={"server": self.name})
        return report

    async def renew(self) -> None:
        """Read the certificates again, for new connections; what SIGHUP does in serve_forever().

        With workers: replace them one after another by new processes, which read the program and
        the certificates anew; the old ones stop accepting when the new ones do it, and finish their
        connections. Raises: what Certificates.reload() does, or RuntimeError where a new worker
        does not start; what was not renewed yet stays as it was.
        """
        if isinstance(self._options.ssl, Certificates):
            self._options.ssl.reload()
            logger.info(
                "%s: the certificates were read again", self.name, extra={"server": self.name}
            )

    def _close_endpoints(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()

    def statistics(self) -> Statistics:
        """Return what the server has done so far."""
        buffered, received, sent = 0, self._received, self._sent
        for connection in self.connections:
            if connection._lost:  # counted already
                continue
            came, unread, _, written, unsent = connection._figures()
            buffered += unread + unsent
            received += came
            sent += written - unsent
        return Statistics(
            uptime=self.get_loop().time() - self._began,
            open=len(self.connections),
            max_connections=self._options.limits.max_connections,
            accepting=not self._gate.reasons and not self.draining.is_set(),
            negotiating=self._negotiating,
            buffered_bytes=buffered,
            draining=self.draining.is_set(),
            accepted=self._numbers,
            refused=dict(self._refused),
            ended=dict(self._ended),
            failed=dict(self._failed),
            handled=self._handled,
            errors=dict(self._errors),
            received_bytes=received,
            sent_bytes=sent,
            drain_seconds=self._drain_seconds,
        )

    # ---- the life of a connection

    def _make_protocol(self, backend: Backend, peername: Any = None) -> Any:
        """Return the protocol of a connection that was accepted just now, from *peername*, unless
        its transport says that later."""
        self._numbers += 1
        connection = Connection(self, self._numbers)
        connection._peername = peername
        self.connections.add(connection)
        self._gate.count()
        most = self._options.limits.max_connections
        if most is not None and len(self.connections) >= most:
            if self._options.refusal is None:
                # This one is the last that fits, and is welcome.
                self._gate.hold("full")
                self._say_full("accepting none until one ends")
            elif len(self.connections) > most:
                connection._ended = "full"
                self._say_full("refusing further ones until one ends")
        protocol: Any = make(backend, self._connected)[1]
        protocol._h_server = connection
        return protocol

    def _say_full(self, consequence: str) -> None:
        """Warn that max_connections is reached: once, and again only where that was over for a
        while."""
        now = self.get_loop().time()
        if now - self._full_at >= FULL_SECONDS:
            logger.warning(
                "%s: %d connections are open: %s",
                self.name,
                len(self.connections),
                consequence,
                extra={"server": self.name},
            )
        self._full_at = now

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Admit the connection, or turn it away."""
        protocol: Any = writer._protocol
        connection: Connection = protocol._h_server
        connection._begin(reader, writer)
        if logger.isEnabledFor(logging.DEBUG):
            self._report(logging.DEBUG, connection, "from %r", connection.peername)
        if connection._ended == "full":
            self._refuse(connection, "full")
        elif connection._ended is not None:
            # By a shutdown that has overtaken it.
            writer.transport.abort()
        elif self._options.proxies and connection.peername in self._options.proxies:
            # Whom it counts for, the proxy is about to say.
            self._negotiate(connection, reader, writer, proxied=True)
        elif not self._admit(connection):
            self._refuse(connection, "peer")
        elif self._options.ssl is not None:
            self._negotiate(connection, reader, writer, proxied=False)
        else:
            self._handle(connection)

    def _admit(self, connection: Connection) -> bool:
        if self._options.limits.max_connections_per_peer is None:
            return True
        admitted, connection._key = self._peers.admit(connection.peername)
        return admitted

    def _refuse(self, connection: Connection, reason: str) -> None:
        """Turn the connection away: say so where TLS does not come first, and close it."""
        self._refused[reason] += 1
        writer = connection._writer
        assert writer is not None
        if self._options.refusal and (
            self._options.ssl is None or writer.get_extra_info("sslcontext") is not None
        ):
            writer.write(self._options.refusal)
            linger(writer.transport)
        connection._ended = "refused"
        writer.close()

    def _negotiate(
        self, connection: Connection, reader: StreamReader, writer: StreamWriter, proxied: bool
    ) -> None:
        self._negotiating += 1
        task = connection._task = self.get_loop().create_task(
            self._do_negotiate(connection, reader, writer, proxied)
        )
        task.add_done_callback(lambda task: self._negotiated(connection, task))

    async def _do_negotiate(
        self, connection: Connection, reader: StreamReader, writer: StreamWriter, proxied: bool
    ) -> str:
        """Read the PROXY header, then do the handshake; return what comes of it: "admitted",
        "peer", refused for that, or "check"."""
        async with asyncio.timeout(self._options.limits.handshake_timeout):
            if proxied:
                header = connection.proxy = await read_proxy_header(reader)
                if header.local and await is_over(reader):
                    return "check"
                extra: dict[str, Any] = {"proxy": header}
                writer._h_know(extra)
                if header.source is not None:
                    extra |= {"peername": header.source, "sockname": header.destination}
                    connection._peername = header.source
                    # (Of a client whom the proxy does not know, nothing can be counted.)
                    if not self._admit(connection):
                        return "peer"
            context = self._options.ssl
            if context is not None:
                context = context.context if isinstance(context, Certificates) else context
                below = writer.transport
                await secure(reader, writer, context, self._options.shutdown_timeout, proxied)
                connection._below = None if writer.transport is below else below
                if (
                    connection.proxy is not None
                    and connection.proxy.local
                    and await is_over(reader)
                ):
                    return "check"
        return "admitted"

    def _negotiated(self, connection: Connection, task: asyncio.Task[str]) -> None:
        self._negotiating -= 1
        connection._task = None
        if task.cancelled():
            connection._abort(ConnectionAbortedError("the server has been shut down"))
        elif (error := task.exception()) is not None and is_a_check(connection.proxy, error):
            connection._abort(error)
        elif error is not None:
            cause = cause_of(error)
            self._failed[cause] += 1
            self._report(
                logging.INFO,
                connection,
                "the negotiation with %r failed (%s): %s",
                connection.peername,
                cause,
                error,
            )
            connection._abort(error)
        elif task.result() == "check":
            # Of a proxy that looks whether somebody is here: it counts as nothing.
            assert connection._writer is not None
            connection._writer.close()
        elif task.result() == "peer":
            self._refuse(connection, "peer")
        elif self._stopping is not None and self._stopping.is_cancelling:
            connection._abort(ConnectionAbortedError("the server has been shut down"))
        elif not connection._lost and connection._ended is None:
            assert connection._writer is not None
            received, unread, *_ = connection._writer._h_figures()
            connection._base = received - unread
            self._handle(connection)
        self._leave_if_over(connection)

    def _handle(self, connection: Connection) -> None:
        """Start the handler."""
        loop = self.get_loop()
        connection._handled = True
        connection._since = loop.time()
        try:
            # they are there
            result: Any = self._handler(connection._reader, connection._writer)  # type: ignore[arg-type]
            task: Any = (
                stepper_of(loop).start(result)
                if asyncio.iscoroutine(result)
                else asyncio.ensure_future(result, loop=loop)
            )
        except Exception as error:
            self._handler_failed(connection, error)
            self._finish(connection)
            return
        connection._task = task
        # The callback needs no context, and a copy of this one would be kept for it.
        task.add_done_callback(connection._h_handled, context=self._context)

    def _handler_done(self, connection: Connection, task: asyncio.Task[object]) -> None:
        connection._task = None
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self._handler_failed(connection, error)
        self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        """Close the connection after what its handler has written."""
        self._handled += 1
        assert connection._writer is not None
        if not connection._lost:
            # Who has not said all may still be sending.
            linger(connection._writer.transport)
        connection._writer.close()
        self._leave_if_over(connection)

    def _handler_failed(self, connection: Connection, error: Exception) -> None:
        """Log what a handler raised, count it where that was its own fault, and tell who wants to
        know."""
        if (
            connection._ended is not None
            and connection._reader is not None
            and error is connection._reader.exception()
        ):
            # It was told so, and that was logged.
            self._report(
                logging.DEBUG,
                connection,
                "the handler for %r ended: %s",
                connection.peername,
                error,
            )
        elif _is_the_peers(connection, error):
            self._report(
                logging.INFO, connection, "%r broke the connection: %r", connection.peername, error
            )
        else:
            self._errors[type(error).__name__] += 1
            self._report(
                logging.ERROR,
                connection,
                "the handler for %r failed",
                connection.peername,
                error=error,
            )
        if self._options.on_error is not None:
            try:
                connection._run(self._options.on_error, connection, error)
            except Exception as failure:
                self._report(
                    logging.ERROR,
                    connection,
                    "on_error() failed for %r",
                    connection.peername,
                    error=failure,
                )

    def _report(
        self,
        level: int,
        connection: Connection,
        message: str,
        *arguments: object,
        error: BaseException | None = None,
    ) -> None:
        extra = {"server": self.name, "connection": connection.id, "peer": connection.peername}
        logger.log(
            level,
            "%s: connection %d: " + message,
            self.name,
            connection.id,
            *arguments,
            exc_info=error,
            extra=extra,
        )

    def _lost(self, connection: Connection) -> None:
        """The transport is gone."""
        received, _, _, written, unsent = connection._figures()
        self._received += received
        self._sent += written - unsent
        connection._lost = True
        self._leave_if_over(connection)

    def _leave_if_over(self, connection: Connection) -> None:
        if (
            not connection._lost
            or connection._task is not None
            or connection not in self.connections
        ):
            return
        if logger.isEnabledFor(logging.DEBUG):
            received, _, _, written, unsent = connection._figures()
            what = "from %r is over: %d bytes came, %d went"
            self._report(
                logging.DEBUG, connection, what, connection.peername, received, written - unsent
            )
        self.connections.remove(connection)
        self._left += 1
        self._peers.leave(connection._key)
        most = self._options.limits.max_connections
        if most is None or len(self.connections) < most:
            self._gate.release("full")
        if self._stopping is not None and self._is_empty():
            self._stopping.emptied()

    def _is_empty(self) -> bool:
        """Tell whether nobody is here, and nobody may come in."""
        return not self.connections and not self._gate.waiting

    def _give_up(self) -> int:
        """Let nobody in any more; return how many connections still waited for that."""
        count = self._gate.give_up()
        if count:
            self._ended["shutdown"] += count
            logger.info(
                "%s: %d connections found no room before the shutdown",
                self.name,
                count,
                extra={"server": self.name},
            )
        return count

    # ---- what the monitor and a shutdown call

    def _end(self, connection: Connection, reason: str, text: str) -> None:
        """End the connection at once, and have the handler told why."""
        if connection._ended is None:
            self._ended[reason] += 1
            self._report(
                logging.INFO, connection, "with %r is ended: %s", connection.peername, text
            )
        connection._ended = reason
        connection._abort(ConnectionAbortedError(f"the server has ended the connection: {text}"))
        if reason == "shutdown" and connection._task is not None:
            connection._task.cancel()

    def _cancel(self, connection: Connection) -> None:
        """Cancel the handler; what it has written is still sent."""
        if connection._task is not None:
            connection._task.cancel()


def _is_the_peers(connection: Connection, error: Exception) -> bool:
    """Tell whether the peer has caused *error*, and not, say, a database that the handler has to do
    with."""
    reader = connection._reader
    assert reader is not None
    if isinstance(error, ExceptionGroup):
        return all(_is_the_peers(connection, each) for each in error.exceptions)
    if isinstance(error, asyncio.IncompleteReadError):
        return reader.at_eof()
    return error is reader.exception() or (
        connection._lost and isinstance(error, (ConnectionError, ssl_module.SSLError))
    )
