"""The reader and the protocol of a new connection, in the form that its loop is served best by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headrace._streams.reader import StreamReader
from headrace._streams.reader_protocol import BufferedStreamProtocol, StreamReaderProtocol
from headrace._streams.writer import StreamWriter
from headrace._transport.base import Backend

ClientConnected = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


def make(
    backend: Backend, callback: ClientConnected | None = None
) -> tuple[StreamReader, StreamReaderProtocol | BufferedStreamProtocol]:
    """Return a reader for a new connection of *backend* and the protocol that feeds it; a server's
    calls *callback*."""
    loop = backend.loop
    reader = StreamReader(backend.limit, loop)
    form = BufferedStreamProtocol if backend.choice.form == "buffered" else StreamReaderProtocol
    protocol = form(reader, callback, loop)
    # Nobody else has the transport of a connection that we make ourselves.
    protocol._h_private = True
    protocol._h_receive_bytes = backend.receive_bytes
    return reader, protocol
