"""Run CPython's own asyncio suites against headrace: ``python -m tests.compat.conformance
[PATTERN ...]``, where a pattern is like ``streams/*`` or ``loop/test_events``.

Each suite runs in a process of its own. The names ``streams/SUITE`` run with asyncio's stream names
swapped for headrace's, ``loop/SUITE`` on headrace's loop with asyncio's streams. A test that fails
there runs again on asyncio alone. If it fails there too, the machine or the suite is at fault, and
it is only reported. Exit status 1 where headrace alone fails, or where a suite ran fewer tests than
it has."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
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
# All of asyncio's suites run on the loop, but for these, which make none of asyncio's loops: each
# has its own, a mocked one, or no loop at all.
NO_LOOP = {
    "test_futures": "a mocked loop",
    "test_pep492": "a mocked loop",
    "test_proactor_events": "a mocked loop, and the transports of Windows",
    "test_protocols": "classes of protocols alone",
    "test_selector_events": "a mocked loop, and the classes of asyncio's own transports",
    "test_tools": "processes that it looks into",
    "test_transports": "base classes of transports alone",
    "test_windows_events": "Windows",
    "test_windows_utils": "Windows",
}
# They reach into asyncio's own TLS protocol, behind the transport of the loop (`_ssl_protocol`,
# `_test__append_write_backlog`): for them it is that, by HEADRACE_WAY=portable.
PRIVATE = {
    "test_server_context": ("AsyncioEventLoopSSLTests.test_gh140947",),
    "test_ssl": (
        "TestSSL.test_flush_before_shutdown",
        "TestSSL.test_remote_shutdown_receives_trailing_data",
        "TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket",
    ),
}
TIMEOUT_S = 400
AT_ONCE = 4


def run(
    streams: str, names: list[str], more: dict[str, str] | None = None
) -> tuple[dict[str, Any], str]:
    """Run *names* on *streams* ('stock', 'headrace' or 'loop') in a process with *more* in its
    environment; return its result and its log."""
    command = [sys.executable, "-m", "tests.compat.conformance.suite", streams, *names]
    environment = {**os.environ, **(more or {})}
    with tempfile.TemporaryFile("w+") as log:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env=environment,
            )
            lines, end = done.stdout.strip().splitlines(), f"died with status {done.returncode}"
        except subprocess.TimeoutExpired:
            lines, end = [], f"was not done after {TIMEOUT_S} s"
        log.seek(0)
        said = log.read()
    if not lines:
        failed = [f"{name} (the process {end})" for name in names if not name.startswith("-")]
        return {"ran": 0, "skipped": 0, "failed": failed}, said
    return json.loads(lines[-1]), said


def check(job: str) -> tuple[bool, str]:
    """Run one suite; return whether headrace is free of blame, and what to print about it."""
    began = time.monotonic()
    kind, _, suite = job.rpartition("/")
    streams = "loop" if kind == "loop" else "headrace"
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


def jobs() -> list[str]:
    """Return the names of all suites that there are here."""
    package = importlib.import_module("test.test_asyncio")
    found = sorted(each.name for each in pkgutil.iter_modules(package.__path__))
    on_loop = [name for name in found if name.startswith("test_") and name not in NO_LOOP]
    return [*(f"streams/{suite}" for suite in SUITES), *(f"loop/{suite}" for suite in on_loop)]


def main() -> int:
    """Run the suites that the patterns on the command line name, or all."""
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

    compiled = not (probe.__file__ or "").endswith(".py")
    print(
        f"CPython {sys.version.split()[0]}, headrace {'compiled' if compiled else 'pure Python'}",
        flush=True,
    )
    every = jobs()
    patterns = sys.argv[1:] or ["*"]
    named = [job for job in every if any(fnmatch.fnmatch(job, each) for each in patterns)]
    if not named:
        print(f"no suite is named {' or '.join(patterns)}")
        return 2
    free_of_blame = True
    # They wait more than they compute.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for free, text in pool.map(check, named):
            print(text, flush=True)
            free_of_blame = free_of_blame and free
    return 0 if free_of_blame else 1


if __name__ == "__main__":
    sys.exit(main())
