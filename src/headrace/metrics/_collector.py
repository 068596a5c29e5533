"""What prometheus_client collects: every figure of a server's statistics as a metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from headrace._server.statistics import Statistics

if TYPE_CHECKING:
    from prometheus_client import Metric

# Name, unit (it ends the name), attribute of Statistics, help.
GAUGES = (
    ("uptime", "seconds", "uptime", "Time since the server began to listen."),
    (
        "connections_open",
        "",
        "open",
        "Connections that are open now, those in a handshake among them.",
    ),
    (
        "connections_limit",
        "",
        "max_connections",
        "How many connections may be open; absent where there is no bound.",
    ),
    (
        "accepting",
        "",
        "accepting",
        "1 while new connections are accepted, 0 while they wait or are refused.",
    ),
    (
        "connections_negotiating",
        "",
        "negotiating",
        "Open connections in a TLS handshake or before the end of their PROXY header.",
    ),
    (
        "buffered",
        "bytes",
        "buffered_bytes",
        "Bytes received that no handler has read yet, or written and not sent yet.",
    ),
    (
        "draining",
        "",
        "draining",
        "1 while the server waits for its last connections to end, else 0.",
    ),
    (
        "last_drain",
        "seconds",
        "drain_seconds",
        "How long the last shutdown took; absent before there was one.",
    ),
)
COUNTERS = (
    (
        "connections_accepted",
        "",
        "accepted",
        "Connections accepted, those that were turned away among them.",
    ),
    ("handlers", "", "handled", "Handlers that have ended, those that raised among them."),
    (
        "received",
        "bytes",
        "received_bytes",
        "Bytes received, as handlers see them: without TLS and the PROXY protocol.",
    ),
    (
        "sent",
        "bytes",
        "sent_bytes",
        "Bytes sent, as handlers see them: without TLS and the PROXY protocol.",
    ),
)
# Name, label, attribute of Statistics, help.
COUNTERS_BY_REASON = (
    (
        "connections_refused",
        "reason",
        "refused",
        "Connections turned away when they were accepted, by reason.",
    ),
    (
        "connections_closed_by_server",
        "reason",
        "ended",
        "Connections that the server has ended, by reason.",
    ),
    (
        "handler_errors",
        "kind",
        "errors",
        "Handlers that have raised what no peer has caused, by the exception's class.",
    ),
    (
        "handshake_failures",
        "cause",
        "failed",
        "TLS handshakes and PROXY headers that failed, by cause.",
    ),
)


class Measured(Protocol):
    """What has figures: a StreamServer, or whatever else has a name and statistics."""

    @property
    def name(self) -> str:
        """The value of the label ``server``."""
        ...

    def statistics(self) -> Statistics:
        """Return the figures of now."""
        ...


class StatisticsCollector:
    """A collector of prometheus_client for the figures of *servers*, each under the label
    ``server`` with its name.

    Register it (``REGISTRY.register(StatisticsCollector(server))``) where the program has an
    endpoint of its own; serve_metrics() needs no such thing. Each collection asks for new
    statistics, in the thread that collects.

    Raises: ImportError where prometheus_client is not installed; ValueError for no server, or two
    of one name.
    """

    def __init__(self, *servers: Measured) -> None:
        _check_installed()
        if not servers:
            raise ValueError("no servers: pass at least one whose statistics are to be collected")
        names: set[str] = set()
        for server in servers:
            # It would make every scrape invalid.
            if server.name in names:
                raise ValueError(
                    f"two servers are called {server.name!r}: give each a name of its own"
                )
            names.add(server.name)
        self._servers = servers

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family with the figures of now: what prometheus_client calls."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        found = {server.name: server.statistics() for server in self._servers}
        for metric, unit, attribute, about in GAUGES:
            gauge = GaugeMetricFamily(f"headrace_{metric}", about, labels=["server"], unit=unit)
            for name, statistics in found.items():
                if (value := getattr(statistics, attribute)) is not None:
                    gauge.add_metric([name], float(value))
            yield gauge
        for metric, unit, attribute, about in COUNTERS:
            counter = CounterMetricFamily(f"headrace_{metric}", about, labels=["server"], unit=unit)
            for name, statistics in found.items():
                counter.add_metric([name], getattr(statistics, attribute))
            yield counter
        for metric, label, attribute, about in COUNTERS_BY_REASON:
            counter = CounterMetricFamily(f"headrace_{metric}", about, labels=["server", label])
            for name, statistics in found.items():
                for reason, count in getattr(statistics, attribute).items():
                    counter.add_metric([name, reason], count)
            yield counter


def _check_installed() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "metrics need the package prometheus_client: pip install 'headrace[metrics]'"
        ) from error
