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
from typing import Any, TextIO


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


def take_over() -> None:
    """Put headrace's loop in the place of asyncio's, wherever the suites find that by name."""
    import asyncio
    from asyncio import unix_events

    import headrace
    from headrace._loop import seams
    from headrace._transport import backend

    assert backend.platform_obstacle() == seams.OBSTACLE, "this would be a test of asyncio's loop"
    names: Any = (asyncio, unix_events)
    for module in names:
        module.SelectorEventLoop = headrace.EventLoop
        if hasattr(module, "EventLoop"):
            module.EventLoop = headrace.EventLoop
    policy: Any = unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = headrace.EventLoop
    loop = asyncio.new_event_loop()
    assert type(loop) is headrace.EventLoop
    loop.close()


def main() -> None:
    """Swap the names if asked to, run, and print."""
    streams, *names = sys.argv[1:]
    if streams == "headrace":
        import headrace

        headrace.install()
    elif streams == "loop":
        take_over()
    print(json.dumps(run(names, sys.stderr)))


if __name__ == "__main__":
    main()
