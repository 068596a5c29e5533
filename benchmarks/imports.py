"""What `import headrace` costs beside `import asyncio, ssl`: ``python -m benchmarks.imports
[--rounds 20] [--code TEXT]``.

Each import runs in an interpreter of its own, the two in turns. Medians, of the time that passed
and of the process's CPU time, which is the one to trust where other work runs. ``python -X
importtime -c 'import headrace'`` shows what each module takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

BASE = "import asyncio, ssl"


def measure(code: str) -> tuple[float, float]:
    """Run *code* in an interpreter of its own; return the milliseconds that passed, and its CPU
    time in them."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{code!r} failed with status {process.returncode}")
    return (time.perf_counter() - began) * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(
        description="what `import headrace` costs beside `import asyncio, ssl`"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--code", default="import asyncio, ssl, headrace", help="what is measured (%(default)s)"
    )
    options = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {BASE: [], options.code: []}
    for code in figures:
        measure(code)  # the first may write .pyc files
    for _ in range(options.rounds):
        for code, found in figures.items():
            found.append(measure(code))
    medians = {
        code: [statistics.median(column) for column in zip(*found, strict=True)]
        for code, found in figures.items()
    }
    for code, (passed, cpu) in medians.items():
        print(f"{code:40} {passed:6.1f} ms, CPU {cpu:6.1f} ms")
    (base, base_cpu), (passed, cpu) = medians.values()
    print(f"{'the difference':40} {passed - base:6.1f} ms, CPU {cpu - base_cpu:6.1f} ms")


if __name__ == "__main__":
    main()
