"""What relay() and send_file() do past the reader and the writer of a Stream, and its counting."""

from __future__ import annotations

from typing import Any

from headrace._duplex import writes
from headrace._duplex.foreign import ForeignWrites
from headrace._duplex.stream import Duplex
from headrace._duplex.writes import Outgoing, Writes
from headrace._transport import backend
from headrace._transport import timing as timings


def plain_transport(stream: Duplex) -> Any:
    """Return the transport of *stream* where its socket may be used past it: one of ours, in plain
    text. Else None."""
    if stream._h_is_foreign or not isinstance(stream._h_out, Writes):
        return None
    transport = transport_of(stream._h_out)
    if backend.native is None or not backend.native.is_ours(transport):
        return None
    return None if transport.get_extra_info("sslcontext") is not None else transport


def transport_of(queue: Writes) -> Any:
    """Return what *queue*, which comes out of something of another type, sends to."""
    return queue.writer._h_sender.transport


def hold(stream: Duplex) -> Any:
    """Return what waits until all is sent that was written to *stream*, as flush() does. Nobody
    else's write() goes on then before release()."""
    return stream._h_out.start(writes.HOLD, (), timings.NEVER)


def release(stream: Duplex) -> None:
    """Let others write to *stream* again."""
    release_queue(stream._h_out)


def release_queue(queue: Writes) -> None:
    """Call release() of *queue*, which comes out of something of another type."""
    queue.release()


def lock_of(stream: Duplex) -> Any:
    """Return the lock that those hold who write to *stream*, where its writer is not ours. Else
    None: hold() is for the others."""
    out = stream._h_out
    return None if isinstance(out, Writes) else foreign_lock(out)


def foreign_lock(queue: ForeignWrites) -> Any:
    """Return the lock of *queue*, which comes out of something of another type."""
    return queue.lock


def unsent(stream: Duplex) -> int:
    """Return how many bytes that were written to *stream* the system has not taken."""
    return stream._h_out.unsent()


def passed_in(stream: Duplex, size: int) -> None:
    """Count *size* bytes that were received past the reader as read."""
    stream._h_reader._h_bytes.taken += size


def passed_out(stream: Duplex, size: int) -> None:
    """Count *size* bytes that were sent past the writer as written."""
    pass_on(stream._h_out, size)


def pass_on(queue: Writes, size: int) -> None:
    """Call pass_on() of *queue*, which comes out of something of another type."""
    queue.pass_on(size)


def progress(stream: Duplex) -> int:
    """Return a number that changes with each byte that is read, or taken by the system."""
    out: Outgoing = stream._h_out
    return stream._h_reader._h_bytes.taken + out.sent() - out.unsent()
