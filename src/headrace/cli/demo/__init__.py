"""``headrace demo``: small programs on real sockets, then a table of what a message costs."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import time
from typing import TYPE_CHECKING

from headrace.cli.options import LOOPS, fail

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Show headrace at work on real sockets of this machine's loopback: the three programs of asyncio's
Streams documentation, TLS, unix sockets and start_tls, then a table of what a message costs a
server with asyncio's streams and with headrace.

Needs the extra packages of headrace[demo] (rich; trustme for the certificate; uvloop to have it in
the table).

examples:
  headrace demo
  headrace demo --quick            a few seconds: rougher figures
  headrace demo --no-table         only the programs
  headrace demo --loop asyncio     only one event loop in the table
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what demo() takes to *parser*."""
    parser.add_argument(
        "--quick", action="store_true", help="one short round of measuring instead of three"
    )
    parser.add_argument("--no-table", action="store_true", help="do not measure")
    parser.add_argument(
        "--loop",
        choices=LOOPS,
        action="append",
        help="measure only on this loop (may be repeated)",
    )


def demo(options: argparse.Namespace) -> int:
    """Show the scenes and, unless ``options.no_table``, the table; return the exit status.

    *options*: ``quick``, one short round of measuring; ``loop``, those to measure, by default all
    that are there.
    """
    try:
        from rich.console import Console
    except ImportError:
        print(
            "headrace demo needs rich to draw its table: pip install 'headrace[demo]'",
            file=sys.stderr,
        )
        return 2
    import headrace
    from headrace.cli import doctor
    from headrace.cli.demo.measure import available_loops
    from headrace.cli.demo.table import show_table

    console = Console(highlight=False)
    started = time.monotonic()
    console.print(
        f"[bold]headrace {headrace.__version__}[/], {doctor.build()} build, Python "
        f"{platform.python_version()}\n"
    )
    _show_scenes(console)
    if not options.no_table:
        there = available_loops()
        chosen = [loop for loop in dict.fromkeys(options.loop or there) if loop in there]
        if not chosen:
            return fail("demo", "uvloop is not installed: pip install 'headrace[uvloop]'", 2)
        show_table(console, chosen, options.quick)
    console.print(f"\nDone in {time.monotonic() - started:.0f} s.")
    return 0


def _show_scenes(console: Console) -> None:
    from headrace.cli.demo.scenes import scenes

    shown = scenes()
    for number, (title, scene) in enumerate(shown, 1):
        console.print(f"[bold cyan]{number}. {title}[/]")

        def say(line: str) -> None:
            console.print(f"   {line}", markup=False, soft_wrap=True)

        async def bounded(scene: object = scene, say: object = say) -> None:
            async with asyncio.timeout(20):
                await scene(say)  # type: ignore[operator]

        asyncio.run(bounded())
    if len(shown) < 5:
        console.print(
            "[yellow]TLS is not shown: making a certificate needs trustme (pip install "
            "'headrace[demo]') or openssl.[/]"
        )
