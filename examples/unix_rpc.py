"""Calls of functions in another process of the same machine: JSON lines over a unix socket.

    python examples/unix_rpc.py serve --path /tmp/rpc.sock
    python examples/unix_rpc.py call --path /tmp/rpc.sock add 2 3

Calls on one connection may be many at a time: each answer carries the number of its call.
"""

import argparse
import asyncio
import itertools
import json
import math
import signal
from collections.abc import Callable
from typing import Any

import headrace

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda *numbers: sum(numbers),
    "multiply": lambda *numbers: math.prod(numbers),
    "echo": lambda *values: list(values),
}


def perform(line: bytes) -> dict[str, Any]:
    """Return the answer to the call in *line*."""
    call = json.loads(line)
    try:
        return {"id": call["id"], "result": FUNCTIONS[call["function"]](*call["arguments"])}
    except Exception as error:
        return {"id": call["id"], "error": f"{type(error).__name__}: {error}"}


async def answer(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(json.dumps(perform(line)).encode() + b"\n")
            await writer.drain()
    except (
        ConnectionError,
        ValueError,
    ) as error:  # ValueError: not JSON, or a line above the limit
        print(f"dropped a client: {error}", flush=True)
    finally:
        writer.close()


class Client:
    """Calls functions of the server; any number of tasks may call at once."""

    def __init__(self, reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
        self.writer = writer
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.receiving = asyncio.create_task(self.receive(reader))

    async def call(self, function: str, *arguments: object) -> Any:
        """Return what *function* returns. Raises: RuntimeError with the server's words,
        ConnectionError if it is gone."""
        number = next(self.numbers)
        self.waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self.writer.write(
                json.dumps({"id": number, "function": function, "arguments": arguments}).encode()
                + b"\n"
            )
            await self.writer.drain()
            return await self.waiting[number]
        finally:
            del self.waiting[number]

    async def receive(self, reader: headrace.StreamReader) -> None:
        while line := await reader.readline():
            reply = json.loads(line)
            future = self.waiting.get(reply["id"])
            if future is None or future.done():
                continue
            if "error" in reply:
                future.set_exception(RuntimeError(reply["error"]))
            else:
                future.set_result(reply["result"])
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the server is gone"))

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
        await self.receiving


async def serve(path: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await headrace.start_unix_server(answer, path) as server:
        print(f"listening on {path}", flush=True)
        await stop.wait()
        server.close_clients()


async def call(path: str, function: str, arguments: list[Any]) -> None:
    client = Client(*await headrace.open_unix_connection(path))
    try:
        # Ten at once, to show that they do not wait for each other.
        results = await asyncio.gather(*(client.call(function, *arguments) for _ in range(10)))
        print(f"{function}{tuple(arguments)} = {results[0]}, ten times")
    except RuntimeError as error:
        print(f"the server says: {error}")
    finally:
        await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="calls over a unix socket")
    parser.add_argument("what", choices=("serve", "call"))
    parser.add_argument("--path", default="/tmp/headrace-rpc.sock")
    parser.add_argument("function", nargs="?", default="add")
    parser.add_argument("arguments", nargs="*", type=json.loads, help="as JSON")
    options = parser.parse_intermixed_args()
    if options.what == "serve":
        asyncio.run(serve(options.path))
    else:
        asyncio.run(call(options.path, options.function, options.arguments))
