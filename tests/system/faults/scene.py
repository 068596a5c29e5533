"""What the scenes share: connections to plain sockets, whose calls the shim leaves alone, and the
words for the expected effect of a fault.

A scene is a coroutine function of one of the programs scenes_*.py, which play one each:
`scenes_servers.py LOOP NAME [ARGUMENT...]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import child

import headrace

LOOPBACK = "127.0.0.1"


@contextlib.asynccontextmanager
async def client(**options: Any) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """(reader, writer, peer) of a client whose server is the plain socket *peer*."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        reader, writer = await headrace.open_connection(
            *listening.getsockname(), way="native", **options
        )
        peer, _ = listening.accept()
    peer.setblocking(False)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def echo(reader: Any, writer: Any) -> None:
    """Serve a connection: send back what comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def echoing(
    callback: Any = echo, start: Any = None
) -> AsyncIterator[tuple[Any, tuple[str, int]]]:
    """(server, address); afterwards the server has no connection left."""
    server = await (
        headrace.start_server(callback, LOOPBACK, 0, way="native")
        if start is None
        else start(callback, LOOPBACK, 0)
    )
    try:
        yield server, server.sockets[0].getsockname()
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), 3)


async def receive(sock: socket.socket, size: int | None = None) -> bytes:
    """Return *size* bytes, or all until the end."""
    loop = asyncio.get_running_loop()
    parts, got = [], 0
    while size is None or got < size:
        part = await loop.sock_recv(sock, 262_144 if size is None else size - got)
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)


async def answered(address: tuple[str, int]) -> None:
    """Connect to a server that sends back what comes, and see that it does."""
    with socket.create_connection(address) as peer:
        peer.setblocking(False)
        peer.sendall(b"hello")
        assert await receive(peer, 5) == b"hello"


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def holds(reader: Any, size: int) -> Callable[[], bool]:
    """Return a condition: *reader* has buffered *size* bytes. To ask for its _buffer would change
    how it works."""
    return lambda: f" {size} bytes" in repr(reader)


async def read_to_error(reader: Any) -> tuple[bytes, int]:
    """Return all that can be read, and the number of the error behind it, 0 where that is the
    end."""
    parts = []
    try:
        while part := await reader.read(65536):
            parts.append(part)
    except OSError as error:
        return b"".join(parts), error.errno or 0
    return b"".join(parts), 0


@contextlib.contextmanager
def raising(name: str) -> Iterator[None]:
    """The block must raise an OSError with the number that is called *name*."""
    raised = None
    try:
        yield
    except OSError as error:
        raised = error
    assert raised is not None and raised.errno == getattr(errno, name), (
        f"{raised!r}, where {name} was expected"
    )


def reports() -> list[tuple[str, str]]:
    """Return what the loop's exception handler was told: each message, and the name of its error's
    number."""
    return [
        (message, errno.errorcode[error.errno] if isinstance(error, OSError) else repr(error))
        for message, error in child.heard()
    ]


def pattern(size: int) -> bytes:
    """Return bytes of which no two places look alike."""
    return b"".join(index.to_bytes(4, "big") for index in range((size + 3) // 4))[:size]


@contextlib.contextmanager
def idle() -> Iterator[None]:
    """The block may use a tenth of a processor at most."""
    began, used = time.monotonic(), time.process_time()
    yield
    used, began = time.process_time() - used, time.monotonic() - began
    assert used < 0.1 * began, f"{used:.3f} s of processor time in {began:.3f} s"


@contextlib.contextmanager
def descriptors(spare: int) -> Iterator[None]:
    """Inside the block this process can open *spare* more descriptors."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = sorted(int(each) for each in os.listdir("/proc/self/fd"))[
        :-1
    ]  # without that of the listing
    assert opened == list(range(len(opened))), f"there are gaps: {opened}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(opened) + spare, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def fill_gaps() -> list[int]:
    """Open /dev/null until the numbers of the descriptors have no gap; return what was opened."""
    found = []
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    while not found or found[-1] < highest:
        found.append(os.open("/dev/null", os.O_RDONLY))
    return found


def play(scenes: dict[str, Any]) -> None:
    """Play that of *scenes* that the command line names."""
    kind, name, *arguments = sys.argv[1:]
    child.run(kind, lambda: scenes[name](*arguments))
    child.say()
