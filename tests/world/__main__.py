"""Run other projects' own test suites on headrace's loop: ``python -m tests.world [SUITE ...]``.

    python -m tests.world                   uvloop's, aiohttp's and anyio's
    python -m tests.world uvloop            one of them
    python -m tests.world --into DIRECTORY  keep what is fetched, and the logs

Each suite runs on asyncio's loop first, then on headrace's. A test that passes on asyncio's and
fails on headrace's is run again on each; if it fails again, on headrace's alone, that is a failure
of ours. Exit status 1 where there is one, where no test ran, or not all in time."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.world.running import PASSED, fetch, run
from tests.world.suites import SUITES, Suite

# For one suite on one loop.
SECONDS = 1800.0
# Between two lines of progress, where there is no terminal.
QUIET_SECONDS = 20.0


def progress(suite: str, loop: str) -> Callable[[int, int], None]:
    """Return what says how far *suite* is on *loop*."""
    said = time.monotonic()

    def advance(ended: int, failed: int) -> None:
        nonlocal said
        line = f"{suite} on {loop}: {ended} tests, {failed} failed"
        if sys.stdout.isatty():
            print(f"\r{line}", end="", flush=True)
        elif time.monotonic() - said > QUIET_SECONDS:
            said = time.monotonic()
            print(line, flush=True)

    return advance


def check(suite: Suite, into: Path) -> bool:
    """Run *suite* on both loops; say how it went, and return whether headrace is free of blame."""
    folder = fetch(suite, into)
    began = time.monotonic()
    in_time = True

    def on(loop: str, tests: list[str]) -> dict[str, str]:
        nonlocal in_time
        ended, done = run(suite, folder, loop, tests, SECONDS, progress(suite.project, loop))
        in_time = in_time and done
        left_out = tuple(suite.left_out)
        return {test: how for test, how in ended.items() if not test.startswith(left_out)}

    stock, ours = on("asyncio", list(suite.paths)), on("headrace", list(suite.paths))
    # Where there was no time for all, those that were not reached are neither.
    passed = [test for test, how in stock.items() if how == PASSED and (in_time or test in ours)]
    blamed = [test for test in passed if ours.get(test) != PASSED]
    unsteady: list[str] = []
    if blamed:
        again = on("headrace", blamed)
        beside = on("asyncio", blamed)
        unsteady = [t for t in blamed if again.get(t) == PASSED or beside.get(t) != PASSED]
        blamed = [test for test in blamed if test not in unsteady]
    print(
        f"\r{folder.name}: {len(passed)} pass on asyncio's loop, "
        f"{sum(ours.get(test) == PASSED for test in passed)} of them on headrace's at once, "
        f"{len(blamed)} fail there only; {list(stock.values()).count('skipped')} skipped "
        f"({time.monotonic() - began:.0f} s)"
    )
    if not in_time:
        print(f"  not all of it was done within {SECONDS:.0f} s")
    for test in unsteady:
        print(f"  not each time, on one of the loops: {test}")
    for test in blamed:
        print(f"  only on headrace's: {test}")
    for test, reason in suite.left_out.items():
        print(f"  left out: {test}: {reason}")
    return in_time and bool(passed) and not blamed


def main() -> int:
    """Run the suites of the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--into", type=Path, help="where suites and logs are kept")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"not among {', '.join(SUITES)}: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        into = (options.into or Path(temporary)).absolute()
        into.mkdir(parents=True, exist_ok=True)
        results = [check(SUITES[name], into) for name in options.suites or SUITES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
