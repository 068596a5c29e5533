"""Measure what a message costs a server, for headrace and its peers.

The figure is the server's own CPU time per message, read from /proc before and after
the load, on a CPU of its own. Compare ratios within one run, not figures across runs.

examples:
  python -m benchmarks
      echo10, line and frame on the usual peers, 3 rounds of 2 s: about 2 minutes
  python -m benchmarks --loads plain --peers C,uvloop,headrace-uvloop --base uvloop
      all plain loads of three peers, ratios to asyncio streams on uvloop
  python -m benchmarks --loads tls --rounds 5 --json tls.json --svg tls.svg
      the TLS loads, kept as figures and as a plot
  python -m benchmarks --loads resident
      bytes of resident set per idle connection
  python -m benchmarks --python ~/other/bin/python --path src
      servers run by another interpreter, headrace taken from ./src
  python -m benchmarks --list
      every load and every peer, with what it does
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .build import BuildError, certificate, programs
from .loads import GROUPS, LOADS
from .options import names_of, positive
from .peers import PEERS
from .process import Pinning
from .runner import Cell, Settings, run

USUAL_PEERS = "C,asyncio,uvloop,protocol-uvloop,aiofastnet-asyncio,headrace-asyncio,headrace-uvloop"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    loads = names_of(LOADS, GROUPS)
    peers = names_of(PEERS, {"all": tuple(PEERS)})
    add = parser.add_argument
    add(
        "--loads",
        type=loads,
        default="quick",
        metavar="A,B",
        help="loads or groups (quick)",
    )
    add("--peers", type=peers, default=USUAL_PEERS, metavar="A,B", help="peers, or all")
    add(
        "--base",
        default="asyncio",
        choices=PEERS,
        metavar="PEER",
        help="ratio 1 (asyncio)",
    )
    add("--rounds", type=positive(int), default=3, metavar="N", help="median of N (3)")
    add(
        "--seconds",
        type=positive(float),
        default=2.0,
        metavar="T",
        help="a measurement (2)",
    )
    add(
        "--warmup",
        type=positive(float),
        default=0.3,
        metavar="T",
        help="before each (0.3)",
    )
    add("--json", type=Path, metavar="FILE", help="write all samples")
    add("--svg", type=Path, metavar="FILE", help="write a bar plot (needs matplotlib)")
    add(
        "--python",
        default=sys.executable,
        metavar="EXE",
        help="interpreter of the servers",
    )
    add(
        "--path",
        action="append",
        default=[],
        metavar="DIR",
        help="prepend to their import path",
    )
    add("--list", action="store_true", help="list loads and peers, and stop")
    return parser


def _list_everything() -> None:
    for title, rows in (
        ("loads", {name: load.about for name, load in LOADS.items()}),
        ("groups of loads", {name: ", ".join(loads) for name, loads in GROUPS.items()}),
        ("peers", {name: peer.about for name, peer in PEERS.items()}),
    ):
        print(f"{title}:")
        for name, about in rows.items():
            label, indent = f"  {name:20}", " " * 22
            print(textwrap.fill(about, 78, initial_indent=label, subsequent_indent=indent))


def _as_json(cells: Sequence[Cell], settings: Settings, base: str) -> str:
    medians = ("figure", "p50_us", "p99_us", "rate")
    return json.dumps(
        {
            "machine": platform.platform(),
            "pinning": str(settings.pinning),
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "base": base,
            "cells": [
                asdict(cell)
                | {"unit": LOADS[cell.load].unit}
                | {"median": {name: cell.median(name) for name in medians}}
                for cell in cells
            ],
        },
        indent=1,
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # As Ctrl-C does, so that every block that owns a process gets to stop it.
    raise KeyboardInterrupt


def _measure(options: argparse.Namespace, settings: Settings) -> list[Cell]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
    )
    # Twice a second: drawing is work, and on two CPUs somebody pays for it.
    with Progress(*columns, refresh_per_second=2, transient=True) as bar:
        total = settings.rounds * len(options.loads) * len(options.peers)
        task = bar.add_task("starting", total=total)

        def progress(what: str, finished: bool) -> None:
            if finished:
                bar.advance(task)
            else:
                bar.update(task, description=what)

        return run(options.loads, options.peers, settings, progress)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 when at least one figure came out."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list_everything()
        return 0
    try:
        from rich.console import Console

        from .table import print_report
    except ImportError:
        print("benchmarks: the tables need rich: pip install rich", file=sys.stderr)
        return 2
    if options.svg and importlib.util.find_spec("matplotlib") is None:
        print("benchmarks: --svg needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    # Piped into a file nobody narrows the columns: let them be as wide as they are.
    console = Console() if sys.stdout.isatty() else Console(width=110)
    signal.signal(signal.SIGTERM, _interrupt)
    pem: Path | None = None
    try:
        built = programs()
        if built.tls and any(LOADS[load].tls for load in options.loads):
            pem = certificate()
        settings = Settings(
            programs=built,
            pinning=Pinning.choose(),
            certificate=pem,
            rounds=int(options.rounds),
            seconds=options.seconds,
            warmup=options.warmup,
            python=options.python,
            path=tuple(str(Path(entry).resolve()) for entry in options.path),
        )
        console.print(f"[dim]{settings.pinning}[/]", highlight=False)
        cells = _measure(options, settings)
    except BuildError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted; all servers are stopped", file=sys.stderr)
        return 130
    finally:
        if pem is not None:
            pem.unlink(missing_ok=True)
    print_report(console, cells, options.base)
    if options.json:
        options.json.write_text(_as_json(cells, settings, options.base))
    if options.svg:
        from .plot import save_svg

        versions = dict.fromkeys(cell.versions for cell in cells if cell.versions)
        save_svg(cells, options.svg, "; ".join([str(settings.pinning), *versions]))
    return 0 if any(cell.samples for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
