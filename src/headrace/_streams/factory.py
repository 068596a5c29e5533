"""The reader and the protocol of a new connection, in the form that its loop is served best by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace._streams.reader import StreamReader
from headrace._streams.reader_protocol import BufferedStreamProtocol, StreamReaderProtocol
from headrace._streams.writer import StreamWriter
from headrace._transport.backend import Choice
from headrace._transport.receive import receive_bytes

ClientConnected = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


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
