"""Shutdown: how a server comes to its end: connections finish, then are cancelled, then cut off."""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass

from headrace._server.config import EndReason
from headrace._server.listeners import Listeners
from headrace._server.log import Log
from headrace._server.registry import Registry

# Seconds that a cancelled handler has to clean up, and that what it wrote has to leave; then
# seconds for a handler whose connection was cut off. After that the shutdown waits no longer.
# Docker and Kubernetes kill 10 and 30 s after SIGTERM, which has to be enough for all.
CANCEL_SECONDS = 2.0
ABORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """How the connections of a server ended that were open when it was shut down, and how long that
    took, in seconds.

    *finished* came to their end within the grace; *cancelled* had their handlers cancelled, and
    what those had written was sent; *aborted* were cut off, and what they had to send is lost; so
    were those that waited to come in, and found no room. *stuck* of the aborted have handlers that
    do not end.
    """

    finished: int
    cancelled: int
    aborted: int
    stuck: int
    seconds: float

    def __str__(self) -> str:
        stuck = f", {self.stuck} of them with handlers that do not end" if self.stuck else ""
        return (
            f"{self.finished} finished, {self.cancelled} cancelled, {self.aborted} aborted{stuck}, "
            f"in {self.seconds:.2f} s"
        )


class Stage(enum.IntEnum):
    """How far a shutdown is: what it does to connections that are still there."""

    # They may finish; their handlers are cancelled; they are cut off.
    FINISH = 0
    CANCEL = 1
    ABORT = 2


class Shutdown:
    """The end of all connections of *registry*, which may be hurried."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        listeners: Listeners,
        log: Log,
        grace: float,
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._listeners = listeners
        self._log = log
        self._began = loop.time()
        self._deadline = self._began + grace
        self._timer: asyncio.TimerHandle | None = None
        # What the current stage waits for: the last connection, or its time.
        self._over: asyncio.Future[None] | None = None
        self.stage = Stage.FINISH
        self._left_before = registry.left
        # How many stages are to end at once that have not begun.
        self._skips = 0

    def hurry(self, grace: float) -> None:
        """Let no more than *grace* seconds pass from now until handlers are cancelled."""
        self._deadline = min(self._deadline, self._loop.time() + grace)
        if self.stage is Stage.FINISH:
            self._set_timer()

    def skip(self) -> None:
        """End the stage at once, or, where it has ended just now, the next."""
        if not self._end_stage():
            self._skips += 1

    def connection_left(self) -> None:
        """A connection is over; it may have been the last."""
        if self._is_empty():
            self._end_stage()

    async def run(self) -> ShutdownReport:
        """Bring all connections to their end; return how it went. A stage that is skipped ends at
        once."""
        registry = self._registry
        await self._wait()
        self.stage = Stage.CANCEL
        outside = self._give_up()
        cancelled = set(registry.open)
        for session in cancelled:
            session.cancel()
        self._deadline = self._loop.time() + CANCEL_SECONDS
        await self._wait()
        self.stage = Stage.ABORT
        aborted = set(registry.open)
        for session in aborted:
            registry.end(session, EndReason.SHUTDOWN, "the server has been shut down")
            session.cancel()
        self._deadline = self._loop.time() + ABORT_SECONDS
        await self._wait()
        stuck = len(registry.open)
        left = registry.left - self._left_before
        return ShutdownReport(
            left - len(cancelled | aborted) + stuck,
            len(cancelled - aborted),
            len(aborted) + outside,
            stuck,
            self._loop.time() - self._began,
        )

    def _give_up(self) -> int:
        """Close what still waits to come in; return how many connections that are."""
        count = self._listeners.give_up()
        if count:
            self._registry.ended[EndReason.SHUTDOWN] += count
            self._log.say(logging.INFO, "%d connections found no room before the shutdown", count)
        return count

    def _is_empty(self) -> bool:
        """Tell whether no connection is open, and none waits to come in."""
        return not self._registry.open and not self._listeners.waiting

    async def _wait(self) -> None:
        """Wait until the last connection is gone, or the time of the stage is over."""
        if self._is_empty():
            return
        if self._skips:
            self._skips -= 1
            return
        self._over = self._loop.create_future()
        self._set_timer()
        try:
            await self._over
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _end_stage(self) -> bool:
        """End the stage, if there is one; return whether there is."""
        if self._over is None or self._over.done():
            return False
        self._over.set_result(None)
        return True

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._end_stage)
