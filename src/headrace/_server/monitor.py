"""Monitor: looks at the connections of a server now and then, and ends those that break its bounds.

Nothing of it is on the path of the data: readers and writers count their bytes, and the monitor
compares the counts with those it saw before. So a bound is kept with a delay, of up to two periods;
it is never broken early. A period is an eighth of the shortest time that is bounded, and a round is
cut into slices, so that ten thousand connections do not keep the loop busy at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace._server.config import Limits
from headrace._server.connection import Connection

if TYPE_CHECKING:
    from headrace._server.server import StreamServer

# How often at most, and at least, each connection is looked at, in seconds; the least is also how
# stale a total of buffered bytes is.
SHORTEST_PERIOD = 0.02
LONGEST_PERIOD = 5.0
MEMORY_PERIOD = 0.5
PERIODS_IN_TIMEOUT = 8
# How many connections are looked at without a pause: some 100 us.
SLICE = 64
# Over which time a minimum rate is meant, in seconds: long enough that a packet lost twice (RFC
# 6298: 1 s, then 2 s) does not count.
RATE_SECONDS = 10.0
# How long a connection that was turned away may take to go, in seconds.
REFUSED_SECONDS = 5.0
# When buffers have shrunk to this share of their bound, accepting goes on.
RELIEF = 0.9


class Slow:
    """A message that comes, and what goes: since when, and how much had by then."""

    __slots__ = ("in_bytes", "in_since", "in_taken", "out_bytes", "out_since")

    def __init__(self) -> None:
        self.in_since = self.out_since = 0.0
        self.in_bytes = self.in_taken = self.out_bytes = -1


class Monitor:
    """Looks at the connections of a server, in slices, and ends those that break its bounds."""

    def __init__(
        self, server: StreamServer, limits: Limits, end: Callable[[Connection, str, str], None]
    ) -> None:
        self._server = server
        self._limits = limits
        # Ends a connection: (connection, reason, the error's text).
        self._end = end
        times = [
            each
            for each in (limits.first_byte_timeout, limits.idle_timeout, limits.stall_timeout)
            if each is not None
        ]
        if limits.minimum_rate is not None:
            times.append(RATE_SECONDS)
        period = min(times) / PERIODS_IN_TIMEOUT if times else LONGEST_PERIOD
        if limits.max_buffered_bytes is not None:
            period = min(period, MEMORY_PERIOD)
        self.period = max(SHORTEST_PERIOD, min(LONGEST_PERIOD, period))
        self._wanted = bool(times) or limits.max_buffered_bytes is not None
        self._timer: asyncio.TimerHandle | None = None
        self._round: list[Connection] = []
        self._total = 0
        self._largest: list[tuple[int, Connection]] = []

    def start(self) -> None:
        """Begin to look."""
        if self._wanted and self._timer is None:
            self._timer = self._server.get_loop().call_later(self.period, self._turn)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        loop = self._server.get_loop()
        if not self._round:
            self._round = list(self._server.connections)
            self._total = 0
            self._largest.clear()
        now = loop.time()
        slice_, self._round[-SLICE:] = self._round[-SLICE:], []
        # First of all: whatever goes wrong with a connection, the others are looked at.
        self._timer = loop.call_later(0 if self._round else self.period, self._turn)
        for connection in slice_:
            self._look(connection, now)
        if not self._round:
            self._bound_memory()

    def _look(self, connection: Connection, now: float) -> None:
        """Compare *connection* with what was seen of it before."""
        if connection._ended is not None:
            # Its handler was told, and does not come to its end.
            if connection._task is not None and not connection._cancelled:
                connection._cancelled = True
                connection._task.cancel()
            elif not connection._handled and connection._writer is not None:
                # It was turned away, and does not go.
                if not connection._since:
                    connection._since = now
                elif now - connection._since > REFUSED_SECONDS:
                    connection._abort(ConnectionAbortedError("the connection was refused"))
            return
        if connection._lost or not connection._handled:
            return
        limits = self._limits
        received, unread, waits, written, unsent = connection._figures()
        # Not what the system has taken: it asks for more only when a third of its buffer is free,
        # which may be a megabyte.
        sent = written - unsent - (connection._queued() if unsent else 0)
        self._total += unread + unsent
        if limits.max_buffered_bytes is not None and unread + unsent > 0:
            self._largest.append((unread + unsent, connection))
        moved = received != connection._received or sent != connection._sent
        if unsent == 0 or sent != connection._sent or connection._stalled is None:
            connection._stalled = now if unsent else None
        connection._received = received
        connection._sent = sent
        # A handler that works, and neither reads nor is kept from writing, may take its time.
        if moved or (not waits and unsent == 0):
            connection._since = now
        if (
            limits.stall_timeout is not None
            and connection._stalled is not None
            and now - connection._stalled >= limits.stall_timeout
        ):
            self._end(
                connection,
                "stalled",
                f"the peer has taken nothing for {limits.stall_timeout} s of {unsent} bytes that "
                "wait for it",
            )
        elif (
            received == written == 0
            and limits.first_byte_timeout is not None
            and now - connection._since >= limits.first_byte_timeout
        ):
            self._end(
                connection,
                "first byte",
                f"the peer has sent nothing for {limits.first_byte_timeout} s",
            )
        elif (
            limits.idle_timeout is not None
            and unsent == 0
            and now - connection._since >= limits.idle_timeout
        ):
            self._end(
                connection, "idle", f"nothing was sent or received for {limits.idle_timeout} s"
            )
        elif limits.minimum_rate is not None:
            self._look_at_rate(
                connection, limits.minimum_rate, now, received, unread, waits, sent, unsent
            )

    def _look_at_rate(
        self,
        connection: Connection,
        rate: float,
        now: float,
        received: int,
        unread: int,
        waits: bool,
        sent: int,
        unsent: int,
    ) -> None:
        """End *connection* where a message that has begun comes too slowly, or what was written
        goes too slowly."""
        slow = connection._slow
        if not (waits and unread) and not unsent:
            connection._slow = None
            return
        if slow is None:
            slow = connection._slow = Slow()
        taken = received - unread
        if not (waits and unread) or slow.in_taken != taken:
            slow.in_since, slow.in_bytes, slow.in_taken = now, received, taken
        elif now - slow.in_since >= RATE_SECONDS:
            if received - slow.in_bytes < rate * (now - slow.in_since):
                self._end(connection, "rate", f"a message comes at less than {rate} bytes/s")
                return
            slow.in_since, slow.in_bytes = now, received
        if not unsent or slow.out_bytes < 0:
            slow.out_since, slow.out_bytes = now, sent
        elif now - slow.out_since >= RATE_SECONDS:
            if sent - slow.out_bytes < rate * (now - slow.out_since):
                self._end(
                    connection, "rate", f"the peer takes what is sent at less than {rate} bytes/s"
                )
                return
            slow.out_since, slow.out_bytes = now, sent

    def _bound_memory(self) -> None:
        """Accept nothing while the buffers are too full, and end the connections with the fullest
        until they are not."""
        most = self._limits.max_buffered_bytes
        if most is None:
            return
        if self._total <= most * RELIEF:
            self._server._gate.release("memory")
        if self._total > most:
            self._server._gate.hold("memory")
            total = self._total
            for size, connection in sorted(self._largest, key=lambda each: -each[0]):
                if total <= most * RELIEF:
                    break
                total -= size
                self._end(
                    connection,
                    "memory",
                    f"the server's buffers hold more than {most} bytes, {size} of them for this "
                    "connection",
                )
        self._largest.clear()
