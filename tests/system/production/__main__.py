"""How a server of headrace.serve() does in production: real processes, real signals, and figures at
the end.

rolling  two workers are replaced under steady load, over and over: no request fails
kill     a worker is killed under load: its connections break, no other waits for long, and another
         takes its place
loris    two thousand connections that send a byte now and then, and an honest client beside them
drain    SIGTERM under load: all that was acknowledged has arrived, nothing is half answered
renew    new certificates under load
cores    one worker, then two: what the second core is worth

examples:
  python -m tests.system.production rolling --seconds 30
  python -m tests.system.production rolling --haproxy
      with a real HAProxy in front (package haproxy), which sends PROXY headers
  python -m tests.system.production kill --loop uvloop
  python -m tests.system.production loris --connections 2000
Exit status: 0 where all is well, 1 where something is wrong, 2 where it cannot be tried here.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.system.production.scenes import SCENES
from tests.system.soak.figures import raise_descriptor_limit


def main() -> int:
    """Play the scene that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.production",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scene", choices=SCENES)
    add("--seconds", type=float, default=20.0, metavar="T", help="how long (20)")
    add(
        "--every",
        type=float,
        default=2.0,
        metavar="T",
        help="seconds between two restarts, kills, renewals (2)",
    )
    add("--clients", type=int, default=20, metavar="N", help="how many ask at a time (20)")
    add("--workers", type=int, default=2, metavar="N", help="how many processes serve (2)")
    add(
        "--longest",
        type=float,
        default=0.3,
        metavar="T",
        help="kill: how long a new connection may wait for an answer (0.3)",
    )
    add("--connections", type=int, default=2000, metavar="N", help="of loris (2000)")
    add(
        "--loop",
        choices=("asyncio", "uvloop"),
        default="asyncio",
        help="the server's event loop (asyncio)",
    )
    add("--haproxy", action="store_true", help="rolling: HAProxy in front")
    options = parser.parse_args()
    raise_descriptor_limit()
    try:
        report, good = asyncio.run(SCENES[options.scene](options))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.scene}: {options.loop} loop")
    for line in report:
        print(f"  {line}")
    print("ok" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
