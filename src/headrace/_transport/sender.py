"""Sender: what a writer has written, on its way to a transport of the loop.

Inside a step (see Stepper) writes gather and leave in one piece: at the step's end, at 64 KiB, at a drain() with no unread input or
BATCH_SECONDS after the first drain() with some, and before anything that would show the difference: close, write_eof, start_tls,
any use of the transport. Outside a step every write goes to the transport at once, as in asyncio; and so it does for ever once
somebody has got hold of the transport, since headrace then cannot know in which order he writes to both.

A Sender refers to the transport and never to the writer, so that a dropped writer is noticed.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if cython.compiled:
    from cython.cimports.headrace._core.cprims import seconds
    from cython.cimports.headrace._transport.stepper import Gathering
else:
    from headrace._core.cprims_py import seconds
    from headrace._transport.stepper import Gathering

# Enough for one full send() on most systems, and small beside the 64 KiB high-water mark of a transport. Not measured.
GATHER_BYTES = 65536
# How long a pipelined answer may wait for the answers behind it.
BATCH_SECONDS = 200e-6
# A write counts against the budget of operations by size: sending 4 KiB takes about as long as an operation.
COST_SHIFT = 12


class Sender(Gathering):
    """The outgoing half of one connection over a transport of the loop."""

    def __init__(self, transport: object, stepper: object, exposed: bool) -> None:
        self.transport = transport
        self.stepper = stepper
        self.exposed = exposed
        self.pending = None
        self.more = None
        self.size = 0
        self.written = 0
        self.began = 0.0
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
        self.stepper.left -= size >> COST_SHIFT
        if self.held:
            self._keep(chunk, size)
        elif self.stepper.stepping and not self.exposed:
            if size >= GATHER_BYTES:
                self.flush()
                self._send(chunk)
                return
            if self.size == 0:
                self.stepper.gather(self)
            self._keep(chunk, size)
            if self.size >= GATHER_BYTES:
                self.flush()
        else:
            self._send(chunk)

    def _keep(self, chunk: bytes, size: int) -> None:
        # Most of what is gathered is one piece: no list for that.
        if self.size == 0:
            self.pending = chunk
        elif self.more is None:
            self.more = [self.pending, chunk]
        else:
            self.more.append(chunk)
        self.size += size

    def _send(self, data: bytes) -> None:
        self.unchecked = True
        try:
            self.transport.write(data)
        except RuntimeError:
            # A transport of uvloop's that has closed itself raises; what is written after the end is dropped, as asyncio's drop it.
            if not self.transport.is_closing():
                raise

    def _send_all(self, pieces: list, size: int) -> None:
        self._send(b"".join(pieces))

    def flush(self) -> None:
        """Hand what was gathered to the transport."""
        if self.size == 0 or self.held:
            return
        pending = self.pending
        more = self.more
        size = self.size
        self.drop()
        if more is None:
            self._send(pending)
        else:
            self._send_all(more, size)

    def settle(self, unread: bool) -> None:
        """Do drain()'s part: hand over what was gathered unless more input is *unread*, and then not for long."""
        if self.size == 0:
            return
        if unread and self.stepper.stepping:
            now = seconds()
            if self.began == 0.0:
                self.began = now
            if now - self.began < BATCH_SECONDS:
                return
        self.flush()
        self.stepper.flushed(self)

    def expose(self) -> object:
        """Return the transport to somebody who may do anything with it."""
        self.flush()
        self.exposed = True
        return self.transport

    def rebind(self, transport: object) -> None:
        """Go on with another transport: start_tls, or an assignment to ``writer._transport``."""
        self.flush()
        self.transport = transport
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
        """Send what is left, then EOF."""
        self.flush()
        result = self.transport.write_eof()
        self.ended = True
        return result

    def close(self) -> object:
        """Close after sending what is left; a second close does nothing (asyncio's TLS transport does not survive it)."""
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
        self.began = 0.0


def as_bytes(data: object) -> bytes:
    """Return *data* as bytes that nobody can change any more."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
