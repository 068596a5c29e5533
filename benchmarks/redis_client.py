"""Measure what a command costs redis-py's asyncio client, which knows nothing of us.

The figure is the client process's own CPU time per command, user and kernel, under
plain python and under ``headrace run``. redis-server runs on a CPU of its own. Compare
ratios within one run, not figures across runs.

uses:
  single       one connection: SET and GET of 100 bytes, one at a time
  pipelined    one connection: 100 such commands in a pipeline, one pipeline at a time
  concurrent   50 tasks with a connection each, from one pool; each does as single does

examples:
  python -m benchmarks.redis_client
      all uses on both loops, 5 rounds of 2 s: about 3 minutes
  python -m benchmarks.redis_client --uses pipelined --loops uvloop --rounds 9
      one use on one loop, longer
  python -m benchmarks.redis_client --parser python
      without hiredis, which redis-py uses as its parser if it is installed
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import names_of, positive
from .process import Child, Pinning, child
from .runner import PATIENCE_S, Cell, Failed, Sample, _watchdog

if TYPE_CHECKING:
    from rich.table import Table

HERE = Path(__file__).parent
USES = ("single", "pipelined", "concurrent")
LOOPS = ("asyncio", "uvloop")
STREAMS = ("asyncio", "headrace")
PARSERS = ("hiredis", "python")
VALUE = "x" * 100
PIPELINE = 100
TASKS = 50


# The client: the process that is measured. It starts on the word to go on.


async def _single(client: Any, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        await client.set("key", VALUE)
        await client.get("key")
        count += 2
    return count


async def _pipelined(client: Any, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(PIPELINE // 2):
                pipeline.set("key", VALUE).get("key")
            answers = await pipeline.execute()
        count += len(answers)
    return count


async def _concurrent(client: Any, until: float) -> int:
    return sum(await asyncio.gather(*(_single(client, until) for _ in range(TASKS))))


def _pool(port: int, parser: str) -> Any:
    import redis._parsers
    import redis.asyncio

    parser_class = {
        "hiredis": redis._parsers._AsyncHiredisParser,
        "python": redis._parsers._AsyncRESP3Parser,
    }[parser]
    return redis.asyncio.ConnectionPool(
        host="127.0.0.1", port=port, parser_class=parser_class, protocol=3
    )


async def _client(options: argparse.Namespace) -> None:
    import redis.asyncio

    work = {"single": _single, "pipelined": _pipelined, "concurrent": _concurrent}
    use = work[options.client]
    pool = _pool(options.port, options.parser)
    client = redis.asyncio.Redis(connection_pool=pool)
    connection = await pool.get_connection()
    streams = type(connection._reader).__module__.partition(".")[0]
    await pool.release(connection)
    await use(client, time.monotonic() + options.warmup)
    print(json.dumps({"streams": streams, "versions": _versions(options)}), flush=True)
    sys.stdin.readline()
    began, began_cpu = time.monotonic(), time.process_time_ns()
    commands = await use(client, began + options.seconds)
    cpu_ns, seconds = time.process_time_ns() - began_cpu, time.monotonic() - began
    facts = {"commands": commands, "cpu_ns": cpu_ns, "seconds": seconds}
    print(json.dumps(facts), flush=True)
    await client.aclose()
    await pool.disconnect()


def _versions(options: argparse.Namespace) -> str:
    packages = ["redis", *(["hiredis"] if options.parser == "hiredis" else [])]
    packages += [options.loops[0]] if options.loops[0] != "asyncio" else []
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join([f"CPython {platform.python_version()}", *versions])


def _run_client(options: argparse.Namespace) -> int:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if options.loops == ["uvloop"]:
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_client(options))
    return 0


# The runner: redis-server, and the clients one after another.


@contextmanager
def _redis_server(pinning: Pinning) -> Iterator[int]:
    """Run a redis-server that keeps nothing; yield its port on loopback."""
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("redis-server is not installed (Debian: redis-server)")
    # Nobody holds the port until redis-server does. Where another was faster, it says so.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        command += ["--appendonly", "no", "--dir", directory]
        with child(command, pinning.load, directory=Path(directory)) as server:
            said = [""]
            with _watchdog(server, PATIENCE_S):
                while "eady to accept connections" not in said[-1]:
                    said.append(server.read_line())
                    if not said[-1]:
                        reason = "".join(said)[-300:]
                        raise Failed(f"redis-server did not start: {reason}")
            yield port


def _answer(client: Child) -> dict[str, Any]:
    line = client.read_line()
    if not line:
        raise Failed(client.stderr()[-300:] or "the client ended without a word")
    facts: dict[str, Any] = json.loads(line)
    return facts


def _measure(
    use: str,
    loop: str,
    streams: str,
    port: int,
    pinning: Pinning,
    options: argparse.Namespace,
) -> tuple[Sample, str]:
    """Run one client; return its sample and the versions it found."""
    under = ["-m", "headrace", "run"] if streams == "headrace" else []
    command = [options.python, *under, "-m", "benchmarks.redis_client"]
    command += ["--client", use, "--loops", loop, "--port", str(port)]
    command += ["--parser", options.parser]
    command += ["--seconds", str(options.seconds), "--warmup", str(options.warmup)]
    environment = dict(os.environ)
    if options.path:
        parts = [*options.path, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(parts)
    with (
        child(command, pinning.server, environment, HERE.parent) as client,
        _watchdog(client, PATIENCE_S + options.seconds + options.warmup),
    ):
        ready = _answer(client)
        if ready["streams"] != streams:
            raise Failed(f"the connections are made of {ready['streams']}'s streams")
        client.tell()
        facts = _answer(client)
        client.process.wait()
        if heard := client.stderr():
            raise Failed(heard[-300:])
    return (
        Sample(
            figure=facts["cpu_ns"] / facts["commands"] / 1000,
            rate=facts["commands"] / facts["seconds"],
            p50_us=None,
            p99_us=None,
            units=facts["commands"],
        ),
        ready["versions"],
    )


def _measure_all(
    options: argparse.Namespace, pinning: Pinning, progress: Callable[[str], None]
) -> dict[tuple[str, str, str], Cell]:
    """Measure everything *rounds* times; the two streams take turns at being first."""
    cells = {
        (use, loop, streams): Cell(use, f"{streams} on {loop}")
        for use in options.uses
        for loop in options.loops
        for streams in STREAMS
    }
    with _redis_server(pinning) as port:
        for number in range(options.rounds):
            for use in options.uses:
                for loop in options.loops:
                    for streams in STREAMS[:: 1 if number % 2 else -1]:
                        cell = cells[use, loop, streams]
                        progress(f"round {number + 1}: {use}, {cell.peer}")
                        try:
                            sample, cell.versions = _measure(
                                use, loop, streams, port, pinning, options
                            )
                        except Failed as reason:
                            cell.problems.append(str(reason))
                        else:
                            cell.samples.append(sample)
    return cells


def _table(cells: dict[tuple[str, str, str], Cell]) -> Table:
    from rich import box
    from rich.table import Table

    from .table import SHAKY, number

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("use", "loop"):
        table.add_column(heading, no_wrap=True)
    headings = ("asyncio us", "headrace us", "headrace / asyncio")
    for heading in (*headings, "asyncio / s", "headrace / s"):
        table.add_column(heading, justify="right")
    for use, loop in dict.fromkeys((use, loop) for use, loop, _ in cells):
        pair = [cells[use, loop, streams] for streams in STREAMS]
        figures = [cell.median("figure") for cell in pair]
        shown = [
            number(cell.median("figure")) + (" ~" if cell.spread() > SHAKY else "") for cell in pair
        ]
        ratio = "-"
        if figures[0] and figures[1]:
            quotient = figures[1] / figures[0]
            ratio = f"[bold {'green' if quotient <= 1 else 'red'}]{quotient:.2f}[/]"
        rates = [number(cell.median("rate")) for cell in pair]
        table.add_row(use, loop, *shown, ratio, *rates)
    return table


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.redis_client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--uses", type=names_of(USES, {}), default=list(USES), metavar="A,B")
    add("--loops", type=names_of(LOOPS, {}), default=list(LOOPS), metavar="A,B")
    add("--parser", choices=PARSERS, help="hiredis where it is installed")
    add("--rounds", type=positive(int), default=5, metavar="N", help="median of N (5)")
    add("--seconds", type=positive(float), default=2.0, metavar="T", help="a measurement (2)")
    add("--warmup", type=float, default=0.5, metavar="T", help="before each (0.5)")
    add("--python", default=sys.executable, metavar="EXE", help="of the clients")
    add(
        "--path",
        action="append",
        default=[],
        metavar="DIR",
        help="prepend to their import path",
    )
    # What the runner says to a client.
    add("--client", choices=USES, help=argparse.SUPPRESS)
    add("--port", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 when every figure came out."""
    options = _parser().parse_args(arguments)
    if options.client:
        return _run_client(options)
    try:
        from rich.console import Console
    except ImportError:
        print("benchmarks: the tables need rich: pip install rich", file=sys.stderr)
        return 2
    if options.parser is None:
        found = importlib.util.find_spec("hiredis")
        options.parser = "hiredis" if found else "python"
    options.path = [str(Path(entry).resolve()) for entry in options.path]
    console = Console() if sys.stdout.isatty() else Console(width=110)
    pinning = Pinning.choose()
    # As Ctrl-C does, so that every block that owns a process gets to stop it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Twice a second: drawing is work, and on two CPUs somebody pays for it.
    with console.status("starting", refresh_per_second=2) as status:
        try:
            cells = _measure_all(options, pinning, status.update)
        except Failed as reason:
            print(f"benchmarks: {reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("benchmarks: interrupted; everything is stopped", file=sys.stderr)
            return 130
    console.print(f"[dim]{pinning}[/]", highlight=False)
    console.print(
        f"the client's us of CPU per command, {options.rounds} rounds of"
        f" {options.seconds:g} s, {options.parser} parser",
        highlight=False,
    )
    console.print(_table(cells))
    for line in dict.fromkeys(cell.versions for cell in cells.values()):
        console.print(f"[dim]{line}[/]", highlight=False)
    complete = True
    for cell in cells.values():
        for problem in dict.fromkeys(cell.problems):
            complete = False
            console.print(f"{cell.load}, {cell.peer}: {problem}", markup=False)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
