"""Shutdown: how a server comes to its end: connections finish, then are cancelled, then cut off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace._server.server import StreamServer

# How long a handler that was cancelled may take to clean up, and to have sent what it wrote, in
# seconds; then how long one may that was told its connection is gone. After that nobody waits for
# it. Docker and Kubernetes kill 10 and 30 s after SIGTERM, which has to be enough for all.
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


class Shutdown:
    """One shutdown, which may be hurried."""

    def __init__(self, server: StreamServer, grace: float) -> None:
        self._server = server
        self._loop = server.get_loop()
        self._began = self._loop.time()
        self._deadline = self._began + grace
        self._timer: asyncio.TimerHandle | None = None
        # What the current stage waits for: the last connection, or its time.
        self._over: asyncio.Future[None] | None = None
        self._stage = 0
        self._left = server._left
        self._skips = 0

    @property
    def is_cancelling(self) -> bool:
        """Whether handlers have been cancelled: none shall start any more."""
        return self._stage > 0

    def hurry(self, grace: float) -> None:
        """Let no more than *grace* seconds pass from now until handlers are cancelled."""
        self._deadline = min(self._deadline, self._loop.time() + grace)
        if self._stage == 0:
            self._set_timer()

    def skip(self) -> None:
        """End the stage at once, or, where it has ended just now, the next."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        else:
            self._skips += 1

    def emptied(self) -> None:
        """The last connection is gone, or the time of the stage."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def run(self) -> ShutdownReport:
        """Bring all connections to their end; return how it went. A stage that is skipped ends at
        once."""
        server = self._server
        await self._wait()
        self._stage = 1
        outside = server._give_up()
        cancelled = set(server.connections)
        for connection in cancelled:
            server._cancel(connection)
        self._deadline = self._loop.time() + CANCEL_SECONDS
        await self._wait()
        self._stage = 2
        aborted = set(server.connections)
        for connection in aborted:
            server._end(connection, "shutdown", "the server has been shut down")
        self._deadline = self._loop.time() + ABORT_SECONDS
        await self._wait()
        stuck = len(server.connections)
        finished = server._left - self._left - len(cancelled | aborted) + stuck
        return ShutdownReport(
            finished,
            len(cancelled - aborted),
            len(aborted) + outside,
            stuck,
            self._loop.time() - self._began,
        )

    async def _wait(self) -> None:
        """Wait until the last connection is gone, or the time of the stage is over."""
        if self._server._is_empty():
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

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self.emptied)
