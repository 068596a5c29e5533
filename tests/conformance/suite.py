"""Run test modules, or single tests, of the installed CPython in this process and print what failed as one line of JSON.

python -m tests.conformance.suite headrace test.test_asyncio.test_streams
python -m tests.conformance.suite stock test.test_asyncio.test_streams.StreamTests.test_read
"""

from __future__ import annotations

import json
import sys
import unittest
from typing import TextIO


def run(names: list[str], log: TextIO) -> dict[str, object]:
    """Run *names* and return the number of tests, and the ids of those that failed or were skipped."""
    result = unittest.TextTestRunner(stream=log, buffer=True).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    failed = [test.id() for test, _ in [*result.failures, *result.errors]]
    return {"ran": result.testsRun, "skipped": len(result.skipped), "failed": failed}


def main() -> None:
    """Swap the names if asked to, run, and print."""
    streams, *names = sys.argv[1:]
    if streams == "headrace":
        import headrace

        headrace.install()
    print(json.dumps(run(names, sys.stderr)))


if __name__ == "__main__":
    main()
