"""Sender: what a writer has written, on its way to a transport of the loop.

Every write goes to the transport before write() returns, as in asyncio: what the system took
survives a loop that blocks and a process that exits, and keeps its place before whatever else is
written to the descriptor.

Over TLS a write is a record, and a record costs more than the bytes in it. So there, inside a step
(see Scheduler), plain text gathers and is encrypted in one piece: at drain(), at 64 KiB, at the
step's end, and before anything that would show the difference (close, write_eof, start_tls, any use
of the transport). Nothing else that is written to the descriptor of a TLS connection could keep its
place, so nobody can tell. Once somebody has the transport nothing gathers any more, since headrace
cannot know in which order they write to both.

A Sender refers to the transport and never to the writer, so that a dropped writer is noticed.
"""

from __future__ import annotations

from typing import Any

from headrace._transport.scheduler import Flushable

# Four of TLS's largest records, and no more than the 64 KiB high-water mark of a transport. Not
# measured.
GATHER_BYTES = 65536
# Several pieces of less than this together are joined: a system call for many costs more than the
# copy. Not measured.
JOIN_BYTES = 16384
# A write counts against the budget of operations by size: sending 4 KiB takes about as long as an
# operation.
COST_SHIFT = 12


class Sender(Flushable):
    """The outgoing half of one connection over a transport of the loop."""

    def __init__(self, transport: object, scheduler: object, exposed: bool) -> None:
        self.transport = transport
        self.scheduler = scheduler
        self.exposed = exposed
        self.gathers = not exposed and is_secure(transport)
        self.input = None
        self.pending = None
        self.more = None
        self.size = 0
        self.written = 0
        self.held = False
        self.ended = False
        self.closing = False
        self.unchecked = False

    def write(self, data: object) -> None:
        """Send *data* or keep it to be sent; a mutable buffer is copied, whatever its item size."""
        chunk = data if type(data) is bytes else as_bytes(data)
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        size = len(chunk)
        if size == 0 or self.closing:
            return
        self.written += size
        self.scheduler.left -= size >> COST_SHIFT
        if self.held:
            self._keep(chunk, size)
        elif self.gathers and self.scheduler.stepping:
            if size >= GATHER_BYTES:
                self.flush()
                self._send(chunk, False)
                return
            if self.size == 0:
                self.scheduler.gather(self)
            self._keep(chunk, size)
            if self.size >= GATHER_BYTES:
                self.flush()
        else:
            self._send(chunk, self.is_followed())

    def write_pieces(self, pieces: Any) -> None:
        """Send all of *pieces*, bytes-like objects, as one write(): nothing gets between them.
        Nothing is sent where one of them is not bytes-like."""
        chunks = [as_bytes(each) for each in pieces]
        size = 0
        for chunk in chunks:
            size += len(chunk)
        if size < JOIN_BYTES or self.held or (self.gathers and self.scheduler.stepping):
            self.write(b"".join(chunks))
            return
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.closing:
            return
        self.written += size
        self.scheduler.left -= size >> COST_SHIFT
        self.flush()
        self._send_pieces([chunk for chunk in chunks if chunk])

    def _send_pieces(self, pieces: list[bytes]) -> None:
        """Send *pieces*, many bytes, as one. (The writelines() of some Pythons' transports does not
        pause the protocol.)"""
        self._send(b"".join(pieces), False)

    def _keep(self, chunk: bytes, size: int) -> None:
        # Most of what is gathered is one piece: no list for that.
        if self.size == 0:
            self.pending = chunk
        elif self.more is None:
            self.more = [self.pending, chunk]
        else:
            self.more.append(chunk)
        self.size += size

    def is_followed(self) -> bool:
        """Tell whether the system may hold what is sent next, for something behind it; a loop's
        transport cannot say so."""
        return False

    def _send(self, data: bytes, followed: bool) -> None:
        self.unchecked = True
        try:
            self.transport.write(data)
        except RuntimeError:
            # A transport of uvloop's that has closed itself raises; what is written after the end
            # is dropped, as asyncio's drop it.
            if not self.transport.is_closing():
                raise

    def flush(self) -> None:
        """Hand what was gathered to the transport; nothing is behind it."""
        self._hand_over(False)

    def _hand_over(self, followed: bool) -> None:
        if self.size == 0 or self.held:
            return
        pending = self.pending
        more = self.more
        self.drop()
        self._send(pending if more is None else b"".join(more), followed)

    def settle(self) -> None:
        """Do drain()'s part: hand over what was gathered."""
        if self.size > 0:
            self._hand_over(self.is_followed())

    def has_ended(self) -> bool:
        """Tell whether the connection is closed or being closed, for drain(): a transport is asked
        only where that can be new."""
        if self.unchecked or self.exposed:
            self.unchecked = False
            return self.is_closing()
        return self.closing

    def expose(self) -> object:
        """Return the transport to somebody who may do anything with it."""
        self.flush()
        self.exposed = True
        self.gathers = False
        return self.transport

    def rebind(self, transport: object, exposed: bool) -> None:
        """Go on with another transport: start_tls, or an assignment to ``writer._transport``, whose
        maker has it (*exposed*)."""
        self.flush()
        self.transport = transport
        self.exposed = exposed
        self.gathers = not exposed and is_secure(transport)
        self.closing = False
        self.ended = False

    def hold(self) -> None:
        """Keep what is written until release(): a handshake is going on."""
        self.flush()
        self.held = True

    def release(self) -> None:
        """Send what was held."""
        self.held = False
        self.flush()

    def write_eof(self) -> object:
        """Send what is left, then EOF; on a connection that is closing it changes nothing: what is
        written is dropped, before as after."""
        self.flush()
        closing = self.is_closing()
        if closing and self.transport.can_write_eof():
            return None  # as asyncio's do it; uvloop's raises where it has closed already
        result = self.transport.write_eof()
        if not closing:
            self.ended = True
        return result

    def close(self) -> object:
        """Close after sending what is left; a second close does nothing (asyncio's TLS transport
        does not survive it)."""
        self.flush()
        self.lost()
        return None if self.transport.is_closing() else self.transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or being closed, by whomever."""
        return self.closing or self.transport.is_closing()

    def lost(self) -> None:
        """The connection is gone: what is written from now on is dropped."""
        self.closing = True
        self.held = False
        self.drop()

    def drop(self) -> None:
        """Forget what was not sent."""
        self.pending = None
        self.more = None
        self.size = 0


def counts_of(sender: Sender) -> tuple[int, int]:
    """Return how many bytes have come on the connection of *sender*, read or not, and how many were
    written."""
    incoming = sender.input
    received = 0 if incoming is None else incoming.taken + incoming.length()
    return received, sender.written


def pass_on(sender: Sender, size: int) -> None:
    """Count *size* bytes that went past *sender*, by sendfile or splice, as written."""
    sender.written += size


def is_secure(transport: object) -> bool:
    """Tell whether what is written to *transport* is encrypted there."""
    return transport.get_extra_info("sslcontext") is not None


def as_bytes(data: object) -> bytes:
    """Return *data* as bytes that nobody can change any more."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
