"""The operations whose instructions are counted: the data path, without a socket.

``python -m benchmarks.operations --module headrace OPERATION N`` runs one of them: some
turns to warm up, then N turns. Run under callgrind for two values of N, the difference
is what N turns cost, and everything else (start, imports, warm-up, exit) drops out.

Each builds its reader or writer by hand, as a transport's protocol would, inside a running loop of
asyncio. It uses only names that asyncio has too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

WARM_TURNS = 40
KIB = 1024

# Any: the module is chosen at run time, and the two have no type in common.
Module = Any
Operation = Callable[[Module, int], Awaitable[None]]


class NullTransport(asyncio.Transport):
    """Takes every byte and forgets it: what is left is the cost of the writer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop  # asyncio's transports have it, and some code looks
        self._protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Forget *data*."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""

    def pause_reading(self) -> None:
        """Nothing arrives but what the operation feeds."""

    def resume_reading(self) -> None:
        """Nothing arrives but what the operation feeds."""

    def is_reading(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol


def _reader(module: Module, limit: int = 64 * KIB) -> Any:
    return module.StreamReader(limit=limit, loop=asyncio.get_running_loop())


def _connection(module: Module) -> tuple[Any, Any, Any]:
    """A reader, its protocol and a writer, joined to a null transport."""
    loop = asyncio.get_running_loop()
    reader = _reader(module)
    protocol = module.StreamReaderProtocol(reader, loop=loop)
    transport = NullTransport(loop)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return reader, protocol, module.StreamWriter(transport, protocol, reader, loop)


def _deliverer(protocol: Any) -> Callable[[bytes], None]:
    """How a transport would hand bytes to *protocol*."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        deliver: Callable[[bytes], None] = protocol.data_received
        return deliver

    def into_its_buffer(data: bytes) -> None:
        buffer = memoryview(protocol.get_buffer(len(data)))
        buffer[: len(data)] = data
        protocol.buffer_updated(len(data))

    return into_its_buffer


async def readexactly_64(module: Module, turns: int) -> None:
    reader, data = _reader(module), b"x" * 64
    for _ in range(turns):
        reader.feed_data(data)
        await reader.readexactly(64)


async def readline_80(module: Module, turns: int) -> None:
    reader, data = _reader(module), b"x" * 79 + b"\n"
    for _ in range(turns):
        reader.feed_data(data)
        await reader.readline()


async def readuntil_tuple(module: Module, turns: int) -> None:
    reader, data = _reader(module), b"x" * 78 + b"\r\n"
    separators = (b"\n", b"\r\n")
    for _ in range(turns):
        reader.feed_data(data)
        await reader.readuntil(separators)


async def read_64k(module: Module, turns: int) -> None:
    reader, data = _reader(module), bytes(64 * KIB)
    for _ in range(turns):
        reader.feed_data(data)
        await reader.read(64 * KIB)


async def readexactly_6m(module: Module, turns: int) -> None:
    reader, chunk = _reader(module), bytes(64 * KIB)
    for _ in range(turns):
        for _ in range(96):
            reader.feed_data(chunk)
        await reader.readexactly(96 * 64 * KIB)


async def write_drain(module: Module, turns: int) -> None:
    _, _, writer = _connection(module)
    data = b"x" * 64
    for _ in range(turns):
        writer.write(data)
        await writer.drain()


async def read_waiting(module: Module, turns: int) -> None:
    reader, protocol, _ = _connection(module)
    loop, data, deliver = asyncio.get_running_loop(), b"x" * 64, _deliverer(protocol)
    for _ in range(turns):
        loop.call_soon(deliver, data)
        await reader.read(64 * KIB)


@dataclass(frozen=True)
class Subject:
    """An operation, what it is in words, and how many turns callgrind can bear."""

    run: Operation
    about: str
    turns: int
    since: tuple[int, int] = (3, 11)  # asyncio's own version of it

    def unsupported(self, module: str) -> str | None:
        """Why *module* cannot run it here, or None when it can."""
        if module == "asyncio" and sys.version_info < self.since:
            return f"asyncio has it since Python {self.since[0]}.{self.since[1]}"
        return None


SUBJECTS: dict[str, Subject] = {
    "readexactly_64": Subject(readexactly_64, "feed 64 B, readexactly", 2000),
    "readline_80": Subject(readline_80, "feed an 80 B line, readline", 2000),
    "readuntil_tuple": Subject(readuntil_tuple, "feed 80 B, readuntil(tuple)", 2000, since=(3, 13)),
    "read_64k": Subject(read_64k, "feed 64 KiB, read", 500),
    "readexactly_6m": Subject(readexactly_6m, "feed 6 MiB in 96, readexactly", 8),
    "write_drain": Subject(write_drain, "write 64 B, drain", 2000),
    "read_waiting": Subject(read_waiting, "read that waits; data_received", 1000),
}


async def _run(module: Module, operation: Operation, turns: int) -> None:
    await operation(module, WARM_TURNS)
    await operation(module, turns)


def main(arguments: list[str] | None = None) -> None:
    """Run one operation, quietly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations")
    parser.add_argument("--module", default="headrace")
    parser.add_argument("operation", choices=SUBJECTS)
    parser.add_argument("turns", type=int)
    options = parser.parse_args(arguments)
    module = importlib.import_module(options.module)
    # A collection falls on whichever turn crosses a threshold; leave it out of both.
    gc.collect()
    gc.disable()
    asyncio.run(_run(module, SUBJECTS[options.operation].run, options.turns))


if __name__ == "__main__":
    main()
