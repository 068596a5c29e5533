"""Progress: how a connection keeps the bounds, from what was seen of it at one time and the next.

Nothing here knows a socket, a loop or a clock: look() is given the figures and the time.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace._server.config import EndReason, Limits
from headrace._server.session import Figures

# Over which time a minimum rate is meant, in seconds: long enough that a packet lost twice (RFC
# 6298: 1 s, then 2 s) does not count.
RATE_SECONDS = 10.0


def shortest_time(limits: Limits) -> float | None:
    """Return the shortest time that *limits* bound here, in seconds; None for no bound."""
    times = [limits.first_byte_timeout, limits.idle_timeout, limits.stall_timeout]
    if limits.minimum_rate is not None:
        times.append(RATE_SECONDS)
    return min((each for each in times if each is not None), default=None)


class Verdict(NamedTuple):
    """Why a connection is to be ended: for the figures, and in words."""

    reason: EndReason
    text: str


class Flow:
    """How many bytes have gone one way since a time: a rate, over RATE_SECONDS at least."""

    __slots__ = ("_since", "_start")

    def __init__(self) -> None:
        self._since = 0.0
        # Its count of bytes at that time; None while nothing is measured.
        self._start: int | None = None

    def stop(self) -> None:
        """Nothing has to go just now."""
        self._start = None

    def begin(self, count: int, now: float) -> None:
        """Measure from here."""
        self._start, self._since = count, now

    def is_slow(self, count: int, now: float, rate: float) -> bool:
        """Tell whether less than *rate* bytes a second have gone up to *count*; then measure from
        here. False where the time is too short to tell."""
        if self._start is None:
            self.begin(count, now)
        elif now - self._since >= RATE_SECONDS:
            slow = count - self._start < rate * (now - self._since)
            self.begin(count, now)
            return slow
        return False


class Progress:
    """What was seen of one connection so far."""

    __slots__ = ("_in", "_moved_at", "_out", "_received", "_sent", "_stalled_at", "_taken")

    def __init__(self, began: float) -> None:
        self._received = self._sent = 0
        # When something moved last, or the handler was busy; since when something is unsent and
        # nothing leaves.
        self._moved_at = began
        self._stalled_at: float | None = None
        # The message that comes, and what goes; and how much the handler had taken when it began.
        self._in = Flow()
        self._out = Flow()
        self._taken = -1

    def look(
        self, figures: Figures, unacknowledged: int, now: float, limits: Limits
    ) -> Verdict | None:
        """Compare *figures* with those of the last time; return why the connection is to be ended,
        or None.

        *unacknowledged* bytes were taken by the system and not by the peer: it asks for more only
        when a third of its buffer is free, which may be a megabyte.
        """
        received, _, waits, written, unsent = figures
        sent = written - unsent - unacknowledged
        moved = received != self._received or sent != self._sent
        if unsent == 0 or sent != self._sent or self._stalled_at is None:
            self._stalled_at = now if unsent else None
        self._received = received
        self._sent = sent
        # A handler that works, and neither reads nor is kept from writing, may take its time.
        if moved or (not waits and unsent == 0):
            self._moved_at = now
        rested = now - self._moved_at
        if (
            limits.stall_timeout is not None
            and self._stalled_at is not None
            and now - self._stalled_at >= limits.stall_timeout
        ):
            return Verdict(
                EndReason.STALLED,
                f"the peer has taken nothing for {limits.stall_timeout} s of {unsent} bytes that "
                "wait for it",
            )
        if (
            received == written == 0
            and limits.first_byte_timeout is not None
            and rested >= limits.first_byte_timeout
        ):
            return Verdict(
                EndReason.FIRST_BYTE, f"the peer has sent nothing for {limits.first_byte_timeout} s"
            )
        if limits.idle_timeout is not None and unsent == 0 and rested >= limits.idle_timeout:
            return Verdict(
                EndReason.IDLE, f"nothing was sent or received for {limits.idle_timeout} s"
            )
        if limits.minimum_rate is not None:
            return self._look_at_rate(figures, sent, now, limits.minimum_rate)
        return None

    def _look_at_rate(self, figures: Figures, sent: int, now: float, rate: float) -> Verdict | None:
        """Say where a message that has begun comes too slowly, or what was written goes too
        slowly."""
        received, unread, waits, _, unsent = figures
        taken = received - unread
        if not (waits and unread):
            self._in.stop()
        elif self._taken != taken:
            # Another message.
            self._in.begin(received, now)
        elif self._in.is_slow(received, now, rate):
            return Verdict(EndReason.RATE, f"a message comes at less than {rate} bytes/s")
        self._taken = taken
        if not unsent:
            self._out.stop()
        elif self._out.is_slow(sent, now, rate):
            return Verdict(
                EndReason.RATE, f"the peer takes what is sent at less than {rate} bytes/s"
            )
        return None
