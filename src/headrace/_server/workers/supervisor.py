"""Supervisor: a StreamServer whose connections are served by processes of their own:
serve(workers=…).

It binds one socket for each worker with SO_REUSEPORT, between which the system spreads connections,
keeps them open itself, and gives each new worker all of them. Each accepts from those of its place;
where there is no worker in a place, another one covers it. So a connection that waits in the queue
of a worker that dies, or is replaced, is served at once, and not reset. (Unix sockets, and
inherited ones, are shared by all workers.)
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from asyncio import trsock
from collections.abc import Coroutine, Sequence, Set
from dataclasses import replace
from typing import Any

from headrace._server.connection import Connection
from headrace._server.endpoints import Addresses, Endpoint
from headrace._server.log import logger
from headrace._server.options import Handler, Options
from headrace._server.shutdown import ShutdownReport
from headrace._server.statistics import Statistics, total
from headrace._server.stream_server import StreamServer
from headrace._server.workers.handle import Process, Role, Said, State, WorkerHandle
from headrace._server.workers.worker import Setup
from headrace._transport.loops import is_libuv

# A worker that dies is started again at once, if that happens again after this many seconds, then
# twice as many each time; one that has lived for so long starts over.
FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 10.0
# Workers are looked at so often, in seconds, and one that says nothing for so long has a loop that
# hangs.
LOOK_SECONDS = 5.0
SILENCE_SECONDS = 60.0


class Supervisor(StreamServer):
    """Starts, watches and replaces its workers, and sums up what they say."""

    def __init__(
        self, handler: Handler, endpoints: Sequence[Endpoint], options: Options, workers: int
    ) -> None:
        super().__init__(endpoints, options)
        self._handler = handler
        self._wanted = workers
        # The sockets of each place, and those of all; all that are there, each once.
        self._own: list[list[socket.socket]] = []
        self._shared: list[socket.socket] = []
        self._all: list[socket.socket] = []
        self._workers: list[WorkerHandle | None] = [None] * workers
        # Who accepts in places whose worker does not.
        self._covers: dict[int, WorkerHandle] = {}
        self._old: set[WorkerHandle] = set()
        self._failures = [0] * workers
        self._timers: dict[int, asyncio.TimerHandle] = {}
        # What workers that are gone have done.
        self._past = total([])
        self._renewing = asyncio.Lock()
        self._looking: asyncio.TimerHandle | None = None
        self._looked_at = 0.0

    def __repr__(self) -> str:
        return f"<Supervisor {self.name} of {self._wanted} workers>"

    @property
    def connections(self) -> Set[Connection]:
        """See StreamServer."""
        return frozenset()

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """See StreamServer."""
        return tuple(
            trsock.TransportSocket(sock)
            for sock in (self._own[0] + self._shared if self._all else ())
        )

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the workers that accept."""
        return tuple(
            worker.pid for worker in self._workers if worker is not None and worker.pid is not None
        )

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            pickle.dumps((self._handler, self._options))
        except Exception as error:
            raise TypeError(
                f"workers are processes of their own, and this cannot be sent to them: {error}. "
                "The handler and on_error have to be "
                "functions of a module, and ssl has to be headrace.Certificates, not a context"
            ) from error
        try:
            await self._bind(loop)
            started = []
            for place in range(self._wanted):
                # One by one: those that are there are stopped if another cannot be.
                self._workers[place] = worker = self._spawn(place)
                started.append(worker)
            for worker in started:
                await worker.accepts()
            for worker in started:
                worker.check()
        except BaseException:
            await asyncio.wait([self._begin_shutdown(0)])
            raise
        self._looked_at = loop.time()
        self._look()

    def _look(self) -> None:
        """Kill a worker that says nothing any more; another is started then."""
        loop = self.get_loop()
        now = loop.time()
        for worker in self._living():
            if now - self._looked_at > 2 * LOOK_SECONDS:
                worker.heard_at = now  # it was us who did not listen
            elif worker.said is not Said.NOTHING and now - worker.heard_at > SILENCE_SECONDS:
                worker.kill_aloud(f"has said nothing for {SILENCE_SECONDS:.0f} s")
        self._looked_at = now
        self._looking = loop.call_later(LOOK_SECONDS, self._look)

    async def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        own = self._own = [[] for _ in range(self._wanted)]
        for endpoint in self._endpoints:
            found = await endpoint.sockets(loop)
            self._all += found
            if not isinstance(endpoint, Addresses):
                self._shared += found
                continue
            own[0] += found
            for share in own[1:]:
                for sock in found:
                    twin = endpoint.twin(sock)
                    self._all.append(twin)
                    share.append(twin)
        # (They begin to listen when the first worker does: who connects before that is refused, not
        # kept waiting.)

    def _spawn(self, place: int, role: Role = Role.SERVING) -> WorkerHandle:
        """Start a process for the sockets of *place*."""
        ours, theirs = socket.socketpair()
        factory = None
        if is_libuv(self.get_loop()):
            import uvloop

            factory = uvloop.new_event_loop
        level = logger.getEffectiveLevel()
        options = replace(self._options, name=self.name)
        return WorkerHandle(
            place,
            role,
            Setup(self._handler, options, self._own, self._shared, place, theirs, factory, level),
            ours,
            self._on_change,
        )

    def _on_change(self, worker: WorkerHandle, state: State) -> None:
        """*worker* has said something, or its process has ended."""
        if state is Process.GONE:
            self._on_gone(worker)
            return
        self._arrange()
        if state is Said.LEAVING:
            self._on_leaving(worker)

    def _arrange(self) -> None:
        """Have exactly one worker accept in each place: its own, or else another. While an order is
        on its way, two may."""
        if not self._began or self.draining.is_set():
            return
        accepting = [worker for worker in self._workers if worker is not None and worker.accepting]
        for place, worker in enumerate(self._workers):
            cover = self._covers.get(place)
            if worker in accepting:
                if cover is not None:
                    del self._covers[place]
                    cover.order(uncover=place)
            elif accepting and cover not in accepting:
                # The next one, so that the places of several do not all fall to the same.
                self._covers[place] = cover = min(
                    accepting, key=lambda each: (each.place - place) % self._wanted
                )
                cover.order(cover=place)

    def _on_leaving(self, worker: WorkerHandle) -> None:
        """A worker shuts down. Where that was not the supervisor's order (SIGTERM), its successor
        does not wait for its end."""
        if (
            worker.role is not Role.SERVING
            or self.draining.is_set()
            or not self._began
            or self._workers[worker.place] is not worker
        ):
            return
        self._log.say(logging.INFO, "worker %s shuts down", worker.pid)
        worker.retire()
        worker.expect_end(self._options.grace)
        self._old.add(worker)
        self._workers[worker.place] = None
        # (Not at once: what stops all processes is about to stop this one too.)
        self._timers[worker.place] = self.get_loop().call_later(
            FIRST_BACKOFF_SECONDS, self._replace, worker.place
        )

    def _on_gone(self, worker: WorkerHandle) -> None:
        """A process has ended."""
        if worker.statistics is not None:
            # Nothing is there any more of what it had then.
            self._past = total([self._past, _over(worker.statistics)])
            worker.counted = True
        self._old.discard(worker)
        if worker.role is Role.RETIRED and worker.report is not None and not self.draining.is_set():
            self._log.say(logging.INFO, "worker %s is over: %s", worker.pid, worker.report)
        # (Before the start is over, nothing is started again: it fails.)
        if (
            not self._began
            or worker.role is not Role.SERVING
            or self.draining.is_set()
            or self._workers[worker.place] is not worker
        ):
            return
        loop = self.get_loop()
        lived = loop.time() - worker.began
        failures = self._failures[worker.place] = (
            0 if lived > HEALTHY_SECONDS else self._failures[worker.place] + 1
        )
        delay = (
            min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 2), LAST_BACKOFF_SECONDS)
            if failures > 1
            else 0.0
        )
        self._log.say(
            logging.ERROR,
            "worker %s ended with status %s after %.1f s; another is started in %.1f s",
            worker.pid,
            worker.status,
            lived,
            delay,
        )
        self._workers[worker.place] = None
        self._timers[worker.place] = loop.call_later(delay, self._replace, worker.place)

    def _replace(self, place: int) -> None:
        self._timers.pop(place, None)
        if self.draining.is_set() or self._workers[place] is not None:
            return
        try:
            worker = self._workers[place] = self._spawn(place)
        except Exception as error:
            # Out of processes, descriptors or memory, for now.
            self._log.say(logging.ERROR, "no worker could be started: %s", error)
            self._timers[place] = self.get_loop().call_later(
                LAST_BACKOFF_SECONDS, self._replace, place
            )
        else:
            worker.expect_start()

    async def renew(self) -> None:
        """See StreamServer."""
        self.get_loop()  # raises before the start
        async with self._renewing:
            for place in range(self._wanted):
                if self.draining.is_set():
                    return
                new = self._spawn(place, Role.CANDIDATE)
                self._old.add(new)  # but a shutdown stops it: it accepts before we hear so
                try:
                    await new.accepts()
                except BaseException:
                    if not self.draining.is_set():
                        new.kill()
                    raise
                if self.draining.is_set():
                    return
                self._old.discard(new)
                new.move(Role.SERVING)
                if place in self._timers:
                    self._timers.pop(place).cancel()
                # Another may have come meanwhile, if the old one died.
                old = self._workers[place]
                self._workers[place] = new
                self._failures[place] = 0
                self._arrange()
                if old is not None:
                    self._old.add(old)
                    old.stop(self._options.grace, replaced=True)
        self._log.say(logging.INFO, "all workers were replaced")

    def _end(self, grace: float) -> Coroutine[Any, Any, ShutdownReport]:
        return self._stop_workers(grace)

    def _hurry_to(self, grace: float) -> None:
        for worker in self._living():
            worker.stop(grace)

    def _hurry(self) -> None:
        for worker in self._living():
            worker.hurry()

    def _living(self) -> list[WorkerHandle]:
        return [
            worker
            for worker in (*self._workers, *self._old)
            if worker is not None and worker.process is not Process.GONE
        ]

    async def _stop_workers(self, grace: float) -> ShutdownReport:
        loop = self.get_loop()
        began = loop.time()
        for timer in self._timers.values():
            timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        # First of all: what waits in the queues is then the workers', and no more comes.
        for sock in self._all:
            sock.close()
        self._all.clear()
        self._close_endpoints()
        living = self._living()
        for worker in living:
            worker.stop(grace)
        if living:
            await asyncio.wait([worker.gone for worker in living])
        reports = [worker.report or _killed(worker) for worker in living]
        return ShutdownReport(
            sum(each.finished for each in reports),
            sum(each.cancelled for each in reports),
            sum(each.aborted for each in reports),
            sum(each.stuck for each in reports),
            loop.time() - began,
        )

    def statistics(self) -> Statistics:
        """See StreamServer."""
        every = {worker for worker in (*self._workers, *self._old) if worker is not None}
        # (One that has just ended has nothing open any more, though _on_gone() is still to come.)
        told = [
            _over(worker.statistics) if worker.process is Process.GONE else worker.statistics
            for worker in every
            if worker.statistics is not None and not worker.counted
        ]
        uptime = self.get_loop().time() - self._began if self._began else 0.0
        return replace(
            total([self._past, *told]),
            uptime=uptime,
            draining=self.draining.is_set(),
            drain_seconds=self._drain_seconds,
        )


def _killed(worker: WorkerHandle) -> ShutdownReport:
    """Return how the connections of *worker* ended, which has not said so: those that it had at
    last were cut off."""
    there = 0 if worker.statistics is None else worker.statistics.open
    return ShutdownReport(0, 0, there, 0, 0.0)


def _over(statistics: Statistics) -> Statistics:
    """Return *statistics* without what is there now."""
    return replace(
        statistics,
        open=0,
        max_connections=0,
        accepting=False,
        negotiating=0,
        buffered_bytes=0,
        draining=False,
        uptime=0.0,
    )
