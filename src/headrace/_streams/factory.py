"""The reader and the protocol of a new connection, in the form that its loop is served best by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace._streams.reader import StreamReader
from headrace._streams.reader_protocol import BufferedStreamProtocol, StreamReaderProtocol
from headrace._streams.writer import StreamWriter
from headrace._transport.backend import Choice

# What asyncio's own transports receive at a time; a larger limit gains nothing from more.
MAX_RECEIVE_BYTES = 256 * 1024
# Small enough for any limit, large enough that a tiny limit does not cost a system call for every
# few bytes. Not measured.
MIN_RECEIVE_BYTES = 1024

ClientConnected = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


def receive_bytes(limit: int) -> int:
    """Return how much a connection receives at a time whose reader has the buffer limit *limit*.

    Up to the limit: a reader then holds at most 2 * limit and one receive, and what a read of 64
    KiB finds with the default limit is one object, which it returns without a copy. (On the native
    way a reader that waits while its peer floods gets more.)
    """
    return min(max(limit, MIN_RECEIVE_BYTES), MAX_RECEIVE_BYTES)


def make(
    loop: asyncio.AbstractEventLoop,
    limit: int,
    choice: Choice,
    callback: ClientConnected | None = None,
) -> tuple[StreamReader, StreamReaderProtocol | BufferedStreamProtocol]:
    """Return a reader with the buffer limit *limit* (bytes) and the protocol that feeds it; a
    server's calls *callback*."""
    reader = StreamReader(limit, loop)
    form = BufferedStreamProtocol if choice.form == "buffered" else StreamReaderProtocol
    protocol = form(reader, callback, loop)
    # Nobody else has the transport of a connection that we make ourselves.
    protocol._h_private = True
    protocol._h_receive_bytes = receive_bytes(limit)
    return reader, protocol
