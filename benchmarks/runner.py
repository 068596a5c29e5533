"""Measure one peer under one load, and many of them in turn.

The figure is the server's own CPU time (or memory) between two idle moments, divided by the units
that the load counted between them. Peers take turns inside a round, and each round starts with
another one, so that a slow minute affects all.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .build import HERE, BuildError, Programs, tokio_server
from .loads import LOADS, Load
from .peers import PEERS, Peer
from .process import Child, Pinning, child, cpu_ns, resident_bytes, settle

PATIENCE_S = 90.0  # on top of the durations asked for; the load itself gives up after 20


@dataclass(frozen=True)
class Settings:
    """What all measurements of a run have in common."""

    programs: Programs
    pinning: Pinning
    certificate: Path | None
    rounds: int = 3
    seconds: float = 2.0
    warmup: float = 0.3
    python: str = sys.executable
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One measurement. *figure* is in the load's unit; latencies may be absent."""

    figure: float
    rate: float
    p50_us: float | None
    p99_us: float | None
    units: float


@dataclass
class Cell:
    """A peer under a load: its samples, or why there are none."""

    load: str
    peer: str
    versions: str = ""
    samples: list[Sample] = field(default_factory=list)
    skipped: str | None = None
    problems: list[str] = field(default_factory=list)

    def median(self, name: str) -> float | None:
        """The median over rounds of one field of the samples."""
        values = [getattr(sample, name) for sample in self.samples]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def spread(self) -> float:
        """How far the rounds lie apart: (highest - lowest) / median."""
        figures = [sample.figure for sample in self.samples]
        middle = statistics.median(figures) if figures else 0.0
        return (max(figures) - min(figures)) / middle if middle else 0.0


class Failed(Exception):
    """A measurement that gave no figure."""


class Unavailable(Exception):
    """A peer that will not serve this load, now or in a later round."""


def _server_command(peer: Peer, load: Load, settings: Settings) -> list[str]:
    if peer.loop == "C":
        discard = ["--discard"] if load.shape == "discard" else []
        return [str(settings.programs.echo_server), *discard]
    if peer.loop == "tokio":
        return [str(tokio_server())]
    command = [
        settings.python,
        "-m",
        "benchmarks.servers",
        peer.name,
        load.name,
        "--port",
        "0",
    ]
    if load.tls:
        command += ["--cert", str(settings.certificate)]
    return command


def _environment(settings: Settings) -> dict[str, str]:
    environment = dict(os.environ)
    inherited = environment.get("PYTHONPATH")
    parts = [*settings.path, *([inherited] if inherited else [])]
    if parts:
        environment["PYTHONPATH"] = os.pathsep.join(parts)
    return environment


@contextmanager
def _watchdog(process: Child, seconds: float) -> Iterator[None]:
    """Kill *process* if the block takes longer: its end unblocks its reader."""
    timer = threading.Timer(seconds, process.process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _greeting(server: Child) -> dict[str, Any]:
    line = server.read_line()
    if not line:
        raise Failed(f"the server did not start: {server.stderr()[-300:] or 'no reason given'}")
    facts: dict[str, Any] = json.loads(line)
    for word in ("missing", "skipped"):
        if word in facts:
            raise Unavailable(f"{word}: {facts[word]}" if word == "missing" else facts[word])
    return facts


def _expect(load: Child, server: Child) -> str:
    line = load.read_line()
    if not line:
        load.process.wait()
        reason = load.stderr() or f"the load ended with {load.process.returncode}"
        heard = server.stderr().splitlines()
        raise Failed(reason + (f" (server: {heard[-1]})" if heard else ""))
    return line


def _weigh(server: Child, load_process: Child, memory: bool) -> Sample:
    """Let the load run its measured phase and read the server before and after."""
    settle(server.pid)
    read = resident_bytes if memory else cpu_ns
    before = read(server.pid)
    load_process.tell()
    facts = json.loads(_expect(load_process, server))
    settle(server.pid)
    cost = read(server.pid) - before
    units = facts["messages"]
    if not units:
        raise Failed("the load counted nothing")
    return Sample(
        figure=cost / units / (1 if memory else 1000),
        rate=units / facts["seconds"],
        p50_us=facts["p50_us"] or None,
        p99_us=facts["p99_us"] or None,
        units=units,
    )


def measure(peer: Peer, load: Load, settings: Settings) -> tuple[Sample, str, str]:
    """Start both programs and measure once.

    Returns: the sample, the server's versions, and what it wrote to stderr until then,
    while the connections still stood: how it takes their end is not the load's matter.
    """
    server_command = _server_command(peer, load, settings)
    load_command = [str(settings.programs.load), *load.arguments()]
    load_command += [
        "--seconds",
        str(settings.seconds),
        "--warmup",
        str(settings.warmup),
    ]
    patience = PATIENCE_S + settings.seconds + settings.warmup
    with (
        child(
            server_command,
            settings.pinning.server,
            _environment(settings),
            HERE.parent,
        ) as server,
        _watchdog(server, patience),
    ):
        facts = _greeting(server)
        load_command += ["--port", str(facts["port"])]
        with (
            child(load_command, settings.pinning.load) as load_process,
            _watchdog(load_process, patience),
        ):
            _expect(load_process, server)
            sample = _weigh(server, load_process, memory=load.mode == "memory")
            heard = server.stderr()
        return sample, str(facts.get("versions", "")), heard


def _unavailable(peer: Peer, load: Load, settings: Settings) -> str | None:
    if load.tls and not settings.programs.tls:
        return "the load generator was built without TLS; .build/load.log says why"
    reason = peer.reason_to_skip(load)
    if reason is None and peer.loop == "tokio":
        try:
            tokio_server()
        except BuildError as error:
            return f"missing: {error}"
    return reason


def run(
    loads: Sequence[str],
    peers: Sequence[str],
    settings: Settings,
    progress: Callable[[str, bool], None],
) -> list[Cell]:
    """Measure every pair *rounds* times; ``progress(what, finished)`` frames each one.

    Cells come back in order of load, then peer. A failure is kept in its cell and the
    rest goes on: one broken peer must not cost an hour of figures.
    """
    cells = {(load, peer): Cell(load, peer) for load in loads for peer in peers}
    for (load, peer), cell in cells.items():
        cell.skipped = _unavailable(PEERS[peer], LOADS[load], settings)
    for number in range(settings.rounds):
        turn = number % len(peers)
        for load in loads:
            for peer in (*peers[turn:], *peers[:turn]):
                cell = cells[load, peer]
                progress(f"round {number + 1}: {load} on {peer}", False)
                if cell.skipped is None:
                    _add_sample(cell, settings)
                progress("", True)
    return list(cells.values())


def _add_sample(cell: Cell, settings: Settings) -> None:
    try:
        sample, cell.versions, heard = measure(PEERS[cell.peer], LOADS[cell.load], settings)
    except Unavailable as reason:
        cell.skipped = str(reason)
    except Failed as reason:
        cell.problems.append(str(reason))
    else:
        cell.samples.append(sample)
        if heard:
            lines = heard.splitlines()
            cell.problems.append(f"{len(lines)} lines on the server's stderr, last: {lines[-1]}")
