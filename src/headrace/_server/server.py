"""LocalServer: the StreamServer whose connections are served in this process.

It puts the parts together: acceptors make connections, which are admitted, negotiated and handled,
looked at by the monitor, and brought to their end by a shutdown.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from asyncio import trsock
from collections.abc import Coroutine, Sequence, Set
from typing import Any

from headrace._server.admission import Admission
from headrace._server.config import RefuseReason
from headrace._server.connection import Connection
from headrace._server.endpoints import Endpoint
from headrace._server.handlers import Handlers
from headrace._server.listeners import Listeners
from headrace._server.monitor import Monitor
from headrace._server.negotiation import Outcome, cause_of, is_a_check, negotiate
from headrace._server.options import Handler, Options
from headrace._server.registry import Registry
from headrace._server.session import Phase, Session
from headrace._server.shutdown import Shutdown, ShutdownReport, Stage
from headrace._server.statistics import Statistics
from headrace._server.stream_server import StreamServer
from headrace._streams.factory import make
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.acceptor import Acceptor, LoopAcceptor
from headrace._transport.backend import for_loop
from headrace._transport.base import Backend

SHUT_DOWN = "the server has been shut down"


class LocalServer(StreamServer):
    """The life of a server's connections, from admission to the end."""

    def __init__(self, handler: Handler, endpoints: Sequence[Endpoint], options: Options) -> None:
        super().__init__(endpoints, options)
        self._handler = handler
        self._registry = Registry(self._log, self._left)
        self._stopping: Shutdown | None = None

    def __repr__(self) -> str:
        return f"<StreamServer {self.name} with {len(self.connections)} connections>"

    @property
    def connections(self) -> Set[Connection]:
        """See StreamServer."""
        return self._registry.open

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """See StreamServer."""
        if self._loop is None:
            return ()
        return tuple(trsock.TransportSocket(each.sock) for each in self._listeners.acceptors)

    def statistics(self) -> Statistics:
        """See StreamServer."""
        draining = self.draining.is_set()
        return self._registry.statistics(
            uptime=self.get_loop().time() - self._began,
            max_connections=self._options.limits.max_connections,
            accepting=not self._listeners.reasons and not draining,
            draining=draining,
            drain_seconds=self._drain_seconds,
        )

    # ---- the life of the server

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        options, registry, log = self._options, self._registry, self._log
        limits = options.limits
        listeners = self._listeners = Listeners(loop, limits.accept_rate)
        refuses = options.refusal is not None
        self._admission = Admission(loop, registry, listeners, limits, refuses, log)
        self._handlers = Handlers(loop, registry, self._handler, options.on_error, log)
        self._monitor = Monitor(loop, registry, listeners, limits)
        found: list[socket.socket] = []
        try:
            for endpoint in self._endpoints:
                bound = await endpoint.sockets(loop)
                found += bound
                for sock in bound:
                    listeners.acceptors.append(await self._acceptor(sock))
            for acceptor in listeners.acceptors:
                acceptor.listen(options.backlog)
        except BaseException:
            listeners.abandon()
            for sock in found:
                sock.close()
            self._close_endpoints()
            raise
        self._monitor.start()

    async def _acceptor(self, sock: socket.socket) -> Acceptor:
        """Return what accepts from *sock*, a bound socket."""
        options, loop = self._options, self.get_loop()
        if options.max_fds:
            # Its transport is none of the loop's; the protocol is that of any.
            backend = await for_loop(loop, options.limit, way="portable")
            factory = functools.partial(self._make_protocol, backend)
            connect = functools.partial(connect_for_descriptors, loop, options.max_fds)
            return LoopAcceptor(loop, sock, factory, connect)
        backend = await for_loop(loop, options.limit, sock=sock, way=options.way)
        return backend.acceptor(sock, functools.partial(self._make_protocol, backend))

    def _end(self, grace: float) -> Coroutine[Any, Any, ShutdownReport]:
        stopping = self._stopping = Shutdown(
            self.get_loop(), self._registry, self._listeners, self._log, grace
        )
        return self._stop(stopping)

    async def _stop(self, stopping: Shutdown) -> ShutdownReport:
        await self._listeners.close()
        self._close_endpoints()
        report = await stopping.run()
        self._monitor.stop()
        return report

    def _hurry_to(self, grace: float) -> None:
        if self._stopping is not None:
            self._stopping.hurry(grace)

    def _hurry(self) -> None:
        if self._stopping is not None:
            self._stopping.skip()

    # ---- the life of a connection

    def _make_protocol(self, backend: Backend, peername: Any = None) -> Any:
        """Return the protocol of a connection that was accepted just now, from *peername*, unless
        its transport says that later."""
        session = self._registry.add(self, peername)
        self._admission.accepted(session)
        protocol: Any = make(backend, self._connected)[1]
        protocol._h_server = session
        return protocol

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Admit the connection, or turn it away."""
        protocol: Any = writer._protocol
        session: Session = protocol._h_server
        session.begin(reader, writer, self._options.trace)
        if self._log.wants(logging.DEBUG):
            self._log.say_of(session, logging.DEBUG, "from %r", session.peername)
        if session.refused is not None:
            self._refuse(session, session.refused)
        elif session.ended is not None:
            # By a shutdown that has overtaken it.
            session.turn_away(ConnectionAbortedError(SHUT_DOWN))
            writer.transport.abort()
        elif self._options.proxies and session.peername in self._options.proxies:
            # Whom it counts for, the proxy is about to say.
            self._negotiate(session, proxied=True)
        elif not self._admission.admit_peer(session):
            self._refuse(session, RefuseReason.PEER)
        elif self._options.ssl is not None:
            self._negotiate(session, proxied=False)
        else:
            self._handlers.start(session)

    def _refuse(self, session: Session, reason: RefuseReason) -> None:
        """Turn the connection away: say so where TLS does not come first, and close it."""
        session.refused = reason
        session.turn_away(ConnectionRefusedError(f"there are too many connections: {reason}"))
        self._registry.refused[reason] += 1
        refusal, writer = self._options.refusal, session.writer
        assert writer is not None
        in_clear = self._options.ssl is None or writer.get_extra_info("sslcontext") is not None
        if refusal and in_clear:
            writer.write(refusal)
            session.close(lingering=True)
        else:
            session.close()

    def _negotiate(self, session: Session, proxied: bool) -> None:
        session.move(Phase.NEGOTIATING)
        task = session.task = self.get_loop().create_task(
            negotiate(session, proxied, self._options, self._admission.admit_peer)
        )
        task.add_done_callback(lambda task: self._negotiated(session, task))

    def _negotiated(self, session: Session, task: asyncio.Task[Outcome]) -> None:
        session.task = None
        shut_down = self._stopping is not None and self._stopping.stage >= Stage.CANCEL
        if not task.cancelled() and (error := task.exception()) is not None:
            self._not_negotiated(session, error)
        elif task.cancelled() or (shut_down and task.result() is Outcome.ADMITTED):
            error = ConnectionAbortedError(SHUT_DOWN)
            session.turn_away(error)
            session.abort(error)
        elif task.result() is Outcome.TOO_MANY:
            self._refuse(session, RefuseReason.PEER)
        elif task.result() is Outcome.CHECK:
            # A proxy looked whether the server is there: that counts as nothing.
            session.turn_away(None)
            session.close()
        elif session.lost or session.ended is not None:
            assert session.reader is not None
            session.turn_away(session.reader.exception() or ConnectionResetError("Connection lost"))
        else:
            assert session.writer is not None
            received, unread, *_ = session.writer._h_figures()
            session.base = received - unread
            self._handlers.start(session)
        self._registry.settle(session)

    def _not_negotiated(self, session: Session, error: BaseException) -> None:
        """Count why the negotiation failed, and end the connection."""
        if is_a_check(session.proxy, error):
            session.turn_away(None)
        else:
            session.turn_away(error)
            cause = cause_of(error)
            self._registry.failed[cause] += 1
            self._log.say_of(
                session,
                logging.INFO,
                "the negotiation with %r failed (%s): %s",
                session.peername,
                cause,
                error,
            )
        session.abort(error)

    def _left(self, session: Session) -> None:
        """*session* is over."""
        self._monitor.forget(session)
        self._admission.left(session)
        if self._stopping is not None:
            self._stopping.connection_left()


async def connect_for_descriptors(
    loop: asyncio.AbstractEventLoop, most: int, protocol: Any, sock: socket.socket
) -> None:
    """Connect *protocol* to *sock*, a Unix socket that was accepted, by a transport for as many as
    *most* descriptors.

    Raises: OSError. Cancellation: it does not wait.
    """
    from headrace._duplex.descriptors import DescriptorTransport

    DescriptorTransport(loop, sock, protocol, most)
