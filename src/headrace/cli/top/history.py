"""What was seen of the servers behind an endpoint: the last two samples, and the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.cli.top.endpoint import Figures

HISTORY_S = 60.0
BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 30


@dataclass(slots=True)
class ServerHistory:
    """One server: its last two samples, and how many connections it had in the last minute."""

    now: Figures = field(default_factory=dict)
    before: Figures = field(default_factory=dict)
    history: deque[tuple[float, float]] = field(default_factory=deque)

    def take(self, sample: Figures, at: float) -> None:
        """Add the *sample* of the time *at*, in seconds of a clock that never goes back."""
        self.before, self.now = self.now, sample
        self.history.append((at, self.value("connections_open")))
        while self.history[0][0] <= at - HISTORY_S:
            self.history.popleft()

    def value(self, name: str) -> float:
        """Return a figure, of all reasons together."""
        return sum(self.now.get(name, {}).values())

    def rate(self, name: str) -> float | None:
        """Return how much a counter has grown in a second; None where it cannot be told, as in the
        first sample and after a restart."""
        if not self.before:
            return None
        # The server read its own clock together with the counters, so the way to us does not
        # matter.
        seconds = self.value("uptime_seconds") - sum(self.before.get("uptime_seconds", {}).values())
        grown = self.value(name) - sum(self.before.get(name, {}).values())
        return grown / seconds if seconds > 0 and grown >= 0 else None

    def sparkline(self, at: float) -> str:
        """Return the connections of the minute before *at* as bars, the highest of each two
        seconds; blank where there is no sample."""
        peaks = [-1.0] * SPARKLINE_WIDTH
        for when, value in self.history:
            column = int((at - when) / HISTORY_S * SPARKLINE_WIDTH)
            if column < SPARKLINE_WIDTH:
                peaks[-1 - column] = max(value, peaks[-1 - column])
        scale = (len(BARS) - 1) / max(1.0, *peaks)
        return "".join(" " if peak < 0 else BARS[round(peak * scale)] for peak in peaks)


class EndpointHistory:
    """All servers of an endpoint, as they were when it last answered, and since when it does
    not."""

    def __init__(self) -> None:
        self.servers: dict[str, ServerHistory] = {}
        self.trouble: str = ""

    def take(self, found: Mapping[str, Figures], at: float) -> None:
        """Add a sample of every server, of the time *at* in seconds; those that are no longer there
        are forgotten."""
        self.servers = {name: self.servers.get(name) or ServerHistory() for name in sorted(found)}
        for name, sample in found.items():
            self.servers[name].take(sample, at)
        self.trouble = ""

    def lose(self, why: str, clock: str) -> None:
        """Note that the endpoint gave no figures at the time *clock*, as on a wall; the first such
        time is shown."""
        since = self.trouble.partition(": ")[0] or f"gone since {clock}"
        self.trouble = f"{since}: {why}"
