"""Soak tests of headrace's streams.

chaos    a server and clients against hostile peers, for as long as you like: resets, half-closes,
         cancelled reads and drains, stalls, floods, urgent data, dropped writers, servers that are
         closed and started again. Every byte is checked at its place, every connection against its
         script, and the process for what it keeps.
many     ten thousand connections at once, each echoing: every byte checked, and what a connection
         costs in memory.
mangled  TLS from peers whose records are damaged on their way, in the handshake or behind it.
handshakes  a hundred thousand of TLS, one in ten of which is refused, given up or cut off: the
         process must not grow.

examples:
  python -m tests.system.soak chaos --seconds 600 --loop uvloop
      ten minutes; the seed is printed
  python -m tests.system.soak chaos --seed 7 --only 1234
      connection 1234 of the run with seed 7, again and again
  python -m tests.system.soak many --connections 10000 --echoes 100 --churn
      a million echoes, while others come and go
  python -m tests.system.soak mangled --seconds 60 --seed 7 --only 1234
      case 1234 of the run with seed 7, again and again
  python -m tests.system.soak handshakes --loop uvloop
      five minutes, for both sides are in one process
Exit status: 0 where all is well, 1 where something is wrong, 2 where it cannot be tested here.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from typing import Any

from headrace._transport import backend
from tests.system.soak import chaos, handshakes, mangled, many

try:
    import uvloop
except ImportError:  # the loop is optional
    uvloop = None


def positive(text: str) -> int:
    """Parse a number above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    best = "native" if backend.native is not None else "portable"
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop (asyncio)"
    )
    common.add_argument(
        "--way", choices=backend.WAYS, default=best, help=f"headrace's way to the socket ({best})"
    )
    root = argparse.ArgumentParser(
        prog="python -m tests.system.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(dest="command", required=True)
    add = commands.add_parser(
        "chaos", parents=[common], help="hostile peers, random scripts"
    ).add_argument
    add("--seconds", type=float, default=600.0, metavar="T", help="how long (600)")
    add(
        "--seed", type=int, metavar="N", help="what the scripts are made of (a random one, printed)"
    )
    add("--connections", type=positive, default=50, metavar="N", help="how many at a time (50)")
    add(
        "--patience",
        type=float,
        default=30.0,
        metavar="T",
        help="seconds after which a connection is said to hang (30)",
    )
    add(
        "--only",
        type=int,
        metavar="N",
        help="play the script of this connection alone, again and again",
    )
    add = commands.add_parser(
        "many", parents=[common], help="ten thousand connections"
    ).add_argument
    add(
        "--connections", type=positive, default=10_000, metavar="N", help="how many at once (10000)"
    )
    add(
        "--echoes", type=positive, default=100, metavar="M", help="echoes of 64 bytes on each (100)"
    )
    add(
        "--churn",
        action="store_true",
        help="a tenth more that connect, echo once, and close or reset, over and over",
    )
    add = commands.add_parser(
        "mangled", parents=[common], help="TLS records that are damaged on their way"
    ).add_argument
    add("--seconds", type=float, default=60.0, metavar="T", help="how long (60)")
    add("--seed", type=int, metavar="N", help="what the cases are made of (a random one, printed)")
    add("--only", type=int, metavar="N", help="play this case alone, again and again")
    add = commands.add_parser(
        "handshakes", parents=[common], help="TLS handshakes, which leave nothing behind"
    ).add_argument
    add("--handshakes", type=positive, default=100_000, metavar="N", help="how many (100000)")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="what the connections are chosen by (a random one, printed)",
    )
    return root


def main() -> int:
    """Run what the command line says; return the exit status."""
    options = vars(parser().parse_args())
    command = options.pop("command")
    if options["way"] == "native" and backend.native is None:
        print(
            "the native way is not in this build of headrace: try --way portable", file=sys.stderr
        )
        return 2
    if options["loop"] == "uvloop" and uvloop is None:
        print("uvloop is not installed", file=sys.stderr)
        return 2
    factory: Any = (
        uvloop.new_event_loop if options["loop"] == "uvloop" else asyncio.SelectorEventLoop
    )
    if command == "many":
        return many.run(many.Options(**options), factory)
    if options["seed"] is None:
        options["seed"] = random.randrange(1_000_000)
    print(f"seed {options['seed']}", file=sys.stderr, flush=True)
    if command == "handshakes":
        return handshakes.run(handshakes.Options(**options), factory)
    if command == "mangled":
        return mangled.run(mangled.Options(**options), factory)
    return chaos.run(chaos.Options(**options), factory)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
