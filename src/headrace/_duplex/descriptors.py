"""Descriptors that are passed over a Unix socket (SCM_RIGHTS, unix(7)).

Such a stream has a transport of its own, which always receives by recvmsg(): one that reads ahead
by recv() loses the descriptors. It is the same on every way and every loop.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from asyncio import trsock
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from headrace._duplex import boundary, passing
from headrace._duplex.reading import Buffer
from headrace._duplex.stream import Stream
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._streams.reader import StreamReader
from headrace._streams.reader_protocol import StreamReaderProtocol
from headrace._streams.writer import StreamWriter

RECEIVE_BYTES = 65536
# What Linux passes with one message (SCM_MAX_FD, unix(7)).
MOST_DESCRIPTORS = 253
# The high-water mark of asyncio's transports.
HIGH_BYTES = 65536
_INT = array.array("i").itemsize


def with_descriptors(sock: socket.socket, *, max_fds: int, limit: int = DEFAULT_LIMIT) -> Stream:
    """Return a Stream over *sock* for send_fds() and receive_fds().

    Args: *sock*, a connected Unix socket, which belongs to the stream then; *max_fds*, how many
    descriptors may wait to be received at once: what is more is closed; *limit* as for
    open_connection().
    Raises: ValueError where it is no Unix stream socket, or *max_fds* is not from 1 to 253.
    """
    check(sock, max_fds)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport = DescriptorTransport(loop, sock, protocol, max_fds)
    return Stream(reader, StreamWriter(transport, protocol, reader, loop))


def check(sock: socket.socket | None, max_fds: int) -> None:
    """Raise ValueError where *sock* is no Unix stream socket (None is not known yet), or *max_fds*
    is not from 1 to 253."""
    if sock is not None and (sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM):
        raise ValueError("descriptors are passed over a Unix stream socket only")
    if not 1 <= max_fds <= MOST_DESCRIPTORS:
        raise ValueError(f"max_fds is from 1 to {MOST_DESCRIPTORS}, not {max_fds}")


async def send_fds(stream: Stream, data: Buffer, fds: Sequence[int]) -> None:
    """Send *data*, with *fds* at its first byte, behind what was written before.

    Args: *data*, bytes-like, not empty; *fds*, descriptors: they are duplicated, and may be closed
    once this returns.
    Raises: TypeError where the stream was not made with ``max_fds``; ValueError where *data* is
    empty or there are more than 253 *fds*; WriteTimeout and DeadlineExceeded; OSError where one is
    no open descriptor; what broke the connection. Nothing was accepted then.
    Cancellation: safe: nothing was accepted.
    """
    transport = transport_of(stream)
    data = bytes(data)
    if not data or len(fds) > MOST_DESCRIPTORS:
        raise ValueError(f"send_fds() sends bytes, and at most {MOST_DESCRIPTORS} descriptors")
    await stream.flush()
    await stream.write()  # raises what makes writing impossible
    copies: list[int] = []
    try:
        for each in fds:
            copies.append(os.dup(each))
    except BaseException:
        close_all(copies)
        raise
    transport.write_with(data, copies)
    passing.passed_out(stream, len(data))


async def receive_fds(stream: Stream, n: int) -> tuple[bytes, list[int]]:
    """Return up to *n* bytes as soon as there are any, and the descriptors that came with them.

    The bytes never go past the place of the next descriptors, and where there are some, not behind
    the message they came with, as the system cuts it: one of more than some 32 KiB is several. On
    Linux their place is the first byte they were sent with; elsewhere it may be one that was sent
    before, as the systems join messages. What a plain read has gone past comes with the next call.
    The descriptors are the caller's, close-on-exec. Those that nobody fetches are closed with the
    stream.

    Args: *n*, a positive number of bytes.
    Returns: the bytes, b"" at the end, and a list that may be empty.
    Raises: TypeError where the stream was not made with ``max_fds``; ValueError where *n* is not
    positive; what read() raises.
    Cancellation: safe: nothing is taken.
    """
    transport = transport_of(stream)
    if n <= 0:
        raise ValueError("receive_fds() takes a positive number of bytes")
    await stream.peek(1)
    place = stream.bytes_read
    fds: list[int] = []
    waiting = transport.waiting
    while waiting and waiting[0].place <= place:
        passed = waiting.popleft()
        fds += passed.fds
        if passed.end > place:
            n = min(n, passed.end - place)
    if waiting:
        n = min(n, waiting[0].place - place)
    return stream.read_nowait(n), fds


def transport_of(stream: Stream) -> DescriptorTransport:
    """Return the transport of *stream*, which passes descriptors. Raises: TypeError else."""
    transport = stream.writer.transport
    if not isinstance(transport, DescriptorTransport):
        raise TypeError(
            "descriptors are passed only by a stream over a Unix socket that was made with "
            f"max_fds=, and not by one over {type(transport).__name__!r}"
        )
    return transport


def close_all(fds: Sequence[int]) -> None:
    """Close *fds*."""
    for each in fds:
        os.close(each)


class Passed(NamedTuple):
    """Descriptors that came: with which bytes of the input, from and up to which."""

    place: int
    end: int
    fds: list[int]


class DescriptorTransport(asyncio.Transport):
    """A Unix socket with what came with its bytes."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any, most: int
    ) -> None:
        super().__init__(
            {
                "socket": trsock.TransportSocket(sock),
                "sockname": sock.getsockname(),
                "peername": sock.getpeername(),
            }
        )
        self._loop = loop
        self._sock = sock
        self._protocol = protocol
        self._most = most
        self.waiting: deque[Passed] = deque()
        self._received = 0
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._size = 0
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._stopped_writer = False
        self._paused = False
        self._ended = False
        self._eof_wanted = False
        self._closing = False
        loop.add_reader(sock.fileno(), self._receive)
        protocol.connection_made(self)  # last: it may close the connection at once

    # ---- reading

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            size = boundary.size_of_next(self._sock, RECEIVE_BYTES)
            data, extra, _, _ = self._sock.recvmsg(size, space, flags)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        fds = array.array("i")
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) // _INT * _INT])
        if fds:
            self._keep(list(fds), self._received + len(data))
        if data:
            self._received += len(data)
            self._protocol.data_received(data)
            return
        self._ended = True
        self._loop.remove_reader(self._sock.fileno())
        if not self._protocol.eof_received():
            self.close()

    def _keep(self, fds: list[int], end: int) -> None:
        room = self._most - sum(len(each.fds) for each in self.waiting)
        close_all(fds[room:])
        for each in fds[:room]:
            os.set_inheritable(each, False)
        if room > 0:
            self.waiting.append(Passed(self._received, end, fds[:room]))

    def pause_reading(self) -> None:
        if not (self._paused or self._closing):
            self._paused = True
            if not self._ended:
                self._loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            if not self._ended:
                self._loop.add_reader(self._sock.fileno(), self._receive)

    def is_reading(self) -> bool:
        return not (self._paused or self._closing or self._ended)

    # ---- writing

    def write(self, data: Any) -> None:
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.write_with(bytes(data), [])

    def write_with(self, data: bytes, fds: list[int]) -> None:
        """Send *data*, with *fds* at its first byte; they are closed then."""
        if not data or self._closing:
            close_all(fds)
            return
        self._outgoing.append((memoryview(data), fds))
        self._size += len(data)
        if len(self._outgoing) == 1:
            self._send()
        if self._outgoing and not self._closing:
            self._loop.add_writer(self._sock.fileno(), self._send)
        if self._size > self._high and not self._stopped_writer:
            self._stopped_writer = True
            self._protocol.pause_writing()

    def _send(self) -> None:
        try:
            while self._outgoing:
                data, fds = self._outgoing[0]
                if fds:
                    rights = array.array("i", fds)
                    sent = self._sock.sendmsg(
                        [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                    )
                else:
                    sent = self._sock.send(data)
                close_all(fds)
                self._size -= sent
                self._outgoing[0] = (data[sent:], [])
                if sent == len(data):
                    self._outgoing.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(error)
            return
        self._after_sending()

    def _after_sending(self) -> None:
        if self._size <= self._low and self._stopped_writer:
            self._stopped_writer = False
            self._protocol.resume_writing()
        if self._outgoing:
            return
        self._loop.remove_writer(self._sock.fileno())
        if self._closing:
            self._loop.call_soon(self._lose, None)
        elif self._eof_wanted:
            self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the peer is gone: a receive says so
            self._sock.shutdown(socket.SHUT_WR)

    def write_eof(self) -> None:
        if not (self._eof_wanted or self._closing):
            self._eof_wanted = True
            if not self._outgoing:
                self._shut()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else HIGH_BYTES if low is None else 4 * low
        self._low = low if low is not None else self._high // 4
        if self._size > self._high and not self._stopped_writer:
            self._stopped_writer = True
            self._protocol.pause_writing()

    # ---- the end

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._stop_receiving()
            if not self._outgoing:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._fail(None)

    def _stop_receiving(self) -> None:
        self._closing = True
        self._loop.remove_reader(self._sock.fileno())

    def _fail(self, error: OSError | None) -> None:
        if self._sock.fileno() < 0:
            return
        self._stop_receiving()
        self._loop.remove_writer(self._sock.fileno())
        for _, fds in self._outgoing:
            close_all(fds)
        self._outgoing.clear()
        self._size = 0
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        if self._sock.fileno() < 0:
            return
        while self.waiting:
            close_all(self.waiting.popleft().fds)
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()
