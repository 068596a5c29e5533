"""What servers do, for Prometheus: a collector over their statistics, and a small HTTP endpoint
that answers scrapes."""

from __future__ import annotations

import asyncio
import email.utils
import functools
import os
import re
import socket
from asyncio.log import logger
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from headrace._server.statistics import Statistics
from headrace._streams.asyncio_server import Server
from headrace._streams.reader import StreamReader
from headrace._streams.start_server import start_server
from headrace._streams.writer import StreamWriter

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

# The default port of OpenTelemetry's Prometheus exporters (OpenTelemetry specification,
# OTEL_EXPORTER_PROMETHEUS_PORT).
PORT = 9464
PATH = "/metrics"
# Enough for what Prometheus and browsers send, and what a stranger can make this process keep. Not
# measured.
HEAD_BYTES = 8192
# For the request, and then for the answer: Prometheus gives a scrape 10 s by default (its
# configuration, scrape_timeout).
PATIENCE_S = 10.0
END_OF_HEAD = b"\r\n\r\n"
# RFC 9112, 3 and 5, with tokens as in RFC 9110, 5.6.2. The target and the values are looked at
# where they are used.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([!-~]+) HTTP/1\.(\d)")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([ \t!-~\x80-\xff]*)")

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


async def serve_metrics(
    *servers: Measured, host: str = "127.0.0.1", port: int = PORT, registry: Collector | None = None
) -> Server:
    """Answer Prometheus' scrapes of *servers* at ``http://host:port/metrics``; return the Server,
    which is the caller's to close.

    The text is OpenMetrics or Prometheus' own, as the Accept header asks. A client has 10 seconds
    to send its request, of at most 8 KiB, and 10 to take the answer. It is plain HTTP without
    passwords: leave it on loopback or on a network that is yours.

    Args:
        servers: what has a ``name`` and ``statistics()``. Each name must be there once.
        host, port: where to listen, as for start_server(); port 0 for one that is free.
        registry: further metrics to answer, for example ``prometheus_client.REGISTRY``; it is not
            changed. It is asked in the loop's thread, and must not hold a StatisticsCollector of
            the same servers. What it raises is logged and answered with status 500.

    Raises: ImportError where prometheus_client is not installed; ValueError for no server, or two
    of one name; OSError where the address cannot be bound.
    Cancellation: safe; nothing is left listening.
    """
    collector = StatisticsCollector(*servers)
    from prometheus_client import CollectorRegistry

    both = CollectorRegistry()
    both.register(collector)
    if registry is not None:
        both.register(registry)
    try:
        # A reader's limit does not count the separator.
        return await start_server(
            functools.partial(_serve, both), host, port, limit=HEAD_BYTES - len(END_OF_HEAD)
        )
    except socket.gaierror:  # it names the host, and its number is none of errno's
        raise
    except OSError as error:
        if error.errno is None:
            raise
        # The program has other ports, and the message is often all that is read.
        raise OSError(
            error.errno,
            f"the metrics cannot be served on {host} port {port}: {os.strerror(error.errno)}",
        ) from error


def _check_installed() -> None:
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "metrics need the package prometheus_client: pip install 'headrace[metrics]'"
        ) from error


async def _serve(registry: Collector, reader: StreamReader, writer: StreamWriter) -> None:
    """Answer one request and close."""
    try:
        response = await _response(registry, reader)
        async with asyncio.timeout(PATIENCE_S):
            writer.write(response)
            # To close while bytes of the client are unread would reset the connection, and it might
            # lose the answer (RFC 9112, 9.6).
            writer.write_eof()
            while await reader.read(HEAD_BYTES):
                pass
            writer.close()
            await writer.wait_closed()
    except OSError:  # gone, or too slow with the answer: there is nobody to tell
        writer.transport.abort()
    finally:
        writer.close()


async def _response(registry: Collector, reader: StreamReader) -> bytes:
    """Return the answer to what comes from *reader*, b"" where nothing came."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(END_OF_HEAD)
    except TimeoutError:
        return _message(HTTPStatus.REQUEST_TIMEOUT)
    except asyncio.LimitOverrunError:
        return _message(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    except asyncio.IncompleteReadError as error:
        return _message(HTTPStatus.BAD_REQUEST) if error.partial else b""
    return _answer(registry, head.removesuffix(END_OF_HEAD).decode("latin-1"))


def _answer(registry: Collector, head: str) -> bytes:
    """Return the answer to the request *head*, without the empty line at its end."""
    line, *lines = head.split("\r\n")
    request = REQUEST_LINE.fullmatch(line)
    fields: dict[str, list[str]] = {}
    for field in map(FIELD.fullmatch, lines):
        if field is None:
            return _message(HTTPStatus.BAD_REQUEST)
        fields.setdefault(field[1].lower(), []).append(field[2])
    # RFC 9112, 3.2: a request of HTTP/1.1 without Host is to be refused.
    if request is None or (request[3] != "0" and len(fields.get("host", [])) != 1):
        return _message(HTTPStatus.BAD_REQUEST)
    method, target = request[1], request[2]
    try:
        path = urlsplit(target).path  # a target may be a whole URL (RFC 9112, 3.2.2)
    except ValueError:
        return _message(HTTPStatus.BAD_REQUEST)
    with_body = method != "HEAD"
    if path != PATH:
        return _message(HTTPStatus.NOT_FOUND, with_body=with_body)
    if method not in ("GET", "HEAD"):
        return _message(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    encode, content_type = _encoder(",".join(fields.get("accept", [])))
    try:
        body = encode(registry)
    except Exception:  # of somebody's collector, whatever it may be
        logger.exception("the metrics could not be collected")
        return _message(HTTPStatus.INTERNAL_SERVER_ERROR, with_body=with_body)
    return _message(HTTPStatus.OK, body, content_type, with_body=with_body)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return what makes the text that *accept* asks for, and its content type."""
    from prometheus_client.exposition import choose_encoder

    try:
        return choose_encoder(accept)
    except (
        TypeError,
        ValueError,
    ):  # a version that is no number; Accept may be disregarded (RFC 9110, 12.4.1)
        return choose_encoder("")


def _message(
    status: HTTPStatus,
    body: bytes | None = None,
    content_type: str = "text/plain; charset=utf-8",
    *,
    allow: str | None = None,
    with_body: bool = True,
) -> bytes:
    """Return a whole response; *body* is by default the status in words."""
    if body is None:
        body = f"{status.value} {status.phrase}: the figures are at GET {PATH}\n".encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *([f"Allow: {allow}"] if allow else []),
    ]
    return "\r\n".join(lines).encode("latin-1") + END_OF_HEAD + (body if with_body else b"")
