"""The plain table of ``headrace top --once``: for scripts, and where rich is not installed."""

from __future__ import annotations

import re

from headrace.cli.top.history import EndpointHistory, ServerHistory

# What went wrong, by reason: the title and the metric.
REASONS = (
    ("refused", "connections_refused_total"),
    ("ended", "connections_closed_by_server_total"),
    ("failed", "handshake_failures_total"),
)
RATES = ("connections_accepted_total", "received_bytes_total", "sent_bytes_total")
TITLES = (
    "server",
    "open",
    "accepts/s",
    "in-B/s",
    "out-B/s",
    "buffered-B",
    "draining",
    *(title for title, _ in REASONS),
    "errors",
)


def plain_table(endpoint: EndpointHistory) -> str:
    """Return one line a server, in columns that are separated by blanks and have none inside, under
    a line of titles."""
    rows = [list(TITLES)]
    for name, server in endpoint.servers.items():
        rows.append([re.sub(r"\s", "_", cell) for cell in _cells(name, server)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cells(name: str, server: ServerHistory) -> list[str]:
    return [
        name,
        count(server.value("connections_open")),
        *(count(server.rate(rate), 1) for rate in RATES),
        count(server.value("buffered_bytes")),
        "yes" if server.value("draining") else "no",
        *(_causes(server, metric) for _, metric in REASONS),
        count(server.value("handler_errors_total")),
    ]


def _causes(server: ServerHistory, metric: str) -> str:
    causes = sorted(server.now.get(metric, {}).items())
    return ",".join(f"{reason}={count(value)}" for reason, value in causes) or "-"


def count(value: float | None, digits: int = 0) -> str:
    """Return *value* with so many *digits* behind the point; "-" where it is not known."""
    return "-" if value is None else f"{value:.{digits}f}"
