"""A server in a process of its own that runs out of descriptors while clients wait for it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping

CLIENTS = 5
PROGRAM = """
import asyncio, json, os, resource, socket, sys, time
import headrace

async def main(streams, clients):
    served, reports = [], []
    def tell(_, context):
        reports.append(type(context["exception"]).__name__ + " " + context["message"])

    asyncio.get_running_loop().set_exception_handler(tell)

    async def serve(reader, writer):
        served.append(await reader.readline())
        writer.close()
        await writer.wait_closed()

    async with await streams.start_server(serve, "127.0.0.1", 0) as server:
        clients = [socket.socket() for _ in range(clients)]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for each in clients:
            each.connect(server.sockets[0].getsockname())
            each.sendall(b"line\\n")
        await asyncio.sleep(0.05)
        before = time.process_time()
        await asyncio.sleep(0.5)
        worked = (time.process_time() - before) / 0.5
        during = len(served)
        for each in taken:
            os.close(each)
        began = time.monotonic()
        while len(served) < len(clients) and time.monotonic() - began < 5:
            await asyncio.sleep(0.01)
        after = time.monotonic() - began
        print(json.dumps([worked, during, len(served), after, reports]), flush=True)
        if streams is asyncio:
            os._exit(0)  # its server may wait for ever
        for each in clients:
            each.close()

if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = asyncio.SelectorEventLoop
streams = asyncio if sys.argv[2] == "stock" else headrace
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(streams, int(sys.argv[3])))
"""


@dataclasses.dataclass
class Outcome:
    """How the server did: the share of a core that it used without descriptors, how many clients it
    served then and in all, how long that took after descriptors were free, and what it reported."""

    worked: float
    during: int
    served: int
    after: float
    reports: list[str]


def run_out(kind: str, streams: str, environment: Mapping[str, str] = os.environ) -> Outcome:
    """Let a server of *streams*, stock or headrace, on a loop of *kind*, run out of descriptors
    while CLIENTS clients connect."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, kind, streams, str(CLIENTS)],
        capture_output=True,
        text=True,
        timeout=40,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Outcome(*json.loads(done.stdout))
