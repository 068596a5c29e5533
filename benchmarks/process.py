"""Reading a process's cost from /proc, pinning, and never leaving one behind.

schedstat counts nanoseconds on the CPU, user and kernel, per thread. getrusage of a child is known
only when it is over, and /proc/PID/stat counts in ticks of 10 ms. A running thread's count may lag
by a tick, so the server is read while it sleeps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

GRACE_S = 3.0  # what a server may take to stop before it is killed


def cpu_ns(pid: int) -> int:
    """CPU time of all live threads of *pid* so far, user and kernel, in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total


def resident_bytes(pid: int) -> int:
    """The resident set of *pid*: exact where the kernel sums it, else its own count."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def settle(pid: int, timeout_s: float = 20.0) -> None:
    """Wait until *pid* sleeps: two looks, 100 ms apart, differ by less than 0.2 ms."""
    deadline = time.monotonic() + timeout_s
    before = cpu_ns(pid)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = cpu_ns(pid)
        if after - before < 200_000:
            return
        before = after


@dataclass(frozen=True)
class Pinning:
    """Which CPU serves and which one loads; the same one where there is only one."""

    server: frozenset[int]
    load: frozenset[int]
    alone: bool

    @classmethod
    def choose(cls) -> Pinning:
        """Take the first two CPUs this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        first, second = allowed[0], allowed[min(1, len(allowed) - 1)]
        return cls(frozenset({first}), frozenset({second}), alone=len(allowed) > 1)

    def __str__(self) -> str:
        server, load = min(self.server), min(self.load)
        if self.alone:
            return f"server on CPU {server}, load on CPU {load}"
        return f"server and load share CPU {server}: latency and rate mean little"


class Child:
    """A child process, its pipes, and what it wrote to stderr."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._errors = errors

    def read_line(self) -> str:
        """Return the next line of its stdout; "" once it is gone."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self) -> None:
        """Send the empty line that means: go on."""
        assert self.process.stdin is not None
        # If it is gone, the missing answer says so better than a broken pipe.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def stderr(self) -> str:
        """Everything it has complained of so far."""
        self._errors.seek(0)
        return self._errors.read().strip()


@contextlib.contextmanager
def child(
    command: Sequence[str],
    cpus: frozenset[int],
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[Child]:
    """Start *command* pinned to *cpus*; at the end of the block it is gone."""
    mine = os.sched_getaffinity(0)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        # A child inherits the mask of the thread that forks it, so it is pinned from
        # its first instruction, and so is every thread it makes.
        os.sched_setaffinity(0, cpus)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=None if environment is None else dict(environment),
                cwd=directory,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, mine)
        try:
            yield Child(process, errors)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    try:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
