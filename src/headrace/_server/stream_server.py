"""StreamServer: what serve() returns, as its users know it."""

from __future__ import annotations

import abc
import asyncio
import logging
from asyncio import trsock
from collections.abc import Coroutine, Sequence, Set
from types import TracebackType
from typing import Any

from headrace._server.certificates import Certificates
from headrace._server.connection import Connection
from headrace._server.endpoints import Endpoint
from headrace._server.log import Log
from headrace._server.options import Options
from headrace._server.process.signals import Signals
from headrace._server.shutdown import ShutdownReport
from headrace._server.statistics import Statistics


class StreamServer(metaclass=abc.ABCMeta):
    """A server over streams: an asynchronous context manager that begins to accept, and is shut
    down at the end. Made by serve()."""

    def __init__(self, endpoints: Sequence[Endpoint], options: Options) -> None:
        self._endpoints = endpoints
        self._options = options
        self._log = Log(lambda: self.name)
        self._signals = Signals(self, self._begin_shutdown, self._hurry, self._log)
        self._loop: asyncio.AbstractEventLoop | None = None
        # When it had started, in the loop's seconds; 0.0 before.
        self._began = 0.0
        self._draining = asyncio.Event()
        self._stopped: asyncio.Task[ShutdownReport] | None = None
        # How long the shutdown took.
        self._drain_seconds: float | None = None

    @property
    def name(self) -> str:
        """What logs and metrics call the server: name= of serve(), or else where it listens, from
        the start on with the bound port."""
        return self._options.name or self._endpoints[0].name

    @property
    @abc.abstractmethod
    def connections(self) -> Set[Connection]:
        """Every Connection that is open, those that are turned away or in their handshake among
        them; for looking at. With workers there are none: they are in other processes."""

    @property
    def draining(self) -> asyncio.Event:
        """An asyncio.Event that is set when the server begins to shut down: handlers look
        (``draining.is_set()``), or wait for it."""
        return self._draining

    @property
    @abc.abstractmethod
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """The listening sockets, for looking at, of each port one; () before the start and once
        the server is shut down."""

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the workers that accept; () without workers."""
        return ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the server was started in. Raises: RuntimeError before
        that."""
        if self._loop is None:
            raise RuntimeError(f"{self!r} was not started")
        return self._loop

    @abc.abstractmethod
    def statistics(self) -> Statistics:
        """Return what the server has done so far. With workers it is what they told a second ago at
        most; one that crashed has told no end."""

    # ---- the beginning

    async def __aenter__(self) -> StreamServer:
        await self.start()
        return self

    async def start(self) -> None:
        """Bind, listen, and accept from now on; `async with` does it. With workers: return when all
        of them accept.

        Raises: OSError where an address is taken or forbidden; RuntimeError where the server was
        started before, or a worker does not start; TypeError where handler, certificates or
        on_error cannot be sent to a worker: they have to be importable by name. Cancellation: safe;
        nothing is left listening.
        """
        if self._loop is not None:
            raise RuntimeError(f"{self!r} was started before: a server runs once")
        self._loop = asyncio.get_running_loop()
        self._signals.start()
        try:
            await self._open(self._loop)
        except BaseException:
            self._signals.stop()
            raise
        self._began = self._loop.time()
        self._signals.accepts()

    @abc.abstractmethod
    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind, and accept from now on; leave nothing behind where that fails."""

    # ---- while it runs

    async def serve_forever(self) -> ShutdownReport:
        """Serve until SIGTERM or SIGINT, or until somebody calls shutdown(); return how that went.

        The first signal lets connections finish, for as long as the grace of serve(); a second one
        cancels their handlers, a third cuts them off. SIGHUP does what renew() does; it does so
        from the start of the server on, unless the program has taken it. In another thread than the
        main one there are no signals. Service managers that ask for it are told when the server is
        ready, and when it stops (sd_notify(3)).

        Raises: RuntimeError where the server was not started. Cancellation: the server is shut down
        without a grace, then it is raised.
        """
        signals = self._signals
        self.get_loop()  # Nothing would end the wait of a server that was not started.
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

    async def renew(self) -> None:
        """Read the certificates again, for new connections; what SIGHUP does in serve_forever().

        With workers: replace them one after another by new processes, which read the program and
        the certificates anew; the old ones stop accepting when the new ones do it, and finish their
        connections.

        Raises: what Certificates.reload() does, or RuntimeError where a new worker does not start;
        what was not renewed yet stays as it was. Cancellation: safe, likewise.
        """
        if isinstance(self._options.ssl, Certificates):
            self._options.ssl.reload()
            self._log.say(logging.INFO, "the certificates were read again")

    # ---- the end

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A block that is left by an error, or cancelled, does not want to wait.
        await self.shutdown(None if error is None else 0)

    async def shutdown(self, grace: float | None = None) -> ShutdownReport:
        """Stop accepting, and bring all connections to their end; return how many ended how.

        Connections that wait in the system's queue are still accepted, as soon as the bounds of
        serve() have room for them. The event ``draining`` tells handlers. They have *grace* seconds
        to finish (default: the grace of serve()); then they are cancelled, and after two more
        seconds cut off. What a handler has written is sent if it returns or is cancelled. Called
        again, it waits for the same shutdown, and a smaller *grace* hurries it. A handler that
        waits for it waits for itself, for the whole grace: it starts a task for that.

        Raises: RuntimeError where the server was not started. Cancellation: safe; the shutdown goes
        on.
        """
        return await asyncio.shield(self._begin_shutdown(grace))

    def _begin_shutdown(self, grace: float | None = None) -> asyncio.Task[ShutdownReport]:
        """Shut down from now on, or hurry a shutdown that has begun; return the task of it."""
        loop = self.get_loop()
        if self._stopped is None:
            ending = self._end(self._options.grace if grace is None else grace)
            self._draining.set()
            # Never eagerly: what it accepts may call shutdown() there and then.
            self._stopped = asyncio.Task(self._shut_down(ending), loop=loop)
        elif grace is not None:
            self._hurry_to(grace)
        return self._stopped

    async def _shut_down(self, ending: Coroutine[Any, Any, ShutdownReport]) -> ShutdownReport:
        report = await ending
        self._signals.stop()
        self._drain_seconds = report.seconds
        self._say_how(report)
        return report

    def _say_how(self, report: ShutdownReport) -> None:
        self._log.say(logging.INFO, "shut down: %s", report)

    def _close_endpoints(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()

    @abc.abstractmethod
    def _end(self, grace: float) -> Coroutine[Any, Any, ShutdownReport]:
        """Return what accepts no more, and brings all connections to their end in *grace* seconds
        and a few more; from now on the shutdown can be hurried."""

    @abc.abstractmethod
    def _hurry_to(self, grace: float) -> None:
        """Let no more than *grace* seconds pass from now until handlers are cancelled."""

    @abc.abstractmethod
    def _hurry(self) -> None:
        """Go on with the shutdown: from waiting for handlers to cancelling them, from that to
        cutting them off."""
