"""Calls over TCP: frames of four bytes of length and JSON, many at a time.

    python examples/rpc_server.py --port 8894

A request is {"id": 1, "call": "add", "with": [2, 3]}; the answer is {"id": 1, "result": 5}, or has
"error". A client may send many before it reads; the answers have the order of the requests.
"""

import argparse
import asyncio
import json
from collections.abc import Callable
from typing import Any

import headrace
from headrace import framing

CALLS: dict[str, Callable[..., Any]] = {"add": lambda *n: sum(n), "upper": str.upper}
FRAMES = framing.LengthPrefixed(4, limit=1 << 20)  # a longer one is refused before it is received


def answer(frame: bytes) -> bytes:
    """Return the answer to one request; never raise, whatever it is."""
    number = None
    try:
        number = (request := json.loads(frame))["id"]
        said = {"id": number, "result": CALLS[request["call"]](*request["with"])}
    except Exception as error:
        said = {"id": number, "error": f"{type(error).__name__}: {error}"}
    return json.dumps(said).encode()


async def serve_calls(stream: headrace.Stream) -> None:
    """Answer one client until it ends the stream, or says nothing for a minute."""
    stream.read_timeout = 60
    stream.write_timeout = 60  # or does not take its answers
    frames = stream.framed(FRAMES)
    try:
        while batch := await frames.read_many():  # all that are there; one send for all
            await frames.write(*map(answer, batch))
    except (headrace.FrameTooLarge, headrace.IncompleteFrame, headrace.StreamTimeout) as error:
        print(f"{stream.peername}: {error}", flush=True)
        stream.abort()  # what would follow means nothing


async def main(host: str, port: int) -> None:
    server = headrace.serve(serve_calls, host, port, max_connections_per_peer=100, grace=10)
    async with server:
        listening = "listening on {} {}".format(*server.sockets[0].getsockname())
        # Said when serve_forever() has begun to listen to signals.
        asyncio.get_running_loop().call_soon(lambda: print(listening, flush=True))
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="calls over TCP")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8894, help="0: any that is free")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port))
