"""How late timers are, on asyncio's loop, headrace's and uvloop: ``python -m benchmarks.timers
[--timers 10000] [--chains 10] [--loops asyncio,headrace,uvloop]``.

Each chain sets one timer after another, of 0.1 to 5 ms, the same ones on every loop. How late one
is, is the loop's own clock when it is called, less the time that it was set for. Other programs on
the machine make all of them later: compare within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import random
import time
from collections.abc import Callable

from .options import names_of, positive

LOOPS = {"asyncio": "asyncio", "headrace": "headrace", "uvloop": "uvloop"}
SHORTEST_S, LONGEST_S = 0.0001, 0.005
SEED = 1


class Chain:
    """Sets a timer of each of *delays* (seconds) behind the other; *late* has how late they were,
    in seconds."""

    def __init__(self, delays: list[float]) -> None:
        self.loop = asyncio.get_running_loop()
        self.delays = delays
        self.late: list[float] = []
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.set()

    def set(self) -> None:
        """Set the next timer, or end."""
        if not self.delays:
            self.over.set_result(None)
            return
        # By the clock that all loops have: uvloop's own counts milliseconds.
        delay = self.delays.pop()
        self.when = time.monotonic() + delay
        self.loop.call_later(delay, self.called)

    def called(self) -> None:
        """It is time."""
        self.late.append(time.monotonic() - self.when)
        self.set()


async def measure(timers: int, chains: int) -> list[float]:
    """Return how late each of *timers* was, in seconds, sorted."""
    draw = random.Random(SEED)
    delays = [draw.uniform(SHORTEST_S, LONGEST_S) for _ in range(timers)]
    running = [Chain(delays[first::chains]) for first in range(chains)]
    for chain in running:
        await chain.over
    return sorted(late for chain in running for late in chain.late)


def line(name: str, late: list[float], cpu: float) -> str:
    """Return the figures of one loop, in microseconds."""
    parts = [late[int(len(late) * part)] for part in (0, 0.5, 0.9, 0.99)] + [late[-1]]
    shown = " ".join(f"{1e6 * part:9.0f}" for part in parts)
    return f"{name:10}{shown} {1e6 * cpu / len(late):9.1f}"


def main() -> None:
    """Measure, and print a line for each loop."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--timers", type=positive(int), default=10_000, help="how many (%(default)s)")
    add("--chains", type=positive(int), default=10, help="how many at a time (%(default)s)")
    add("--loops", type=names_of(LOOPS, {}), default=list(LOOPS), metavar="A,B", help="(all)")
    options = parser.parse_args()
    heads = " ".join(f"{head:>9}" for head in ("least", "p50", "p90", "p99", "most", "CPU"))
    print(f"{'us late':10}{heads}")
    for name in options.loops:
        try:
            factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
                LOOPS[name]
            ).new_event_loop
        except ImportError as missing:
            print(f"{name:10}missing: {missing}")
            continue
        with asyncio.Runner(loop_factory=factory) as runner:
            cpu = time.process_time()
            late = runner.run(measure(options.timers, options.chains))
            print(line(name, late, time.process_time() - cpu), flush=True)


if __name__ == "__main__":
    main()
