"""Monitor: looks at the connections of a server now and then, and ends those that break its bounds.

Nothing of it is on the path of the data: readers and writers count their bytes, and the monitor
compares the counts with those it saw before. So a bound is kept with a delay, of up to two periods;
it is never broken early. A period is an eighth of the shortest time that is bounded, and a round is
cut into slices, so that ten thousand connections do not keep the loop busy at once.
"""

from __future__ import annotations

import asyncio

from headrace._server.config import EndReason, Limits
from headrace._server.listeners import Listeners
from headrace._server.progress import Progress, shortest_time
from headrace._server.registry import Registry
from headrace._server.session import Phase, Session

# How often at most, and at least, each connection is looked at, in seconds; the least is also how
# stale a total of buffered bytes is.
SHORTEST_PERIOD = 0.02
LONGEST_PERIOD = 5.0
MEMORY_PERIOD = 0.5
PERIODS_IN_TIMEOUT = 8
# How many connections are looked at without a pause: some 100 us.
SLICE = 64
# How long a connection that was turned away may take to go, in seconds.
REFUSED_SECONDS = 5.0
# When buffers have shrunk to this share of their bound, accepting goes on.
RELIEF = 0.9
# Why the listeners are held while buffers are too full.
MEMORY = "memory"


class Note:
    """What the monitor keeps of one connection."""

    __slots__ = ("cancelled", "progress", "turned_away_at")

    def __init__(self) -> None:
        self.progress: Progress | None = None
        # When it was first seen without a handler to come; whether its handler, which was told that
        # the connection is ended, was cancelled too.
        self.turned_away_at: float | None = None
        self.cancelled = False


class Monitor:
    """Looks at the connections of a registry, in slices, and ends those that break a bound."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        listeners: Listeners,
        limits: Limits,
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._listeners = listeners
        self._limits = limits
        shortest = shortest_time(limits)
        period = LONGEST_PERIOD if shortest is None else shortest / PERIODS_IN_TIMEOUT
        if limits.max_buffered_bytes is not None:
            period = min(period, MEMORY_PERIOD)
        self.period = max(SHORTEST_PERIOD, min(LONGEST_PERIOD, period))
        self._wanted = shortest is not None or limits.max_buffered_bytes is not None
        self._timer: asyncio.TimerHandle | None = None
        self._notes: dict[Session, Note] = {}
        # Of the round: who is still to be looked at, the bytes in all buffers, and whose they are.
        self._round: list[Session] = []
        self._total = 0
        self._largest: list[tuple[int, Session]] = []

    def start(self) -> None:
        """Begin to look."""
        if self._wanted and self._timer is None:
            self._timer = self._loop.call_later(self.period, self._turn)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self, session: Session) -> None:
        """*session* is over."""
        self._notes.pop(session, None)

    def _turn(self) -> None:
        if not self._round:
            self._round = list(self._registry.open)
            self._total = 0
            self._largest.clear()
        now = self._loop.time()
        slice_, self._round[-SLICE:] = self._round[-SLICE:], []
        # First of all: whatever goes wrong with a connection, the others are looked at.
        self._timer = self._loop.call_later(0 if self._round else self.period, self._turn)
        for session in slice_:
            if session.phase is not Phase.OVER:
                self._look(session, now)
        if not self._round:
            self._bound_memory()

    def _look(self, session: Session, now: float) -> None:
        """Compare *session* with what was seen of it before."""
        note = self._notes.get(session)
        if note is None:
            note = self._notes[session] = Note()
        if session.phase is Phase.TURNED_AWAY:
            if note.turned_away_at is None:
                note.turned_away_at = now
            elif now - note.turned_away_at > REFUSED_SECONDS:
                session.abort(ConnectionAbortedError("the connection was refused"))
        elif session.ended is not None:
            # Its handler was told, and does not come to its end.
            if not note.cancelled:
                note.cancelled = True
                session.cancel()
        elif session.handled_at is not None and not session.lost:
            figures = session.figures()
            buffered = figures.unread + figures.unsent
            self._total += buffered
            if self._limits.max_buffered_bytes is not None and buffered > 0:
                self._largest.append((buffered, session))
            if note.progress is None:
                note.progress = Progress(session.handled_at)
            unacknowledged = session.unacknowledged() if figures.unsent else 0
            verdict = note.progress.look(figures, unacknowledged, now, self._limits)
            if verdict is not None:
                self._registry.end(session, *verdict)

    def _bound_memory(self) -> None:
        """Accept nothing while the buffers are too full, and end the connections with the fullest
        until they are not."""
        most = self._limits.max_buffered_bytes
        if most is None:
            return
        if self._total <= most * RELIEF:
            self._listeners.release(MEMORY)
        if self._total > most:
            self._listeners.hold(MEMORY)
            total = self._total
            for size, session in sorted(self._largest, key=lambda each: -each[0]):
                if total <= most * RELIEF:
                    break
                total -= size
                self._registry.end(
                    session,
                    EndReason.MEMORY,
                    f"the server's buffers hold more than {most} bytes, {size} of them for this "
                    "connection",
                )
        self._largest.clear()
