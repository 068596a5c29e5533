"""What a soak test has done and what has failed; the summary that is printed in the end."""

from __future__ import annotations

import asyncio
import errno
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.system.soak.end import Deliberate
from tests.system.soak.figures import Figures, mib

MOST_FAILURES = 20
# What the last round may hold more than the first: caches of Python and of the loop, and chance. A
# leak is one for every connection.
MORE_OBJECTS = 500
MORE_BLOCKS = 3000
MORE_RESIDENT = 16 * 2**20
ONE_IN = 20  # … or this many connections for one


class Failures:
    """Collects failures from all that notice them: the test itself, the loop, the interpreter."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.failed = 0

    def fail(self, what: str) -> None:
        """Take note of a failure, and say it at once."""
        self.failed += 1
        if self.failed <= MOST_FAILURES:
            self.failures.append(what)
            print(f"FAILED: {what}\n", file=sys.stderr, flush=True)

    def hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of errors that nobody handles, and of warnings."""
        loop.set_exception_handler(self.heard)
        sys.unraisablehook = self.unraisable
        warnings.simplefilter("always")
        warnings.showwarning = self.warned

    def heard(self, _: Any, context: dict[str, Any]) -> None:
        """Be the loop's exception handler."""
        error = context.get("exception")
        lines = "".join(traceback.format_exception(error)) if error is not None else ""
        self.fail(f"the loop's exception handler was called: {context}\n{lines}")

    def warned(self, message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        """Be warnings.showwarning."""
        self.fail(f"{category.__name__} at {filename}:{lineno}: {message}")

    def unraisable(self, it: Any) -> None:
        """Be sys.unraisablehook."""
        self.fail(
            f"unraisable: {it.err_msg} "
            f"{it.object!r}\n{''.join(traceback.format_exception(it.exc_value))}"
        )

    def verdict(self) -> int:
        """Print it, and return the exit status."""
        print(f"  failures: {self.failed}")
        for each in self.failures:
            print(f"  - {each.splitlines()[0]}")
        print("FAILED" if self.failed else "ok", flush=True)
        return 1 if self.failed else 0


@dataclass(frozen=True)
class Rest:
    """The figures after a round, with everything closed: *at* so many seconds, after so many
    connections (*done*)."""

    at: float
    done: int
    figures: Figures


class Ledger(Failures):
    """The same for ``chaos``, where some handlers raise and some writers are dropped; and the
    counts."""

    def __init__(self, native: bool) -> None:
        super().__init__()
        self.native = native
        self.operations: Counter[str] = Counter()
        self.theirs: Counter[str] = Counter()
        self.done = 0
        self.bytes = 0
        # Handlers that raised because their role says so, and how many the exception handler was
        # told of.
        self.raised = self.raised_heard = 0
        # Writers that were dropped, and the warnings of that.
        self.dropped = self.unclosed = 0
        self.began = time.monotonic()
        self.rests: list[Rest] = []

    def heard(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Deliberate):
            self.raised_heard += 1
        elif not self.native and isinstance(error, OSError) and error.errno == errno.ENOTCONN:
            # What asyncio's own transports make of a write_eof() that comes after a reset.
            self.operations["shutdown() failed in the loop"] += 1
        else:
            super().heard(loop, context)

    def warned(self, message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        if issubclass(category, ResourceWarning) and str(message).startswith(
            "unclosed <StreamWriter"
        ):
            self.unclosed += 1
        elif (
            not self.native
            and issubclass(category, ResourceWarning)
            and str(message).startswith(("unclosed transport", "unclosed <socket"))
        ):
            # asyncio's loop does not keep a transport that is paused: where the writer is in a
            # cycle, the collector may come to that first.
            self.operations["transport dropped"] += 1
        else:
            super().warned(message, category, filename, lineno, *rest)

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.began

    def rest(self, found: Figures) -> None:
        """Take note of what the process holds after a round."""
        self.rests.append(Rest(self.elapsed(), self.done, found))

    def progress(self, going_on: int) -> None:
        """Print what was done so far, of each kind, while so many connections go on."""
        print(
            f"{self.elapsed():6.0f} s  {self.done:,} connections, {going_on} open; "
            f"{mib(self.bytes)} verified; "
            f"{Figures.now()}; {self.failed} failures",
            f"  headrace: {told(self.operations)}",
            f"  peers: {told(self.theirs)}",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )

    def summary(self, title: str) -> int:
        """Look at what was kept, print the figures, and return the exit status."""
        first, last = self.rests[0], self.rests[-1]
        done = last.done - first.done
        more = {
            name: getattr(last.figures, name) - getattr(first.figures, name)
            for name in ("resident", "objects", "blocks")
        }
        for name, most in (("objects", MORE_OBJECTS), ("blocks", MORE_BLOCKS)):
            if more[name] > most + done // ONE_IN:
                self.fail(
                    f"{more[name]:,} {name} more than after the first round, {done} connections "
                    "later"
                )
        if more["resident"] > MORE_RESIDENT:
            self.fail(f"{mib(more['resident'])} more resident than after the first round")
        if self.raised != self.raised_heard:
            self.fail(
                f"handlers raised {self.raised} times, and the exception handler was told "
                f"{self.raised_heard} times"
            )
        if self.unclosed > self.dropped:
            self.fail(
                f"{self.unclosed} warnings of unclosed writers, and {self.dropped} were dropped"
            )
        print(title)
        print(f"  {last.at:.0f} s: {self.done:,} connections, {mib(self.bytes)} verified")
        print(f"  operations of headrace: {told(self.operations, len(self.operations))}")
        print(f"  operations of the peers: {told(self.theirs, len(self.theirs))}")
        print(
            f"  handlers that raised: {self.raised}; writers dropped: {self.dropped}, of which "
            f"{self.unclosed} were open"
        )
        print("  with everything closed:")
        for share in (0.1, 0.5, 1.0):
            rest = next(each for each in self.rests if each.at >= share * last.at)
            print(f"    at {rest.at:5.0f} s, after {rest.done:8,} connections: {rest.figures}")
        print(
            f"    more after the last round than after the first: {mib(more['resident'])} "
            f"resident, {more['objects']:+,} objects, "
            f"{more['blocks']:+,} blocks ({more['blocks'] / max(1, done):+.4f} for each connection)"
        )
        return self.verdict()


def told(operations: Counter[str], most: int = 12) -> str:
    """Return the commonest of *operations* in words."""
    words = [f"{name} {count:,}" for name, count in operations.most_common(most)]
    rest = sum(operations.values()) - sum(count for _, count in operations.most_common(most))
    return "; ".join([*words, *([f"others {rest:,}"] if rest else [])])
