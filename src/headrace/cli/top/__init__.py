"""``headrace top``: what the servers behind a metrics endpoint do, as a live view or as one plain
table."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from headrace.cli.options import fail, seconds
from headrace.cli.top.endpoint import DEFAULT_URL, Unavailable, checked, fetch
from headrace.cli.top.history import EndpointHistory
from headrace.cli.top.table import plain_table

DESCRIPTION = """\
Show what the servers behind a metrics endpoint do: connections, rates, bytes, what was refused,
ended and failed, and why.

The endpoint is that of headrace.metrics.serve_metrics(), or of headrace serve --metrics. Needs the
extra packages of headrace[cli] (rich, prometheus_client); those of headrace[metrics]
(prometheus_client) are enough for --once.

examples:
  headrace top
  headrace top http://10.0.0.5:9464/metrics --interval 5
  headrace top --once                one plain table, for scripts
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what top() takes to *parser*."""
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
        type=seconds,
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
            return fail(
                "top", "one table needs prometheus_client: pip install 'headrace[metrics]'", 2
            )
        return fail(
            "top",
            "it needs rich and prometheus_client (with --once no rich): pip install "
            "'headrace[cli]'",
            2,
        )
    try:
        url = checked(options.url)
    except ValueError as error:
        return fail("top", str(error), 2)
    try:
        if once:
            print(asyncio.run(_one_table(url, options.interval)))
        else:
            from rich.console import Console

            from headrace.cli.top.live import watch

            asyncio.run(watch(url, options.interval, Console(highlight=False)))
    except Unavailable as error:
        return fail("top", f"{url}: {error}", 1)
    except KeyboardInterrupt:
        return 130 if once else 0
    return 0


async def _one_table(url: str, interval: float) -> str:
    """Return the plain table of two samples, so that there are rates."""
    endpoint = EndpointHistory()
    endpoint.take(await fetch(url), time.monotonic())
    await asyncio.sleep(interval)
    endpoint.take(await fetch(url), time.monotonic())
    return plain_table(endpoint)
