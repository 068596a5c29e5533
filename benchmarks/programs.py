"""Measure what a request costs programs as people run them, on each event loop.

The figure is the program's own CPU time per request, user and kernel, on each loop. The programs
are unchanged and know nothing of headrace; only the loop is another. What they talk to runs on a
CPU of its own. Compare ratios within one run, not figures across runs.

programs:
  aiohttp, aiohttp-tls          its server, an answer of 13 bytes, 50 connections
  uvicorn, uvicorn-tls          likewise, with httptools
  websockets, websockets-tls    its server, an echo of 256 bytes, 10 connections
  aiohttp-client                its client, 10 connections, to a server of aiohttp's
  redis1, redis50               redis-py, GETs of 100 bytes, 1 and 50 connections; redis-server
  nats1, nats10                 nats-py, 100 bytes published and received; nats-server

examples:
  python -m benchmarks.programs
      all programs on asyncio's loop, uvloop and headrace.run(), 5 rounds of 2 s: 10 minutes
  python -m benchmarks.programs --programs aiohttp,uvicorn-tls --rounds 9
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .build import HERE, BuildError, certificate
from .options import names_of, positive
from .process import Child, Pinning, child, cpu_ns, settle
from .program_sides import FACTORIES
from .runner import PATIENCE_S, Cell, Failed, Sample, Unavailable, watchdog

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Program:
    """One row: *side* and *name* as program_sides.py knows them, *other* what it talks to."""

    side: str
    name: str
    other: str
    connections: int
    tls: bool = False


PROGRAMS = {
    "aiohttp": Program("server", "aiohttp", "http", 50),
    "aiohttp-tls": Program("server", "aiohttp", "http", 50, tls=True),
    "uvicorn": Program("server", "uvicorn", "http", 50),
    "uvicorn-tls": Program("server", "uvicorn", "http", 50, tls=True),
    "websockets": Program("server", "websockets", "websocket", 10),
    "websockets-tls": Program("server", "websockets", "websocket", 10, tls=True),
    "aiohttp-client": Program("client", "aiohttp", "aiohttp", 10),
    "redis1": Program("client", "redis", "redis-server", 1),
    "redis50": Program("client", "redis", "redis-server", 50),
    "nats1": Program("client", "nats", "nats-server", 1),
    "nats10": Program("client", "nats", "nats-server", 10),
}
LOOPS = ("asyncio", "uvloop", "headrace")


class Bench:
    """What all measurements of a run have in common."""

    def __init__(self, options: argparse.Namespace, pem: Path | None) -> None:
        self.options = options
        self.pem = pem
        self.pinning = Pinning.choose()
        self.environment = dict(os.environ)
        if options.path:
            parts = [*options.path, *filter(None, [self.environment.get("PYTHONPATH")])]
            self.environment["PYTHONPATH"] = os.pathsep.join(parts)

    def side(self, *words: str) -> list[str]:
        """The command line of one side of a program."""
        times = ["--seconds", str(self.options.seconds), "--warmup", str(self.options.warmup)]
        return [self.options.python, "-m", "benchmarks.program_sides", *words, *times]

    @contextlib.contextmanager
    def start(self, command: list[str], cpus: frozenset[int]) -> Iterator[Child]:
        """Run *command* in a child that is killed if it takes far too long."""
        patience = PATIENCE_S + self.options.seconds + self.options.warmup
        with (
            child(command, cpus, self.environment, HERE.parent) as process,
            watchdog(process, patience),
        ):
            yield process

    def measure(self, program: Program, loop: str) -> tuple[Sample, str]:
        """Run the program once. Raises: Failed; Unavailable: it is not installed."""
        measure = self._server if program.side == "server" else self._client
        return measure(program, loop)

    def _server(self, program: Program, loop: str) -> tuple[Sample, str]:
        tls = ["--cert", str(self.pem)] if program.tls else []
        command = self.side("server", program.name, loop, *tls)
        with self.start(command, self.pinning.server) as server:
            said = _said(server)
            load = [sys.executable, "-m", "benchmarks.canned", program.other]
            load += ["--port", str(said["port"]), "--connections", str(program.connections)]
            load += ["--seconds", str(self.options.seconds), *["--tls"] * program.tls]
            load += ["--warmup", str(self.options.warmup)]
            with self.start(load, self.pinning.load) as client:
                if not client.read_line():
                    raise Failed(client.stderr()[-300:] or "the load ended without a word")
                settle(server.pid)
                before = cpu_ns(server.pid)
                client.tell()
                facts = _said(client)
                settle(server.pid)
                return _sample(facts, cpu_ns(server.pid) - before), said["versions"]

    def _client(self, program: Program, loop: str) -> tuple[Sample, str]:
        with self._other(program.other) as port:
            words = ["client", program.name, loop, "--port", str(port)]
            command = self.side(*words, "--connections", str(program.connections))
            with self.start(command, self.pinning.server) as client:
                said = _said(client)
                client.tell()
                facts = _said(client)
                return _sample(facts, facts["cpu_ns"]), said["versions"]

    @contextlib.contextmanager
    def _other(self, name: str) -> Iterator[int]:
        """Run the server that a client talks to; yield its port on loopback."""
        if name == "aiohttp":
            command = self.side("server", "aiohttp", "asyncio")
            with self.start(command, self.pinning.load) as server:
                yield _said(server)["port"]
            return
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            raise Unavailable(f"missing: {name} (Debian: apt-get install {name})")
        with tempfile.TemporaryDirectory() as directory:
            port = _free_port()
            command = {
                "redis-server": [path, "--save", "", "--dir", directory],
                "nats-server": [path, "--addr", "127.0.0.1"],
            }[name]
            with self.start([*command, "--port", str(port)], self.pinning.load):
                _wait_for(port)
                yield port


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise Failed("the server does not listen") from None
            time.sleep(0.02)
        else:
            return


def _said(process: Child) -> dict[str, Any]:
    line = process.read_line()
    if not line:
        raise Failed(process.stderr()[-300:] or "it ended without a word")
    facts: dict[str, Any] = json.loads(line)
    if "missing" in facts:
        raise Unavailable(f"missing: {facts['missing']}")
    return facts


def _sample(facts: dict[str, Any], cost_ns: int) -> Sample:
    count = facts["messages"]
    return Sample(cost_ns / count / 1000, count / facts["seconds"], None, None, count)


def run(options: argparse.Namespace, progress: Callable[[str], None]) -> list[Cell]:
    """Measure every pair *rounds* times; each round starts with another loop."""
    pem = certificate() if any(PROGRAMS[name].tls for name in options.programs) else None
    try:
        return _measure_all(Bench(options, pem), progress)
    finally:
        if pem is not None:
            pem.unlink(missing_ok=True)


def _measure_all(bench: Bench, progress: Callable[[str], None]) -> list[Cell]:
    options = bench.options
    cells = {(name, loop): Cell(name, loop) for name in options.programs for loop in options.loops}
    for number in range(options.rounds):
        turn = number % len(options.loops)
        for name in options.programs:
            for loop in (*options.loops[turn:], *options.loops[:turn]):
                cell = cells[name, loop]
                if cell.skipped:
                    continue
                progress(f"round {number + 1} of {options.rounds}: {name} on {loop}")
                try:
                    sample, cell.versions = bench.measure(PROGRAMS[name], loop)
                except Unavailable as reason:
                    cell.skipped = str(reason)
                except Failed as reason:
                    cell.problems.append(str(reason))
                else:
                    cell.samples.append(sample)
    return list(cells.values())


def _table(cells: list[Cell], loops: list[str], base: str) -> Table:
    from rich import box
    from rich.table import Table

    from .table import SHAKY, number

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("program", no_wrap=True)
    for loop in loops:
        table.add_column(f"{loop} us", justify="right", no_wrap=True)
        table.add_column(f"x {base}", justify="right", no_wrap=True)
    found = {(cell.load, cell.peer): cell for cell in cells}
    for name in dict.fromkeys(cell.load for cell in cells):
        row = [name]
        below = found[name, base].median("figure") if (name, base) in found else None
        for loop in loops:
            figure = found[name, loop].median("figure")
            shaky = " ~" if found[name, loop].spread() > SHAKY else ""
            row += [number(figure) + shaky, f"{figure / below:.2f}" if figure and below else "-"]
        table.add_row(*row)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.programs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--programs", type=names_of(PROGRAMS, {}), default=list(PROGRAMS), metavar="A,B")
    add(
        "--loops",
        type=names_of(FACTORIES, {}),
        default=list(LOOPS),
        metavar="A,B",
        help=f"of {', '.join(FACTORIES)} (default: {','.join(LOOPS)})",
    )
    add("--base", choices=FACTORIES, default="uvloop", help="what ratios are to (uvloop)")
    add("--rounds", type=positive(int), default=5, metavar="N", help="median of N (5)")
    add("--seconds", type=positive(float), default=2.0, metavar="T", help="a measurement (2)")
    add("--warmup", type=float, default=0.5, metavar="T", help="before each (0.5)")
    add("--python", default=sys.executable, metavar="EXE", help="of the programs")
    add("--path", action="append", default=[], metavar="DIR", help="prepend to their import path")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 when every figure came out."""
    options = _parser().parse_args(arguments)
    try:
        from rich.console import Console
    except ImportError:
        print("benchmarks: the tables need rich: pip install rich", file=sys.stderr)
        return 2
    options.path = [str(Path(entry).resolve()) for entry in options.path]
    console = Console() if sys.stdout.isatty() else Console(width=110)
    # As Ctrl-C does, so that every block that owns a process gets to stop it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with console.status("starting", refresh_per_second=2) as status:
        try:
            cells = run(options, status.update)
        except (Failed, BuildError) as reason:
            print(f"benchmarks: {reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("benchmarks: interrupted; everything is stopped", file=sys.stderr)
            return 130
    console.print(f"[dim]{Pinning.choose()}[/]", highlight=False)
    console.print(
        f"the program's us of CPU per request, {options.rounds} rounds of {options.seconds:g} s",
        highlight=False,
    )
    console.print(_table(cells, options.loops, options.base))
    for line in dict.fromkeys(cell.versions for cell in cells if cell.versions):
        console.print(f"[dim]{line}[/]", highlight=False)
    complete = True
    for cell in cells:
        for problem in dict.fromkeys([cell.skipped] if cell.skipped else cell.problems):
            complete = False
            console.print(f"{cell.load}, {cell.peer}: {problem}", markup=False)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
