"""Standard input and output beside an event loop: each read and write in a thread, as epoll takes
no regular files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import threading
from collections.abc import Callable
from typing import TypeVar

# What is read of standard input and of the connection at a time: asyncio's limit for a reader. Not
# measured.
CHUNK_BYTES = 65536

T = TypeVar("T")


class Failure(Exception):
    """What has gone wrong, in words for the user."""


async def in_thread(call: Callable[[], T]) -> T:
    """Return what *call* returns in a thread of its own, one that the program's end does not wait
    for, as it would for an executor's.

    A cancellation leaves the call alone, and forgets it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            # there is one where there is no error
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = call()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(deliver, result, failed)

    threading.Thread(target=work, daemon=True).start()
    return await future


def read_input() -> bytes:
    """Return what standard input has, at least a byte; b"" at its end. It may have been made
    non-blocking by whoever shares it."""
    while True:
        try:
            return os.read(0, CHUNK_BYTES)
        except BlockingIOError:
            select.select([0], [], [])
        except OSError as error:
            raise Failure(f"standard input cannot be read: {error.strerror}") from None


def write_output(data: bytes) -> None:
    """Write all of *data* to standard output."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])
        except BrokenPipeError:
            raise Failure("nobody reads the standard output any more") from None
        except OSError as error:
            raise Failure(f"standard output cannot be written: {error.strerror}") from None


def to_crlf() -> Callable[[bytes], bytes]:
    """Return what puts a CR before each LF that has none; it remembers how the piece before
    ended."""
    before = b""

    def translate(data: bytes) -> bytes:
        nonlocal before
        translated = re.sub(rb"(?<!\r)\n", b"\r\n", before + data)[len(before) :]
        before = b"\r" if data.endswith(b"\r") else b""
        return translated

    return translate
