"""The server of the demo's table: one process, one kind of streams, one loop, the plain handlers of
asyncio's documentation.

``python -m headrace.cli.demo.server stock|headrace asyncio|uvloop`` prints the port of each handler
as JSON, then answers a line on its standard input with its CPU time in nanoseconds. It ends when
its standard input does, so none is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import headrace

# The streams of asyncio or of headrace: the handlers are the same text for both.
Handler = Callable[[Any, Any], Awaitable[None]]


async def echo(reader: Any, writer: Any) -> None:
    """Answer what came, as it came."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def lines(reader: Any, writer: Any) -> None:
    """Answer each line."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def frames(reader: Any, writer: Any) -> None:
    """Answer each frame: four bytes that say how many follow."""
    while True:
        try:
            header = await reader.readexactly(4)
        except asyncio.IncompleteReadError:
            break
        body = await reader.readexactly(int.from_bytes(header, "big"))
        writer.write(header + body)
        await writer.drain()
    writer.close()


HANDLERS: dict[str, Handler] = {"echo": echo, "lines": lines, "frames": frames}


def _forgiving(handler: Handler) -> Handler:
    """Let a connection end in the middle of a message: that is how the load leaves."""

    async def handle(reader: Any, writer: Any) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
            # asyncio's streams would otherwise tell of the reset once more, that nobody has
            # retrieved it.
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return handle


async def serve(streams: str) -> None:
    """Serve all handlers with the streams of asyncio or headrace until standard input ends."""
    module: Any = headrace if streams == "headrace" else asyncio
    servers = {
        name: await module.start_server(_forgiving(handler), "127.0.0.1", 0)
        for name, handler in HANDLERS.items()
    }
    print(
        json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()}),
        flush=True,
    )
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def answer() -> None:
        for _ in sys.stdin:
            print(time.process_time_ns(), flush=True)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=answer, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Serve as sys.argv says."""
    streams, loop = sys.argv[1:]
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(streams))


if __name__ == "__main__":
    main()
