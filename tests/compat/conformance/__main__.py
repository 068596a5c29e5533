"""Run CPython's own asyncio suites against headrace: ``python -m tests.compat.conformance
[[loop/]SUITE ...]``.

Each suite runs in a process of its own with asyncio's stream names swapped for headrace's; those
with ``loop/`` in front of the name run on headrace's loop instead, with asyncio's streams. A test
that fails there runs again on asyncio alone. If it fails there too, the machine or the suite is at
fault, and it is only reported. Exit status 1 where headrace alone fails, or where a suite ran fewer
tests than it has."""

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
# The suites that meet sockets by way of the loop.
LOOP_SUITES = (
    "test_base_events",
    "test_buffered_proto",
    "test_eager_task_factory",
    "test_events",
    "test_protocols",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_streams",
    "test_subprocess",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
)
# Of asyncio's other suites: these have no loop that connects, or mock the insides of asyncio's own
# transports (test_selector_events, test_proactor_events) or of another platform.
#
# They reach into asyncio's own TLS protocol, behind the transport of the loop (`_ssl_protocol`,
# `_test__append_write_backlog`): for them it is that, by HEADRACE_WAY=portable.
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
    """Run *names* on *streams* ('stock', 'headrace' or 'loop') in a process with *more* in its
    environment; return its result and its log."""
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


def check(job: str) -> tuple[bool, str]:
    """Run one suite; return whether headrace is free of blame, and what to print about it."""
    began = time.monotonic()
    on_loop, _, suite = job.rpartition("/")
    streams = on_loop or "headrace"
    module = f"test.test_asyncio.{suite}"
    private = [f"{module}.{name}" for name in PRIVATE.get(suite, ())]
    result, log = run(streams, [module, *(f"-{test}" for test in private)])
    failed = list(result["failed"])
    if private:
        portable, more = run(streams, private, {"HEADRACE_WAY": "portable"})
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
    notes = f", {len(known)} fail on asyncio alone too" if known else ""
    took = time.monotonic() - began
    lines = [
        f"{job:25} {result['ran']:4} run, {result['skipped']:2} skipped{notes}: "
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
    jobs = [*SUITES, *(f"loop/{suite}" for suite in LOOP_SUITES)]
    # They wait more than they compute.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for free, text in pool.map(check, sys.argv[1:] or jobs):
            print(text, flush=True)
            free_of_blame = free_of_blame and free
    return 0 if free_of_blame else 1


if __name__ == "__main__":
    sys.exit(main())
