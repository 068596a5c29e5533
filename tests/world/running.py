"""Fetches a suite, and runs it on one loop in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.world.suites import Suite

ROOT = Path(__file__).parents[2]
FAILED, PASSED = "failed", "passed"


def fetch(suite: Suite, to: Path) -> Path:
    """Return the folder of the source distribution of *suite*, of the version that is installed,
    fetched into *to* unless it is there."""
    version = importlib.metadata.version(suite.project)
    folder = to / f"{suite.project}-{version}"
    if not folder.exists():
        wanted = f"{suite.project}=={version}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(to)]
        subprocess.run([*command, "--no-binary", suite.project, wanted], check=True)
        with tarfile.open(to / f"{folder.name}.tar.gz") as archive:
            archive.extractall(to, filter="data")
        # What is tested is the installed package, which is compiled.
        for name in (suite.project, f"{suite.project}.egg-info"):
            if (folder / name).exists():
                (folder / name).rename(folder / f"not-{name}")
    return folder


def run(
    suite: Suite,
    folder: Path,
    loop: str,
    tests: Iterable[str],
    seconds: float,
    advance: Callable[[int, int], None],
) -> tuple[dict[str, str], bool]:
    """Run *tests* of *suite*, which is in *folder*, on *loop*; return how each has ended: "passed",
    "failed", "skipped" or "xfailed"; and whether all was done within *seconds*.

    *advance* is told now and then how many have ended, and how many of them failed. Where the
    process dies, the test that was running has failed. Raises: RuntimeError where none ran.
    """
    run_of = f"{loop}-{len(list(folder.glob(f'results-{loop}-*')))}"
    results = folder / f"results-{run_of}.jsonl"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-p", "tests_world_plugin", "--timeout", "60", *suite.options, *tests]
    # Not the folder of the plugin: others have a package `tests` too.
    alone = folder / "plugin"
    alone.mkdir(exist_ok=True)
    (alone / "tests_world_plugin.py").write_text((ROOT / "tests/world/plugin.py").read_text())
    path = os.pathsep.join([str(alone), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "WORLD_LOOP": loop,
        "WORLD_RESULTS": str(results),
        "WORLD_DEBUG": "never" if suite.never_debug else "",
    }
    with (folder / f"log-{run_of}.txt").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < until:
                time.sleep(1.0)
                seen, _ = read(results)
                advance(len(seen), list(seen.values()).count(FAILED))
            done = process.poll() is not None
        finally:
            process.kill()
            process.wait()
    seen, running = read(results)
    if done and not seen:
        raise RuntimeError(f"no test ran: {(folder / f'log-{run_of}.txt').read_text()[-2000:]}")
    if done and running is not None:
        seen[running] = FAILED
    return seen, done


def read(results: Path) -> tuple[dict[str, str], str | None]:
    """Return how each test of the file *results* has ended, and which is still running."""
    seen: dict[str, str] = {}
    running = None
    # Without a last line that is not whole yet.
    told_so_far = results.read_text().rpartition("\n")[0] if results.exists() else ""
    for line in told_so_far.splitlines():
        told = json.loads(line)
        if "begins" in told:
            running = told["begins"]
            continue
        if told["test"] == running:
            running = None
        if seen.get(told["test"]) != FAILED:
            seen[told["test"]] = told["outcome"]
    return seen, running
