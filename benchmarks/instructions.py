"""Instruction counts of the data path: the figure that repeats, fit for CI.

Each operation runs under ``valgrind --tool=callgrind`` in a process of its own, once
with N turns after its warm-up and once with none. The difference divided by N is the
number of instructions one turn executes, all Python and C included, and hardly depends
on the machine. It says nothing about caches, system calls or waiting: use it to see a
change, and ``python -m benchmarks`` to see what the change is worth.

examples:
  python -m benchmarks.instructions
      count everything and compare with the kept baseline
  python -m benchmarks.instructions --check
      the same; exit with 1 if an operation costs over 5 % more
  python -m benchmarks.instructions --update
      keep what was counted, for this Python and this build
  python -m benchmarks.instructions --module asyncio
      count stock asyncio instead
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from .build import HERE
from .operations import SUBJECTS

BASELINE = HERE / "instructions-baseline.json"
TOLERANCE = 0.05
TIMEOUT_S = 600

_TOTALS = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


class Entry(TypedDict):
    """One module on one Python, as the baseline file keeps it."""

    python: str
    valgrind: str
    instructions: dict[str, int]


class CannotCount(Exception):
    """An operation gave no count; the message says why."""


def _environment(path: list[str]) -> dict[str, str]:
    """Make a small environment, the same everywhere: its size alone moves the stack.

    The hash seed orders sets and dicts of strings; without a fixed one the counts of
    two runs differ by more than most changes.
    """
    fixed = {
        "LC_ALL": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
    }
    inherited = os.environ.get("PYTHONPATH")
    parts = [*path, *([inherited] if inherited else [])]
    return fixed | ({"PYTHONPATH": os.pathsep.join(parts)} if parts else {})


def _total(module: str, operation: str, turns: int, environment: dict[str, str]) -> int:
    """Instructions of a whole process that runs *turns* turns of *operation*."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-m", "benchmarks.operations"]
        command += ["--module", module, operation, str(turns)]
        # A layout of memory that is drawn anew each time changes how dicts keyed by
        # address collide.
        if shutil.which("setarch"):
            command = ["setarch", platform.machine(), "-R", *command]
        try:
            done = subprocess.run(
                command,
                cwd=HERE.parent,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise CannotCount(f"took longer than {TIMEOUT_S} s") from error
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if "==" not in line[:10]]
            raise CannotCount(told[-1] if told else f"exit status {done.returncode}")
        match = _TOTALS.search(out.read_text())
        if match is None:
            raise CannotCount("callgrind wrote no total")
        return int(match[1])


def count(module: str, operation: str, environment: dict[str, str]) -> int:
    """Instructions of one turn of *operation*, rounded."""
    turns = SUBJECTS[operation].turns
    empty = _total(module, operation, 0, environment)
    full = _total(module, operation, turns, environment)
    return round((full - empty) / turns)


def _build(module: str, environment: dict[str, str]) -> str:
    """Ask a fresh process which build of *module* it gets."""
    code = (
        "import importlib, sys; importlib.import_module(sys.argv[1]);"
        "from benchmarks.builds import build_of; print(build_of(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotCount(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def _valgrind() -> str:
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is not installed")
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def load_baseline(path: Path) -> dict[str, Entry]:
    """Read the kept counts; none at all is a state, not an error."""
    if not path.exists():
        return {}
    kept: dict[str, Entry] = json.loads(path.read_text())
    return kept


def costlier(now: Mapping[str, int], kept: Mapping[str, int]) -> list[str]:
    """Name the operations above what was kept by more than the tolerance."""
    return [
        name for name, value in now.items() if name in kept and value > kept[name] * (1 + TOLERANCE)
    ]


def _line(name: str, value: int, kept: int | None) -> str:
    change = f"{value / kept - 1:+8.1%}" if kept else " no base"
    before = f"{kept:>12,}" if kept else " " * 12
    return f"{name:18}{value:>12,}{before}  {change}   {SUBJECTS[name].about}"


def _count_all(
    options: argparse.Namespace, environment: dict[str, str], kept: Mapping[str, int]
) -> tuple[dict[str, int], bool]:
    """Count each operation, as many at a time as there are cores, and print it at once: the whole
    takes minutes."""
    print(f"{'operation':18}{'now':>12}{'baseline':>12}    change", flush=True)
    counts: dict[str, int] = {}
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        running = {
            name: threads.submit(count, options.module, name, environment)
            for name in options.only or SUBJECTS
            if SUBJECTS[name].unsupported(options.module) is None
        }
        for name in options.only or SUBJECTS:
            if name not in running:
                reason = SUBJECTS[name].unsupported(options.module)
                print(f"{name:18}{'skipped':>12}: {reason}", flush=True)
                continue
            try:
                counts[name] = running[name].result()
            except CannotCount as error:
                failed = True
                print(f"{name:18}{'failed':>12}: {error}", flush=True)
            else:
                print(_line(name, counts[name], kept.get(name)), flush=True)
    return counts, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--module", default="headrace", help="headrace, or anything with its names")
    add("--only", nargs="+", choices=SUBJECTS, metavar="OP", help=", ".join(SUBJECTS))
    add("--check", action="store_true", help="fail if an operation costs more than the baseline")
    add("--update", action="store_true", help="rewrite this entry of the baseline")
    add("--baseline", type=Path, default=BASELINE, metavar="FILE")
    add("--path", action="append", default=[], metavar="DIR", help="import from here")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Count, compare, and keep or judge, as the command line asks."""
    options = _parser().parse_args(arguments)
    environment = _environment([str(Path(item).resolve()) for item in options.path])
    try:
        valgrind, build = _valgrind(), _build(options.module, environment)
    except CannotCount as error:
        print(f"cannot count: {error}", file=sys.stderr)
        return 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = f"{options.module} {version} {build}"
    baseline = load_baseline(options.baseline)
    entry = baseline.get(key)
    kept = entry["instructions"] if entry else {}
    print(f"{key}: Python {platform.python_version()}, {valgrind}")
    if entry is None:
        print(f"no baseline for {key!r}: nothing to compare with (--update keeps one)")
    elif (entry["python"], entry["valgrind"]) != (platform.python_version(), valgrind):
        print(f"baseline made with Python {entry['python']}, {entry['valgrind']}")
    counts, failed = _count_all(options, environment, kept)
    if options.update and counts:
        baseline[key] = {
            "python": platform.python_version(),
            "valgrind": valgrind,
            "instructions": {**kept, **counts},
        }
        text = json.dumps(baseline, indent=2, sort_keys=True)
        options.baseline.write_text(text + "\n")
        print(f"kept in {options.baseline.name}")
    worse = costlier(counts, kept)
    if worse and not options.update:
        print(f"over {TOLERANCE:.0%} more than the baseline: {', '.join(worse)}")
    return int(failed or (options.check and bool(worse)))


if __name__ == "__main__":
    sys.exit(main())
