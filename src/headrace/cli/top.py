"""``headrace top``: what the servers behind a metrics endpoint do, as a live view or as one plain
table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email
import math
import re
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import headrace

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

DEFAULT_URL = "http://127.0.0.1:9464/metrics"
# How long an endpoint may take, and how much it may send: a thousand servers' figures are well
# below. Not measured.
PATIENCE_S = 5.0
LARGEST_RESPONSE = 16 * 1024 * 1024
HISTORY_S = 60.0
BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 30
# What went wrong, by reason: the title and the metric.
REASONS = (
    ("refused", "connections_refused_total"),
    ("ended", "connections_closed_by_server_total"),
    ("failed", "handshake_failures_total"),
)

# One server's figures: by the name of the metric, then by reason; "" where it has none.
Figures = dict[str, dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``headrace top`` to *parser*."""
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=DEFAULT_URL,
        help=f"metrics endpoint (default: {DEFAULT_URL})",
    )
    parser.add_argument(
        "--interval",
        metavar="S",
        type=_seconds,
        default=1.0,
        help="seconds between two samples (default: 1)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="print one plain table and exit (default where the output is no terminal)",
    )


def top(options: argparse.Namespace) -> int:
    """Show the servers at ``options.url`` until Ctrl-C, or print one table; return the exit status.

    *options*: ``url``, an http or https URL (without a path: /metrics); ``interval``, seconds
    between two samples; ``once``, whether to print one table, made of two samples, and end.

    Returns: 0; 1 where one table was asked for and there are no figures; 2 for a wrong URL and for
    packages that are missing; 130 for Ctrl-C before the one table was printed, as shells have it
    (128 + SIGINT).
    """
    once = options.once or not sys.stdout.isatty()
    try:
        import prometheus_client  # noqa: F401

        if not once:
            import rich  # noqa: F401
    except ImportError:
        if once:
            return _fail("one table needs prometheus_client: pip install 'headrace[metrics]'", 2)
        return _fail(
            "it needs rich and prometheus_client (with --once no rich): pip install "
            "'headrace[cli]'",
            2,
        )
    try:
        url = _checked(options.url)
    except ValueError as error:
        return _fail(str(error), 2)
    try:
        if once:
            print(asyncio.run(_one_table(url, options.interval)))
        else:
            from rich.console import Console

            asyncio.run(_watch(url, options.interval, Console(highlight=False)))
    except Unavailable as error:
        return _fail(f"{url}: {error}", 1)
    except KeyboardInterrupt:
        return 130 if once else 0
    return 0


def _fail(why: str, status: int) -> int:
    print(f"headrace top: {why}", file=sys.stderr)
    return status


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds above 0: {text!r}")
    return value


def _clean(text: str) -> str:
    """Return *text* of a stranger without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Unavailable(Exception):
    """There are no figures; the text says why, in one line."""


def _checked(url: str) -> str:
    """Return *url*; raise ValueError where it is none of http or https."""
    try:
        parts = urlsplit(url)
        right = (
            re.fullmatch(r"https?://[!-~]+", url)
            and parts.hostname
            and parts.port != 0
            and "@" not in parts.netloc
        )
    except ValueError:  # no port, or no IPv6 address
        right = False
    if not right:
        raise ValueError(f"not an http or https URL: {url!r}; it should look like {DEFAULT_URL}")
    return url


async def fetch(url: str) -> dict[str, Figures]:
    """Return the figures at *url*, by server; raise Unavailable where there are none."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            response = await _get(url)
        found = figures(_body(response))
    except TimeoutError:
        raise Unavailable(f"no answer within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise Unavailable(_clean(error.strerror or str(error))) from error
    except ValueError as error:
        raise Unavailable(_clean(f"not what a metrics endpoint answers: {error}")) from error
    if not found:
        raise Unavailable("it answers, but has no figures of a headrace server")
    return found


async def _get(url: str) -> bytes:
    """Return all that *url* answers."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    target = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await headrace.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=secure
    )
    try:
        # HTTP/1.0: the response ends with the connection, and never comes in chunks.
        writer.write(
            f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: text/plain; "
            "version=0.0.4\r\n\r\n".encode()
        )
        response = bytearray()
        while data := await reader.read(65536):
            response += data
            if len(response) > LARGEST_RESPONSE:
                raise ValueError(f"more than {LARGEST_RESPONSE} bytes")
        return bytes(response)
    finally:
        writer.transport.abort()
        with contextlib.suppress(
            OSError
        ):  # all that matters has come, or its own error is on its way
            await writer.wait_closed()


def _body(response: bytes) -> str:
    """Return the text of an HTTP response; raise ValueError where it is none with status 200, or
    cut off."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, _, fields = head.decode("latin-1").partition("\r\n")
    if not re.match(r"HTTP/1\.\d 200\b", status):
        raise ValueError(status[:100] or "nothing")
    length = int(email.message_from_string(fields).get("Content-Length", len(body)))
    if len(body) < length:
        raise ValueError(f"it ends after {len(body)} of {length} bytes")
    return body.decode()


def figures(text: str) -> dict[str, Figures]:
    """Return the figures of headrace's servers in a *text* of metrics, by server; raise ValueError
    where it is none."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Figures] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name.startswith("headrace_") and "server" in labels and math.isfinite(value):
                reason = next((text for label, text in labels.items() if label != "server"), "")
                found.setdefault(_clean(labels["server"]), {}).setdefault(
                    name.removeprefix("headrace_"), {}
                )[_clean(reason)] = value
    return found


@dataclass(slots=True)
class Watched:
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


class View:
    """All servers of an endpoint, as they were when it last answered, and since when it does
    not."""

    def __init__(self) -> None:
        self.watched: dict[str, Watched] = {}
        self.trouble = ""

    def take(self, found: Mapping[str, Figures], at: float) -> None:
        """Add a sample of every server, of the time *at* in seconds; those that are no longer there
        are forgotten."""
        self.watched = {name: self.watched.get(name) or Watched() for name in sorted(found)}
        for name, sample in found.items():
            self.watched[name].take(sample, at)
        self.trouble = ""

    def lose(self, why: str, clock: str) -> None:
        """Note that the endpoint gave no figures at the time *clock*, as on a wall; the first such
        time is shown."""
        since = self.trouble.partition(": ")[0] or f"gone since {clock}"
        self.trouble = f"{since}: {why}"

    def plain(self) -> str:
        """Return one line a server, in columns that are separated by blanks and have none inside,
        under a line of titles."""
        titles = [
            "server",
            "open",
            "accepts/s",
            "in-B/s",
            "out-B/s",
            "buffered-B",
            "draining",
            "refused",
            "ended",
            "failed",
            "errors",
        ]
        rows = [titles]
        for name, server in self.watched.items():
            cells = [name, _count(server.value("connections_open"))]
            cells += [
                _count(server.rate(rate), 1)
                for rate in (
                    "connections_accepted_total",
                    "received_bytes_total",
                    "sent_bytes_total",
                )
            ]
            cells += [
                _count(server.value("buffered_bytes")),
                "yes" if server.value("draining") else "no",
            ]
            for _, metric in REASONS:
                cells.append(
                    ",".join(
                        f"{reason}={_count(value)}"
                        for reason, value in sorted(server.now.get(metric, {}).items())
                    )
                    or "-"
                )
            rows.append(
                [
                    re.sub(r"\s", "_", cell)
                    for cell in (*cells, _count(server.value("handler_errors_total")))
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def render(self, url: str, at: float) -> RenderableType:
        """Return the live view of the time *at*, in seconds, for rich to draw."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text.assemble(("headrace top ", "bold"), url)]
        if self.trouble:
            parts.append(Text(self.trouble, style="bold red"))
        for name, server in self.watched.items():
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="cyan", no_wrap=True)
            grid.add_column(overflow="fold")
            for title, line in _lines(server, at):
                grid.add_row(title, Text(line))
            state = (" draining", "bold yellow") if server.value("draining") else ""
            headline = Text.assemble(
                (name, "bold"), f" up {_duration(server.value('uptime_seconds'))}", state
            )
            parts.append(
                Panel(
                    grid,
                    title=headline,
                    title_align="left",
                    style="dim" if self.trouble else "none",
                )
            )
        return Group(*parts)


def _lines(server: Watched, at: float) -> list[tuple[str, str]]:
    """Return what the live view says of *server*: titles and lines."""
    accepts, received, sent = (
        server.rate(name)
        for name in ("connections_accepted_total", "received_bytes_total", "sent_bytes_total")
    )
    highest = max((value for _, value in server.history), default=0)
    lines = [
        (
            "open",
            f"{_count(server.value('connections_open'))}{_bound(server)}, "
            f"{_count(server.value('connections_negotiating'))} negotiating",
        ),
        ("last minute", f"{server.sparkline(at)}  at most {_count(highest)} open"),
        (
            "accepts",
            f"{_count(accepts, 1)}/s, {_count(server.value('connections_accepted_total'))} in all",
        ),
        (
            "bytes",
            f"in {_bytes(received)}/s, out {_bytes(sent)}/s, buffered "
            f"{_bytes(server.value('buffered_bytes'))}",
        ),
    ]
    for title, metric in REASONS:
        reasons = sorted(server.now.get(metric, {}).items(), key=lambda item: -item[1])
        causes = (
            f": {', '.join(f'{reason} {_count(value)}' for reason, value in reasons)}"
            if reasons
            else ""
        )
        lines.append((title, f"{_count(server.value(metric))}{causes}"))
    lines.append(
        (
            "errors",
            f"{_count(server.value('handler_errors_total'))} of "
            f"{_count(server.value('handlers_total'))} handlers",
        )
    )
    return lines


def _bound(server: Watched) -> str:
    """Return what to say of how many connections may be open."""
    most = server.now.get("connections_limit")
    if not most:
        return ""
    none = "" if server.value("accepting") else ", accepting none"
    return f" of at most {_count(server.value('connections_limit'))}{none}"


def _count(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _bytes(value: float | None) -> str:
    from rich.filesize import decimal

    return "-" if value is None else decimal(round(value))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


async def _one_table(url: str, interval: float) -> str:
    """Return the plain table of two samples, so that there are rates."""
    view = View()
    view.take(await fetch(url), time.monotonic())
    await asyncio.sleep(interval)
    view.take(await fetch(url), time.monotonic())
    return view.plain()


async def _watch(url: str, interval: float, console: Console) -> None:
    """Show the live view until cancelled, whether the endpoint is there or not."""
    from rich.live import Live

    view = View()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            try:
                view.take(await fetch(url), begun)
            except Unavailable as error:
                view.lose(str(error), time.strftime("%H:%M:%S"))
            live.update(view.render(url, time.monotonic()), refresh=True)
            await asyncio.sleep(max(0.0, begun + interval - time.monotonic()))
