"""The server of the scenes: answers numbered requests, says in each answer who it is, and whether
it is the last one.

A request is a line: a number, and how many bytes of payload are wanted. The answer is a line (the
number, the process, the peer's address as the server knows it, "more" or "last"), then the payload.
A server that drains says "last", and closes; a client that has been told so has lost nothing. Run
as ``python -m tests.system.production.service OPTIONS``, where OPTIONS are JSON; the first line on
standard output is JSON as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from functools import partial
from typing import Any

import headrace

PAYLOAD = bytes(range(256)) * 4096


async def answer(ledger: str | None, work: float, reader: Any, writer: Any) -> None:
    """Answer requests until the client ends, or the server drains; each takes *work* seconds of the
    processor's time."""
    server = headrace.current_connection().server
    peer = writer.get_extra_info("peername")
    async for line in reader:
        if not line.endswith(b"\n"):
            return  # the client is gone in the middle of it
        number, size = line.split()
        if ledger is not None:
            # Before it is acknowledged.
            descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, number + b"\n")
            os.close(descriptor)
        if work:
            until = time.thread_time() + work
            while time.thread_time() < until:
                pass
        last = server.draining.is_set()
        writer.write(
            b"%s %d %s %s\n"
            % (number, os.getpid(), str(peer[0]).encode(), b"last" if last else b"more")
        )
        writer.write(PAYLOAD[: int(size)])
        await writer.drain()
        if last:
            return


def factory(loop: str) -> Any:
    """Return what makes the *loop*."""
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.SelectorEventLoop


async def main(options: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    if "certificate" in options:
        options["serve"]["ssl"] = headrace.Certificates(options["certificate"])
    server = headrace.serve(
        partial(answer, options.get("ledger"), options.get("work", 0.0)),
        "127.0.0.1",
        options.get("port", 0),
        **options["serve"],
    )
    async with server:
        known = {"port": server.sockets[0].getsockname()[1], "processes": list(server.processes)}
        print(json.dumps(known), flush=True)
        if options.get("statistics"):
            asyncio.get_running_loop().create_task(tell(server)).add_done_callback(
                lambda task: None
            )
        report = await server.serve_forever()
        print(
            json.dumps({"report": str(report), "accepted": server.statistics().accepted}),
            flush=True,
        )


async def tell(server: Any) -> None:
    """Print the statistics now and then."""
    while True:
        await asyncio.sleep(0.5)
        statistics = server.statistics()
        print(
            json.dumps(
                {
                    "open": statistics.open,
                    "ended": dict(statistics.ended),
                    "accepted": statistics.accepted,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="  server: %(message)s")
    given = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=factory(given["loop"])) as runner:
        runner.run(main(given))
