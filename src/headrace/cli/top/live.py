"""The live view of ``headrace top``, which rich draws."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.cli.top.endpoint import Unavailable, fetch
from headrace.cli.top.history import EndpointHistory, ServerHistory
from headrace.cli.top.table import RATES, REASONS, count

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


async def watch(url: str, interval: float, console: Console) -> None:
    """Show the live view until cancelled, whether the endpoint is there or not."""
    from rich.live import Live

    endpoint = EndpointHistory()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            try:
                endpoint.take(await fetch(url), begun)
            except Unavailable as error:
                endpoint.lose(str(error), time.strftime("%H:%M:%S"))
            live.update(render(endpoint, url, time.monotonic()), refresh=True)
            await asyncio.sleep(max(0.0, begun + interval - time.monotonic()))


def render(endpoint: EndpointHistory, url: str, at: float) -> RenderableType:
    """Return the live view of the *endpoint* at *url*, at the time *at* in seconds, for rich."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text.assemble(("headrace top ", "bold"), url)]
    if endpoint.trouble:
        parts.append(Text(endpoint.trouble, style="bold red"))
    style = "dim" if endpoint.trouble else "none"
    parts += [_panel(name, server, at, style) for name, server in endpoint.servers.items()]
    return Group(*parts)


def _panel(name: str, server: ServerHistory, at: float, style: str) -> RenderableType:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, line in _lines(server, at):
        grid.add_row(title, Text(line))
    state = (" draining", "bold yellow") if server.value("draining") else ""
    headline = Text.assemble(
        (name, "bold"), f" up {_duration(server.value('uptime_seconds'))}", state
    )
    return Panel(grid, title=headline, title_align="left", style=style)


def _lines(server: ServerHistory, at: float) -> list[tuple[str, str]]:
    """Return what the live view says of *server*: titles and lines."""
    accepts, received, sent = map(server.rate, RATES)
    value = server.value
    highest = max((sample for _, sample in server.history), default=0)
    return [
        (
            "open",
            f"{count(value('connections_open'))}{_bound(server)}, "
            f"{count(value('connections_negotiating'))} negotiating",
        ),
        ("last minute", f"{server.sparkline(at)}  at most {count(highest)} open"),
        (
            "accepts",
            f"{count(accepts, 1)}/s, {count(value('connections_accepted_total'))} in all",
        ),
        (
            "bytes",
            f"in {_bytes(received)}/s, out {_bytes(sent)}/s, buffered "
            f"{_bytes(value('buffered_bytes'))}",
        ),
        *((title, f"{count(value(metric))}{_causes(server, metric)}") for title, metric in REASONS),
        (
            "errors",
            f"{count(value('handler_errors_total'))} of {count(value('handlers_total'))} handlers",
        ),
    ]


def _bound(server: ServerHistory) -> str:
    """Return what to say of how many connections may be open."""
    if not server.now.get("connections_limit"):
        return ""
    none = "" if server.value("accepting") else ", accepting none"
    return f" of at most {count(server.value('connections_limit'))}{none}"


def _causes(server: ServerHistory, metric: str) -> str:
    """Return the causes of what went wrong, the most frequent first, as the end of a line."""
    causes = sorted(server.now.get(metric, {}).items(), key=lambda item: -item[1])
    words = ", ".join(f"{reason} {count(value)}" for reason, value in causes)
    return f": {words}" if words else ""


def _bytes(value: float | None) -> str:
    from rich.filesize import decimal

    return "-" if value is None else decimal(round(value))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
