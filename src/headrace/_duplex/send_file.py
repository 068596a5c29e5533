"""send_file(): what is in a file goes out behind what was written before.

On a plain socket of ours the system sends it (sendfile(2)); elsewhere, and where the system refuses
it for this file, it is read in a thread and written.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import select
from collections.abc import AsyncIterator, Callable
from typing import Any

from headrace._duplex import passing, splice
from headrace._duplex.splice import End
from headrace._duplex.stream import Stream
from headrace.errors import WriteTimeout

# How much is sent or read at once, in bytes; then the loop has a turn. Not measured.
PART_BYTES = 1 << 20

# What sendfile(2) says of a file that it cannot send; in the first call only.
_REFUSED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ESPIPE)


async def send_file(
    stream: Stream,
    file: Any,
    offset: int | None = None,
    count: int | None = None,
    *,
    timeout: float | None = None,
) -> int:
    """Send what is in *file*, behind what was written before; other writers wait until it is sent.

    Args:
        file: a binary file object.
        offset: where to begin, in bytes; the file's own position does not move then. None for that
            position, which moves with what is sent.
        count: how many bytes to send at most; None for all there are.
        timeout: how many seconds it may take; None for any time.

    Returns: how many bytes were sent: fewer than *count* where the file ends before.
    Raises: TypeError where *file* is not binary, ValueError where *offset* or *count* is negative;
    WriteTimeout and DeadlineExceeded; what broke the connection, ConnectionResetError where it is
    closed, RuntimeError after write_eof(); OSError of the file. Each that comes after the start
    has ``transferred``: how many bytes the stream has accepted.
    Cancellation: safe: ``transferred`` of the CancelledError says how many went, and the file's
    position is behind them.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"send_file() takes a Stream, not a {type(stream).__name__!r}")
    if isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        raise TypeError(f"send_file() takes a binary file object, not a {type(file).__name__!r}")
    if (offset is not None and offset < 0) or (count is not None and count < 0):
        raise ValueError("offset and count of send_file() are not negative")
    sending = Sending(stream, file, offset, count)
    try:
        async with stream._h_bounded("send_file", WriteTimeout, timeout):
            await sending.run()
    except BaseException as error:
        error.transferred = sending.sent  # type: ignore[attr-defined]
        raise
    finally:
        sending.settle()
    return sending.sent


class Sending:
    """One send_file(): how far it is."""

    def __init__(self, stream: Stream, file: Any, offset: int | None, count: int | None) -> None:
        self._stream = stream
        self._file = file
        self._moves = offset is None
        self._offset = file.tell() if offset is None else offset
        self._left = count
        self.sent = 0

    async def run(self) -> None:
        """Send all of it."""
        await self._stream.write()  # raises what makes writing impossible
        transport = passing.plain_transport(self._stream)
        number = descriptor_of(self._file)
        async with turn(self._stream):
            if transport is None or number is None or not await self._by_system(transport, number):
                await self._by_hand()

    def settle(self) -> None:
        """Leave the file's position behind what was sent."""
        if self._moves:
            self._file.seek(self._offset)

    def _part(self) -> int:
        return PART_BYTES if self._left is None else min(PART_BYTES, self._left)

    def _count(self, size: int) -> None:
        self.sent += size
        self._offset += size
        if self._left is not None:
            self._left -= size

    # ---- sendfile

    async def _by_system(self, transport: Any, number: int) -> bool:
        """Have the system send it; return False where it cannot send this file."""
        shared = splice.join() if splice.CAN_SPLICE else None
        if shared is None:
            return False
        end = End(self._stream, transport)
        try:
            shared.watch(end)
            try:
                return await self._send_parts(end, number)
            finally:
                shared.unwatch(end)
        finally:
            splice.leave(shared)

    async def _send_parts(self, end: End, number: int) -> bool:
        while size := self._part():
            if end.transport.is_closing():
                raise ConnectionResetError("Connection lost: the stream is closed")
            if passing.unsent(self._stream):
                return False  # somebody wrote without waiting: that goes first
            end.forget(select.EPOLLOUT)
            try:
                sent = os.sendfile(end.fd, number, self._offset, size)
            except BlockingIOError:
                await end.wait(select.EPOLLOUT, self._stream.write_timeout)
                continue
            except OSError as error:
                if error.errno in _REFUSED:
                    return False
                raise
            if sent == 0:
                return True
            passing.passed_out(self._stream, sent)
            self._count(sent)
            await asyncio.sleep(0)
        return True

    # ---- reads and writes

    async def _by_hand(self) -> None:
        """Read it in a thread and write it."""
        stream = self._stream
        while size := self._part():
            data = await in_thread(self._read, self._offset, size)
            if not data:
                return
            stream.write_nowait(data)
            self._count(len(data))
            async with stream._h_bounded("send_file", WriteTimeout, stream.write_timeout):
                await stream.writer.drain()

    def _read(self, offset: int, size: int) -> bytes:
        number = descriptor_of(self._file)
        if number is not None:
            try:
                return os.pread(number, size, offset)
            except OSError as error:
                if error.errno != errno.ESPIPE:
                    raise
        self._file.seek(offset)
        data = self._file.read(size)
        return bytes(data) if data else b""


@contextlib.asynccontextmanager
async def turn(stream: Stream) -> AsyncIterator[None]:
    """Be the only one in the block who writes to *stream*, behind those who wait already.
    Cancellation: safe."""
    lock = passing.lock_of(stream)
    if lock is not None:
        async with lock:
            yield
        return
    await passing.hold(stream)
    try:
        yield
    finally:
        passing.release(stream)


async def in_thread(read: Callable[[int, int], bytes], offset: int, size: int) -> bytes:
    """Return what *read* returns in a thread. Cancellation: after the thread has ended, which uses
    the file."""
    future = asyncio.get_running_loop().run_in_executor(None, read, offset, size)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
    return future.result()


def descriptor_of(file: Any) -> int | None:
    """Return the descriptor that *file*, a plain one, reads from, else None: what others read is
    not what is in theirs."""
    if type(file) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
        return None
    if isinstance(file, io.BufferedRandom):
        file.flush()
    try:
        return int(file.fileno())
    except OSError:
        return None
