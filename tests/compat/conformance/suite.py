"""Run test modules, or single tests, of the installed CPython in this process and print what failed
as one line of JSON.

python -m tests.compat.conformance.suite headrace test.test_asyncio.test_streams python -m
tests.compat.conformance.suite headrace test.test_asyncio.test_ssl
-test.test_asyncio.test_ssl.TestSSL.test_that_is_left_out python -m tests.compat.conformance.suite
stock test.test_asyncio.test_streams.StreamTests.test_read
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Iterator
from typing import TextIO


def run(names: list[str], log: TextIO) -> dict[str, object]:
    """Run *names*, but not those with a minus in front; return the number of tests, and the ids of
    those that failed."""
    left_out = [name[1:] for name in names if name.startswith("-")]
    found = unittest.defaultTestLoader.loadTestsFromNames(
        [name for name in names if not name.startswith("-")]
    )
    tests = unittest.TestSuite(test for test in each_of(found) if test.id() not in left_out)
    result = unittest.TextTestRunner(stream=log, buffer=True).run(tests)
    failed = [test.id() for test, _ in [*result.failures, *result.errors]]
    return {"ran": result.testsRun, "skipped": len(result.skipped), "failed": failed}


def each_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of *suite* and of those within it."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each_of(test)
        else:
            yield test


def main() -> None:
    """Swap the names if asked to, run, and print."""
    streams, *names = sys.argv[1:]
    if streams == "headrace":
        import headrace

        headrace.install()
    print(json.dumps(run(names, sys.stderr)))


if __name__ == "__main__":
    main()
