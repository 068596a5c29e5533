"""A chat that waits for nobody: guests who are too slow to say their name, or to read, must go.

python examples/chat_deadlines.py --port 8897
nc 127.0.0.1 8897                                in as many terminals as you like
"""

import argparse
import asyncio
import functools

import headrace

LINE_BYTES = 1000
NAME_SECONDS, QUIET_SECONDS = 10, 600
MAX_UNSENT_BYTES = 256 * 1024

guests: dict[headrace.Stream, str] = {}


def tell(line: str) -> None:
    """Send *line* to everybody. Nobody is waited for: who does not read is cut off."""
    for guest, name in list(guests.items()):
        if guest.unsent > MAX_UNSENT_BYTES:
            print(f"{name} does not read", flush=True)
            guest.abort()
        elif not guest.closing:
            guest.write_nowait(line.encode(), b"\n")


async def welcome(stream: headrace.Stream, name_seconds: float) -> None:
    """Serve one guest until they leave. The server logs a timeout, and ends the guest."""
    try:
        with stream.deadline(name_seconds):  # for all of it, however slowly its bytes come
            await stream.write(b"your name?\n")
            line = await stream.readline(limit=LINE_BYTES)
        guests[stream] = name = line.decode(errors="replace").strip() or "somebody"
        tell(f"* {name} is here")
        while line := await stream.readline(limit=LINE_BYTES, timeout=QUIET_SECONDS):
            tell(f"{name}: {line.decode(errors='replace').rstrip()}")
    except headrace.LimitOverrunError:
        stream.abort()  # nobody's line is so long
    finally:
        if stream in guests:
            tell(f"* {guests.pop(stream)} has left")


async def main(port: int, name_seconds: float) -> None:
    handler = functools.partial(welcome, name_seconds=name_seconds)
    async with headrace.serve(handler, "127.0.0.1", port) as server:
        listening = "listening on {} {}".format(*server.sockets[0].getsockname())
        asyncio.get_running_loop().call_soon(lambda: print(listening, flush=True))
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a chat that waits for nobody")
    parser.add_argument("--port", type=int, default=8897, help="0: any that is free")
    parser.add_argument("--name-seconds", type=float, default=NAME_SECONDS)
    options = parser.parse_args()
    asyncio.run(main(options.port, options.name_seconds))
