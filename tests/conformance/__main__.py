"""Run CPython's own asyncio suites against headrace: ``python -m tests.conformance [SUITE ...]``.

Each suite runs in a process of its own with asyncio's stream names swapped for headrace's. A test that fails there is run again on
asyncio's own streams: what fails there too is the machine's or the suite's fault and is only reported. Exit status 1 where headrace alone
fails, or where a suite ran fewer tests than it has.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time

# The suites that meet streams, and how many tests the first release of each Python has in the one about streams.
SUITES = ("test_streams", "test_server", "test_buffered_proto", "test_pep492", "test_ssl", "test_sslproto", "test_subprocess")
STREAM_TESTS = {(3, 11): 67, (3, 12): 67, (3, 13): 73}
TIMEOUT_S = 300


def run(streams: str, names: list[str]) -> tuple[dict[str, object], str]:
    """Run *names* on *streams* ('stock' or 'headrace') in a process; return its result and its log."""
    command = [sys.executable, "-m", "tests.conformance.suite", streams, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    lines = done.stdout.strip().splitlines()
    if not lines:
        return {
            "ran": 0,
            "skipped": 0,
            "failed": [f"{name} (the process died with status {done.returncode})" for name in names],
        }, done.stderr
    return json.loads(lines[-1]), done.stderr


def check(suite: str) -> bool:
    """Run one suite, print a line about it, and return whether headrace is free of blame."""
    began = time.monotonic()
    result, log = run("headrace", [f"test.test_asyncio.{suite}"])
    failed = list(result["failed"])
    known = list(run("stock", failed)[0]["failed"]) if failed else []
    ours = [test for test in failed if test not in known]
    wanted = STREAM_TESTS.get(sys.version_info[:2], 1) if suite == "test_streams" else 1
    verdict = "ok" if not ours and result["ran"] >= wanted else "FAILED"
    notes = f", {len(known)} fail on asyncio's streams too" if known else ""
    print(
        f"{suite:20} {result['ran']:4} run, {result['skipped']:2} skipped{notes}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True
    )
    if verdict != "ok":
        print(log)
        print(*[f"  only with headrace: {test}" for test in ours], sep="\n", flush=True)
    return verdict == "ok"


def main() -> int:
    """Run the suites named on the command line, or all."""
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        print("CPython's test suite is not installed with this Python (Debian: libpython3-testsuite): nothing to run")
        return 0
    import headrace._core.buffer as probe

    print(
        f"CPython {sys.version.split()[0]}, headrace {'compiled' if not (probe.__file__ or '').endswith('.py') else 'pure Python'}",
        flush=True,
    )
    verdicts = [check(suite) for suite in sys.argv[1:] or SUITES]  # all of them, also after a failure
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
