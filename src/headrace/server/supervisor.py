"""Supervisor: a StreamServer whose connections are served by processes of their own: serve(workers=…).

It binds one socket for each worker with SO_REUSEPORT, between which the system spreads connections, keeps them open itself, and gives each
new worker those of its place. So a connection that waits in the queue of a worker that dies, or is replaced, is served by the next one in
that place, and not reset. (Unix sockets, and inherited ones, are shared by all workers.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import pickle
import socket
from asyncio import trsock
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace._transport.choose import is_libuv
from headrace.server.listening import Addresses, Place
from headrace.server.server import Handler, Options, StreamServer
from headrace.server.statistics import Statistics, total
from headrace.server.stopping import ABORT_SECONDS, CANCEL_SECONDS, ShutdownReport
from headrace.server.worker import Setup, main
from headrace.streams.connect import open_unix_connection

logger = logging.getLogger("headrace.server")

# A worker that dies is started again after this many seconds, twice as many each time; one that has lived for so long starts over.
FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 10.0
# How long a new process may take until it accepts: it imports the program first.
START_SECONDS = 60.0
# How much longer than its shutdown may take a worker is waited for, in seconds, before it is killed.
PATIENCE_SECONDS = 2.0
NOTHING = ShutdownReport(0, 0, 0, 0, 0.0)


class Worker:
    """One process, as its supervisor knows it."""

    def __init__(self, place: int, setup: Setup, control: socket.socket) -> None:
        self.place = place
        self.statistics: Statistics | None = None
        self.report: ShutdownReport | None = None
        self.leaving = False
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.ready = loop.create_future()
        self.gone = loop.create_future()
        # Not a fork: the program may have threads, and a new worker shall read it anew.
        self.process = multiprocessing.get_context("spawn").Process(target=main, args=(setup,), name=f"{setup.options.name} {place}")
        self.process.start()
        setup.control.close()
        # Known also when the process is gone.
        self.pid = self.process.pid
        self.status: int | None = None
        self._control = control
        self._writer: Any = None
        self._orders: list[bytes] = []
        self._talk = loop.create_task(self._listen())
        loop.add_reader(self.process.sentinel, self._on_exit)

    async def _listen(self) -> None:
        """Take what the worker tells."""
        reader, self._writer = await open_unix_connection(sock=self._control)
        self._writer.writelines(self._orders)
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                told = json.loads(line)
                if "ready" in told and not self.ready.done():
                    self.ready.set_result(None)
                elif "statistics" in told:
                    self.statistics = Statistics(**told["statistics"])
                elif "report" in told:
                    self.report = ShutdownReport(**told["report"])
                elif "record" in told:
                    record = logging.makeLogRecord(told["record"])
                    if logger.isEnabledFor(record.levelno):
                        logger.handle(record)
        self._writer.close()

    def _on_exit(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.process.sentinel)
        self.process.join()
        self.status = self.process.exitcode
        self.process.close()
        # What it has said at last may still be on its way.
        loop.create_task(self._tell_gone()).add_done_callback(lambda task: task.result())

    async def _tell_gone(self) -> None:
        await asyncio.wait([self._talk])
        if not self.ready.done():
            self.ready.set_exception(RuntimeError(f"a worker did not start: its process ended with status {self.status}"))
            self.ready.exception()  # whoever waits is told
        self.gone.set_result(None)

    async def accepts(self) -> None:
        """Wait until it accepts. Raises: RuntimeError where it does not."""
        try:
            async with asyncio.timeout_at(self.began + START_SECONDS):
                await asyncio.shield(self.ready)
        except TimeoutError:
            raise RuntimeError(f"a worker did not start: it does not accept after {START_SECONDS} s") from None

    def order(self, **what: Any) -> None:
        """Tell the worker what to do."""
        line = json.dumps(what).encode() + b"\n"
        if self._writer is None:
            self._orders.append(line)
        else:
            self._writer.write(line)

    def stop(self, grace: float) -> None:
        """Have the worker shut down, and kill it if it does not."""
        self.leaving = True
        self.order(shutdown=grace)
        timeout = grace + CANCEL_SECONDS + ABORT_SECONDS + PATIENCE_SECONDS
        asyncio.get_running_loop().call_later(timeout, self._kill)

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self.status is None:
            self.process.kill()

    def _kill(self) -> None:
        if not self.gone.done():
            logger.error("worker %d does not end, and is killed", self.pid)
            self.kill()


class Supervisor(StreamServer):
    """See the module's documentation. ``connections`` is empty: they are in other processes."""

    def __init__(self, handler: Handler, places: Sequence[Place], options: Options, workers: int) -> None:
        super().__init__(handler, places, options)
        self._wanted = workers
        # The sockets of each place, which a worker has; all that are there, each once.
        self._shares: list[list[socket.socket]] = []
        self._all: list[socket.socket] = []
        self._workers: list[Worker | None] = [None] * workers
        self._old: set[Worker] = set()
        self._failures = [0] * workers
        self._timers: dict[int, asyncio.TimerHandle] = {}
        # What workers that are gone have done, and how those went that were replaced.
        self._past: list[Statistics] = []
        self._renewing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Supervisor {self.name} of {self._wanted} workers>"

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """The listening sockets, of each port one; () before the start and once the server is shut down."""
        return tuple(trsock.TransportSocket(sock) for sock in (self._shares[0] if self._all else ()))

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the workers that accept."""
        return tuple(worker.pid for worker in self._workers if worker is not None and worker.pid is not None)

    async def start(self) -> None:
        """Bind, start the workers, and return when all of them accept.

        Raises: OSError where an address is taken or forbidden; RuntimeError where a worker does not start; TypeError where handler,
        certificates or on_error cannot be sent to another process: they have to be importable by name.
        """
        if self._loop is not None:
            raise RuntimeError(f"{self!r} was started before: a server runs once")
        loop = self._loop = asyncio.get_running_loop()
        try:
            pickle.dumps((self._handler, self._options))
        except Exception as error:
            raise TypeError(
                f"workers are processes of their own, and this cannot be sent to them: {error}. The handler and on_error have to be "
                "functions of a module, and ssl has to be headrace.Certificates, not a context"
            ) from error
        try:
            await self._bind(loop)
            self._workers = [self._spawn(place) for place in range(self._wanted)]
            for worker in self._workers:
                assert worker is not None
                await worker.accepts()
        except BaseException:
            self._begin_shutdown(0)
            assert self._stopped is not None
            await asyncio.wait([self._stopped])
            raise
        self._began = loop.time()

    async def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        shared: list[socket.socket] = []
        own: list[list[socket.socket]] = [[] for _ in range(self._wanted)]
        for place in self._places:
            found = await place.sockets(loop)
            self._all += found
            if not isinstance(place, Addresses):
                shared += found
                continue
            own[0] += found
            for share in own[1:]:
                for sock in found:
                    twin = place.twin(sock)
                    self._all.append(twin)
                    share.append(twin)
        self._shares = [share + shared for share in own]
        for sock in self._all:
            sock.listen(self._options.backlog)

    def _spawn(self, place: int) -> Worker:
        """Start a process for the sockets of *place*."""
        ours, theirs = socket.socketpair()
        factory = None
        assert self._loop is not None
        if is_libuv(self._loop):
            import uvloop

            factory = uvloop.new_event_loop
        worker = Worker(place, Setup(self._handler, self._options, self._shares[place], theirs, factory, logger.getEffectiveLevel()), ours)
        worker.gone.add_done_callback(lambda _: self._on_gone(worker))
        return worker

    def _on_gone(self, worker: Worker) -> None:
        """A process has ended."""
        if worker.statistics is not None:
            # Nothing is there any more of what it had then.
            self._past = [total([*self._past, _over(worker.statistics)])]
        self._old.discard(worker)
        if worker.leaving or self.draining.is_set() or self._workers[worker.place] is not worker:
            return
        loop = self.get_loop()
        lived = loop.time() - worker.began
        failures = self._failures[worker.place] = 0 if lived > HEALTHY_SECONDS else self._failures[worker.place] + 1
        delay = min(FIRST_BACKOFF_SECONDS * 2 ** max(0, failures - 1), LAST_BACKOFF_SECONDS)
        logger.error(
            "%s: worker %s ended with status %s after %.1f s; another is started in %.1f s",
            self.name, worker.pid, worker.status, lived, delay, extra={"server": self.name},
        )  # fmt: skip
        self._workers[worker.place] = None
        self._timers[worker.place] = loop.call_later(delay, self._replace, worker.place)

    def _replace(self, place: int) -> None:
        del self._timers[place]
        if not self.draining.is_set() and self._workers[place] is None:
            self._workers[place] = self._spawn(place)

    async def renew(self) -> None:
        """See StreamServer.renew()."""
        async with self._renewing:
            for place in range(self._wanted):
                old = self._workers[place]
                new = self._spawn(place)
                new.leaving = True  # until it accepts, nobody replaces it
                try:
                    await new.accepts()
                except BaseException:
                    new.kill()
                    raise
                if self.draining.is_set():
                    new.stop(0)
                    return
                new.leaving = False
                # Another may have come meanwhile, if the old one died.
                old = self._workers[place]
                self._workers[place] = new
                self._failures[place] = 0
                if old is not None:
                    self._old.add(old)
                    old.stop(self._options.grace)
        logger.info("%s: all workers were replaced", self.name, extra={"server": self.name})

    def _begin_shutdown(self, grace: float | None = None) -> asyncio.Task[ShutdownReport]:
        if self._stopped is None:
            self.draining.set()
            self._stopped = self.get_loop().create_task(self._stop_workers(self._options.grace if grace is None else grace))
        elif grace is not None:
            for worker in self._living():
                worker.order(shutdown=grace)
        return self._stopped

    def _hurry(self) -> None:
        for worker in self._living():
            worker.order(hurry=True)

    def _living(self) -> list[Worker]:
        return [worker for worker in (*self._workers, *self._old) if worker is not None and not worker.gone.done()]

    async def _stop_workers(self, grace: float) -> ShutdownReport:
        loop = self.get_loop()
        began = loop.time()
        for timer in self._timers.values():
            timer.cancel()
        # First of all: what waits in the queues is then the workers', and no more comes.
        for sock in self._all:
            sock.close()
        self._all.clear()
        self._close_places()
        living = self._living()
        for worker in living:
            worker.stop(grace)
        if living:
            await asyncio.wait([worker.gone for worker in living])
        reports = [worker.report or NOTHING for worker in living]
        report = ShutdownReport(
            sum(each.finished for each in reports),
            sum(each.cancelled for each in reports),
            sum(each.aborted for each in reports),
            sum(each.stuck for each in reports),
            loop.time() - began,
        )
        self._drain_seconds = report.seconds
        logger.info("%s: shut down: %s", self.name, report, extra={"server": self.name})
        return report

    def statistics(self) -> Statistics:
        """Return what all workers have done, as they told it a second ago at most; one that crashed has told no end."""
        living = [worker.statistics for worker in self._living() if worker.statistics is not None]
        uptime = self.get_loop().time() - self._began if self._began else 0.0
        return replace(total([*self._past, *living]), uptime=uptime, draining=self.draining.is_set(), drain_seconds=self._drain_seconds)


def _over(statistics: Statistics) -> Statistics:
    """Return *statistics* without what is there now."""
    return replace(statistics, open=0, negotiating=0, buffered_bytes=0, draining=False, uptime=0.0)
