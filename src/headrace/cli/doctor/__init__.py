"""``headrace doctor``: what is installed here, and how it runs, in words."""

from __future__ import annotations

import argparse
import json

from headrace.cli.doctor.inspection import build as build
from headrace.cli.doctor.inspection import findings
from headrace.cli.doctor.wording import words
from headrace.cli.options import fail

DESCRIPTION = """\
Say in words what is installed here: versions, whether headrace runs compiled and what to do if
not, event loops, OpenSSL, and which way a connection takes on each loop.

examples:
  headrace doctor
  headrace doctor --json                 the same for programs
  headrace doctor --require-compiled     exit with status 1 if any part runs as pure Python
                                         (for a container's build)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what doctor() takes to *parser*."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    parser.add_argument(
        "--require-compiled",
        action="store_true",
        help="exit with status 1 if any part is pure Python",
    )


def doctor(options: argparse.Namespace) -> int:
    """Print the findings; return 1 if ``options.require_compiled`` and any module is pure Python,
    else 0."""
    found = findings()
    print(json.dumps(found, indent=2) if options.json else words(found))
    if options.require_compiled and found["build"] != "compiled":
        return fail("doctor", f"the build is {found['build']}, not compiled", 1)
    return 0
