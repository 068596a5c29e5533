"""Run CPython's own asyncio suites against headrace: ``python -m tests.compat.conformance [SUITE
...]``.

Each suite runs in a process of its own with asyncio's stream names swapped for headrace's. A test
that fails there runs again on asyncio's own streams. If it fails there too, the machine or the
suite is at fault, and it is only reported. Exit status 1 where headrace alone fails, or where a
suite ran fewer tests than it has."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# The suites that meet streams, and how many tests the first release of each Python has in the one
# about streams; newer ones have no fewer.
SUITES = (
    "test_streams",
    "test_server",
    "test_buffered_proto",
    "test_pep492",
    "test_ssl",
    "test_sslproto",
    "test_subprocess",
)
STREAM_TESTS = {(3, 11): 67, (3, 12): 67, (3, 13): 73}
# They reach into asyncio's own TLS protocol, behind the transport of the loop: for them it is that.
PRIVATE = {
    "test_ssl": (
        "TestSSL.test_flush_before_shutdown",
        "TestSSL.test_remote_shutdown_receives_trailing_data",
        "TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket",
    )
}
TIMEOUT_S = 300
AT_ONCE = 4


def run(
    streams: str, names: list[str], more: dict[str, str] | None = None
) -> tuple[dict[str, Any], str]:
    """Run *names* on *streams* ('stock' or 'headrace') in a process with *more* in its environment;
    return its result and its log."""
    command = [sys.executable, "-m", "tests.compat.conformance.suite", streams, *names]
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment
    )
    lines = done.stdout.strip().splitlines()
    if not lines:
        return {
            "ran": 0,
            "skipped": 0,
            "failed": [
                f"{name} (the process died with status {done.returncode})" for name in names
            ],
        }, done.stderr
    return json.loads(lines[-1]), done.stderr


def check(suite: str) -> tuple[bool, str]:
    """Run one suite; return whether headrace is free of blame, and what to print about it."""
    began = time.monotonic()
    module = f"test.test_asyncio.{suite}"
    private = [f"{module}.{name}" for name in PRIVATE.get(suite, ())]
    result, log = run("headrace", [module, *(f"-{test}" for test in private)])
    failed = list(result["failed"])
    if private:
        portable, more = run("headrace", private, {"HEADRACE_WAY": "portable"})
        failed += portable["failed"]
        result["ran"] += portable["ran"]
        log += more
    known = list(run("stock", failed)[0]["failed"]) if failed else []
    ours = [test for test in failed if test not in known]
    wanted = (
        STREAM_TESTS.get(sys.version_info[:2], max(STREAM_TESTS.values()))
        if suite == "test_streams"
        else 1
    )
    free = not ours and result["ran"] >= wanted
    notes = f", {len(known)} fail on asyncio's streams too" if known else ""
    took = time.monotonic() - began
    lines = [
        f"{suite:20} {result['ran']:4} run, {result['skipped']:2} skipped{notes}: "
        f"{'ok' if free else 'FAILED'} ({took:.0f} s)"
    ]
    if not free:
        lines += [log, *[f"  only with headrace: {test}" for test in ours]]
    return free, "\n".join(lines)


def main() -> int:
    """Run the suites named on the command line, or all."""
    if (
        importlib.util.find_spec("test") is None
        or importlib.util.find_spec("test.test_asyncio") is None
    ):
        print(
            "CPython's test suite is not installed with this Python (Debian: "
            "libpython3-testsuite): nothing to run"
        )
        return 0
    import headrace._core.buffer as probe

    print(
        f"CPython {sys.version.split()[0]}, headrace "
        f"{'compiled' if not (probe.__file__ or '').endswith('.py') else 'pure Python'}",
        flush=True,
    )
    free_of_blame = True
    # They wait more than they compute.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for free, text in pool.map(check, sys.argv[1:] or SUITES):
            print(text, flush=True)
            free_of_blame = free_of_blame and free
    return 0 if free_of_blame else 1


if __name__ == "__main__":
    sys.exit(main())
