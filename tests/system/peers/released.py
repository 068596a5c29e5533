"""The test suites of released packages, on asyncio's streams and under ``headrace run``, compared
test by test.

``python -m tests.system.peers.released aioftp`` gets the package's source from PyPI, with what its
tests need, into a directory of its own. It runs the suite once on each, and says which tests ended
differently. Status 1 where one that passed on asyncio's does not on ours."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SUITE_S = 600.0
TEST_S = 60
PASSED = "passed"


@dataclasses.dataclass(frozen=True)
class Suite:
    """Where the tests of a package are in its source, and what they want; *options* are
    pytest's."""

    tests: str
    wants: tuple[str, ...]
    options: tuple[str, ...] = ()


SUITES = {
    "aioftp": Suite(
        "tests",
        ("pytest-asyncio", "pytest-mock", "siosocks", "trustme", "async_timeout"),
        ("--import-mode=importlib", "-p", "no:anyio"),
    ),
    "aiosmtpd": Suite(
        "aiosmtpd/tests",
        ("pytest-asyncio", "pytest-mock", "atpublic", "attrs", "setuptools<80"),
        # Its own settings make errors of warnings about themselves.
        ("-c", os.devnull, "--rootdir", "."),
    ),
    "python-socks": Suite(
        "tests",
        (
            "pytest-asyncio",
            "pytest-trio",
            "tiny-proxy",
            "trustme",
            "yarl",
            "starlette",
            "uvicorn",
            "anyio",
        ),
        ("-o", "asyncio_mode=strict"),
    ),
}


def get(name: str, directory: Path) -> tuple[Path, Path]:
    """Return the unpacked source of the package *name*, and a directory that has what its tests
    want."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wants = directory / "wants"
    subprocess.run(
        [*pip, "install", "--target", str(wants), "pytest", "pytest-timeout", *SUITES[name].wants],
        check=True,
    )
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", name, "--dest", str(directory), name],
        check=True,
    )
    (archive,) = directory.glob("*.tar.gz")
    subprocess.run(
        ["tar", "--extract", "--file", str(archive), "--directory", str(directory)], check=True
    )
    return directory / archive.name.removesuffix(".tar.gz"), wants


def outcomes(name: str, source: Path, wants: Path, streams: str) -> dict[str, str]:
    """Run the suite on *streams* ("asyncio" or "headrace"); return how each test ended."""
    suite = SUITES[name]
    report = source.parent / f"{streams}.xml"
    starter = ["-m"] if streams == "asyncio" else ["-m", "headrace", "run", "-m"]
    # The suite's own options would stop at the first failure, or want more plugins.
    options = [
        "-o",
        "addopts=",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--timeout={TEST_S}",
        f"--junitxml={report}",
        *suite.options,
    ]
    done = subprocess.run(
        [sys.executable, *starter, "pytest", *options, suite.tests],
        cwd=source,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(source), str(source / "src"), str(wants), *map(os.path.abspath, sys.path)]
            ),
        },
        capture_output=True,
        text=True,
        timeout=SUITE_S,
        check=False,
    )
    if not report.exists():
        raise RuntimeError(
            f"{name} on {streams} ended with status "
            f"{done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ended = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}::{case.get('name')}"] = ended[0] if ended else PASSED
    return found


def compare(name: str, directory: Path) -> tuple[int, list[str]]:
    """Return how many tests of *name* pass on asyncio's streams, and those of them that do not on
    ours, with how they end there."""
    source, wants = get(name, directory)
    before = outcomes(name, source, wants, "asyncio")
    after = outcomes(name, source, wants, "headrace")
    good = [test for test, ended in before.items() if ended == PASSED]
    for test in sorted({*before, *after}):
        if before.get(test) != after.get(test):
            print(
                f"{name}: {test}: {before.get(test)} on asyncio's, {after.get(test)} on headrace's"
            )
    return len(good), [
        f"{test}: {after.get(test, 'not run')}" for test in good if after.get(test) != PASSED
    ]


def main() -> int:
    """Compare each package that the command line names, or all of them."""
    worse = 0
    for name in sys.argv[1:] or SUITES:
        with tempfile.TemporaryDirectory() as directory:
            count, failed = compare(name, Path(directory))
        worse += len(failed)
        print(
            f"{name}: {count} tests pass on asyncio's streams, {len(failed)} of them not on "
            "headrace's"
        )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
