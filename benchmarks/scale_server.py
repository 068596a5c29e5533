"""The servers of the scale benchmark: ``python -m benchmarks.scale_server KIND LOOP``.

The first line on stdout is JSON with the port, or what is missing. Then it answers each line on
stdin with a line of JSON:

    figures     what the garbage collector has done so far
    end         brings all connections to their end, as a program of this kind does; then the loop
                is closed, and how long that took is one more line
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import logging
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from .server_protocols import Echo
from .server_streams import BACKLOG, LOOPBACK, echo
from .servers import all_the_descriptors, die_with_parent, tls_context

KINDS = ("serve", "streams", "asyncio-streams", "protocol")
LOOPS = ("headrace", "asyncio", "uvloop")

# What brings all connections to their end.
End = Callable[[], Awaitable[object]]


def say(**facts: object) -> None:
    """Answer with *facts*."""
    print(json.dumps(facts), flush=True)


class Collections:
    """How often the garbage collector has run, by generation, and how long."""

    def __init__(self) -> None:
        self.counts = [0, 0, 0]
        self.seconds = [0.0, 0.0, 0.0]
        self._began = 0.0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.counts[info["generation"]] += 1
            self.seconds[info["generation"]] += time.perf_counter() - self._began


class Connected(Echo):
    """An Echo that knows which others there are."""

    there: ClassVar[set[Connected]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.there.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.there.discard(self)


async def start(kind: str, connections: int, context: ssl.SSLContext | None) -> tuple[int, End]:
    """Serve on the running loop; return the port, and how to end it."""
    loop = asyncio.get_running_loop()
    server: Any
    if kind == "serve":
        import headrace

        # The times are so long that no connection of the benchmark is ended, and not so long that
        # the monitor would look more seldom than it does where nothing is said.
        server = headrace.serve(
            echo,
            LOOPBACK,
            0,
            ssl=context,
            backlog=BACKLOG,
            max_connections=connections + 100,
            first_byte_timeout=600,
            handshake_timeout=60,
        )
        await server.start()
        return server.sockets[0].getsockname()[1], lambda: server.shutdown(0)
    if kind == "protocol":
        server = await loop.create_server(Connected, LOOPBACK, 0, ssl=context, backlog=BACKLOG)

        async def end() -> None:
            server.close()
            for each in list(Connected.there):
                each.transport.close()
            while Connected.there:
                await asyncio.sleep(0.001)

    else:
        module: Any = importlib.import_module("headrace" if kind == "streams" else "asyncio")
        server = await module.start_server(echo, LOOPBACK, 0, ssl=context, backlog=BACKLOG)

        async def end() -> None:
            server.close()
            # As asyncio.run() ends.
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return server.sockets[0].getsockname()[1], end


async def converse(kind: str, connections: int, context: ssl.SSLContext | None) -> None:
    """Serve until stdin says that it is enough."""
    collections = Collections()
    port, end = await start(kind, connections, context)
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: commands.put_nowait(sys.stdin.readline()))
    say(port=port)
    while command := (await commands.get()).strip():
        if command == "figures":
            say(collections=collections.counts, seconds=collections.seconds)
        else:
            began, cpu_began = time.perf_counter(), time.process_time()
            await end()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
            say(seconds=seconds, cpu=cpu)
            break
    loop.remove_reader(sys.stdin)


def factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of that name. Raises: ImportError."""
    if loop == "asyncio":
        return asyncio.SelectorEventLoop
    made: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(loop).new_event_loop
    return made


def main() -> None:
    """Serve, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--tls", metavar="PEM")
    arguments = parser.parse_args()
    # Why a client failed, the server knows.
    logging.basicConfig(level=logging.INFO)
    die_with_parent()
    all_the_descriptors()
    context = tls_context(arguments.tls) if arguments.tls else None
    try:
        new_loop = factory(arguments.loop)
        if arguments.kind in ("serve", "streams"):
            importlib.import_module("headrace")
    except ImportError as error:
        say(missing=str(error))
        return
    loop = new_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(converse(arguments.kind, arguments.connections, context))
    began = time.perf_counter()
    loop.close()
    with contextlib.suppress(BrokenPipeError):
        say(close_seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
