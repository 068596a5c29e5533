"""What a message costs a server: its CPU time before and after a load, divided by the messages
answered.

CPU time is what is measured, since it moves least on a machine that does other things too. The runs
of all servers are interleaved: what disturbs the machine for a while disturbs all of them alike.
Every run has a server process of its own, since a cost may depend on what the process did before:
asyncio's receive of 256 KiB costs much more until the C library has learnt to keep that memory.

The project's benchmarks measure far more, with loads in C. They need a compiler and the source
tree; this needs nothing but the installed package, and says enough for a first look.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.cli.demo import load as load_script

STREAMS = ("stock", "headrace")
# A server or a load that says nothing for so long has failed.
TIMEOUT_S = 30.0
# Enough for caches, free lists and the specialising interpreter. Not measured.
WARM_UP_S = 0.1


@dataclass(frozen=True)
class Load:
    """One row: which handler, how large a message, how many of them in flight on each
    connection."""

    handler: str
    about: str
    message_bytes: int
    in_flight: int


LOADS = (
    Load("echo", "echo, 1 KiB", 1024, 1),
    Load("lines", "lines, 32 x 64 B", 64, 32),
    Load("frames", "frames, 16 x 128 B", 128, 16),
)


@dataclass
class Cell:
    """What one kind of streams costs on one loop under one load: microseconds of CPU a message, by
    run."""

    load: Load
    loop: str
    streams: str
    runs_us: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs_us)


class Server:
    """A server in a process of its own."""

    def __init__(self, streams: str, loop: str, cpu: int | None) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli.demo.server", streams, loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _pin(self.process.pid, cpu)
        self.ports: dict[str, int] = json.loads(self._read_line())

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with status {self.process.wait(TIMEOUT_S)}")
        return line

    def cpu_ns(self) -> int:
        """Return the CPU time of all its threads so far, in nanoseconds: the server says it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self._read_line())

    def stop(self) -> None:
        """End the server and wait for its end."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_once(cell: Cell, seconds: float) -> float:
    """Start a server for *cell* and load it for *seconds*; return the microseconds of CPU a message
    cost it."""
    server_cpu, load_cpu = _cpus()
    server = Server(cell.streams, cell.loop, server_cpu)
    load = subprocess.Popen(
        [
            sys.executable,
            "-I",
            load_script.__file__,
            str(server.ports[cell.load.handler]),
            str(cell.load.message_bytes),
            str(cell.load.in_flight),
            str(WARM_UP_S),
            str(seconds),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    _pin(load.pid, load_cpu)
    try:
        assert load.stdout is not None
        load.stdout.readline()
        before = server.cpu_ns()
        out, _ = load.communicate("go\n", timeout=TIMEOUT_S + seconds)
        if load.returncode != 0:
            raise RuntimeError(f"the load ended with status {load.returncode}")
        return (server.cpu_ns() - before) / 1000 / int(out)
    finally:
        if load.poll() is None:
            load.kill()
            load.communicate()
        server.stop()


def measure(
    loops: list[str], rounds: int, seconds: float, advance: Callable[[str], None]
) -> list[Cell]:
    """Return every cell, measured in *rounds* interleaved runs of *seconds* each; *advance* is told
    of each run before it begins."""
    cells = [Cell(load, loop, streams) for load in LOADS for loop in loops for streams in STREAMS]
    for _ in range(rounds):
        for cell in cells:
            advance(
                f"{cell.load.handler}, {cell.loop}, "
                f"{'asyncio streams' if cell.streams == 'stock' else 'headrace'}"
            )
            cell.runs_us.append(run_once(cell, seconds))
    return cells


def available_loops() -> list[str]:
    """Return the loops that can be measured here."""
    return ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]


def _cpus() -> tuple[int | None, int | None]:
    """Return a CPU for the servers and another for the load, or None for both where there are not
    two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def _pin(pid: int, cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(pid, {cpu})
