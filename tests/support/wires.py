"""What the tests put at the other end of a stream: a transport that only records, and the raw
socket of a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

from headrace._transport import backend
from headrace._transport.scheduler import scheduler_of

Feed = Callable[[bytes], None]

# How bytes reach a reader. The public method only ever schedules; a loop's transport may step the
# waiting task at once.
FEEDS = ["feed_data", "data_received"]

# Every kind of read, and what it returns of b"abcde\n" and the end of input.
READS = {
    "read": (lambda reader: reader.read(6), b"abcde\n"),
    "readexactly": (lambda reader: reader.readexactly(6), b"abcde\n"),
    "readline": (lambda reader: reader.readline(), b"abcde\n"),
    "readuntil": (lambda reader: reader.readuntil(b"e\n"), b"abcde\n"),
    "__anext__": (lambda reader: reader.__anext__(), b"abcde\n"),
    "read_all": (lambda reader: reader.read(), b"abcde\n"),
    "_wait_for_data": (lambda reader: reader._wait_for_data("read"), None),
}


class RecordingTransport(asyncio.Transport):
    """A transport without a socket: ``sent`` lists the writes, ``calls`` the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.calls: list[str] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.calls.append("close")
        self.closing = True

    def abort(self) -> None:
        self.calls.append("abort")
        self.closing = True

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class SecureTransport(RecordingTransport):
    """A transport that says that it encrypts: what is written in a step gathers."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return "a context" if name == "sslcontext" else default


class Wire:
    """A stream over a transport, with no socket: reader, writer, protocol, transport."""

    def __init__(
        self,
        streams: types.SimpleNamespace,
        transport: RecordingTransport | None = None,
        limit: int = 2**16,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.transport = RecordingTransport() if transport is None else transport
        self.reader = streams.StreamReader(limit, loop)
        self.protocol = streams.StreamReaderProtocol(self.reader, loop=loop)
        if streams.name == "headrace":
            # as open_connection() does: nobody else has the transport, so writes may gather
            self.protocol._h_private = True
        self.protocol.connection_made(self.transport)
        self.writer = streams.StreamWriter(self.transport, self.protocol, self.reader, loop)

    def feed(self, way: str) -> Feed:
        """Return the function that feeds the reader in the given *way*, one of FEEDS."""
        return self.reader.feed_data if way == "feed_data" else self.protocol.data_received

    def shut(self) -> None:
        """End the connection, so that the writer is not reported as unclosed."""
        self.transport.closing = True


def stepping() -> bool:
    """Return whether headrace steps a task of the running loop right now."""
    return scheduler_of(asyncio.get_running_loop()).stepping


def sends_at_once(kind: str) -> bool:
    """Return whether a write reaches the socket within the call, on a loop of *kind*: uvloop's own
    transport sends at its turn's end."""
    return kind != "uvloop" or os.environ.get(backend.VARIABLE) == "native"


async def turns(count: int = 1) -> None:
    """Let the loop go *count* turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def from_callback(function: Callable[..., object], *arguments: object) -> None:
    """Call function(*arguments) from a plain callback of the loop, where no task is running, and
    wait for that."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            function(*arguments)
        except Exception as error:
            called.set_exception(error)
        else:
            called.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await called


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback; the second blocks, for 5 s at most."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second, _ = listener.accept()
    for end in (first, second):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    first.setblocking(False)
    second.settimeout(5)
    return first, second


@contextlib.asynccontextmanager
async def connected(
    streams: types.SimpleNamespace, **options: Any
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """Give a stream's reader and writer and the blocking socket at the other end of its TCP
    connection; close both at the end."""
    ours, peer = tcp_pair()
    reader, writer = await streams.open_connection(sock=ours, **options)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await asyncio.sleep(0)  # asyncio's transport closes its socket after it has said so


async def received(peer: socket.socket) -> bytes:
    """Return everything that *peer* receives up to EOF, while the loop runs."""

    def receive() -> bytes:
        data = bytearray()
        while piece := peer.recv(65536):
            data += piece
        return bytes(data)

    return await asyncio.get_running_loop().run_in_executor(None, receive)


def segments_received(peer: socket.socket) -> int:
    """Return how many segments with data *peer* has received: tcpi_data_segs_in of Linux's struct
    tcp_info."""
    return struct.unpack_from("I", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152)[
        0
    ]
