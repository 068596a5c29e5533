"""ReadBuffer: the bytes that have arrived and have not been read.

Invariants. The unread bytes are ``head[pos:end]``. *head* is either somebody's immutable bytes
object, kept as it came (so that a read of the whole of it costs no copy), or, when *owned*, a
storage of our own that nobody else has seen and that is filled up to *end*. An empty buffer holds
no memory. A byte is copied once on its way in (and, amortised, once more while the storage grows)
and once on its way out, and a separator is never looked for twice in the same byte: *scanned* (one
position for each separator) says how far the last search came, and survives appends, takes,
cancelled reads and errors.

``expose()`` is the price of being a drop-in: programs reach for ``reader._buffer`` and change it in
place, so it must be a real bytearray and the only buffer there is. While somebody else holds that
bytearray (*live*), every method works on it and remembers nothing; once nobody does, the buffer
goes back to the fast form by itself.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if cython.compiled:
    from cython.cimports.headrace._core.cprims import (
        allocate,
        find,
        front,
        number_at,
        piece,
        put,
        put_front,
        references,
    )
else:
    from headrace._core.cprims_py import (
        allocate,
        find,
        front,
        number_at,
        piece,
        put,
        put_front,
        references,
    )

# A head of at least this size that is nearly empty is given back when a reader waits: small enough
# that ten thousand waiting connections hold megabytes and not gigabytes, large enough that no copy
# is made for a line. Not measured.
SPARE_BYTES = 4096


class ReadBuffer:
    """Bytes in at the end, bytes out at the front. ``size`` is the count of unread bytes when not
    exposed."""

    def __init__(self) -> None:
        self.head: Any = b""
        self.pos: int = 0
        self.end: int = 0
        self.owned: bool = False
        self.taken: int = 0
        self.live: Any = None
        self.separators: Any = None
        self.scanned: Any = None
        self.scanned_one: int = 0

    # ---- in

    def append(self, data: bytes) -> None:
        """Add *data*, which is kept and not copied when the buffer is empty."""
        if self.live is not None and not self._conceal():
            self.live += data
            return
        size = len(data)
        if self.pos == self.end and not self.owned:
            self.head = data
            self.pos = 0
            self.end = size
            self.scanned_one = 0
            self.scanned = None
            return
        self._make_room(size)
        put(self.head, self.end, data, 0, size)
        self.end += size

    def append_front(self, scratch: bytearray, size: int) -> None:
        """Add a copy of the first *size* bytes of *scratch*, whose owner goes on using it."""
        if self.live is not None and not self._conceal():
            self.live += front(scratch, size)
            return
        if self.pos == self.end and not self.owned:
            self.head = front(scratch, size)
            self.pos = 0
            self.end = size
            self.scanned_one = 0
            self.scanned = None
            return
        self._make_room(size)
        put_front(self.head, self.end, scratch, size)
        self.end += size

    def prepend(self, data: bytes) -> None:
        """Put *data* in front of what is unread."""
        size = len(data)
        self.taken -= size
        if self.live is not None and not self._conceal():
            self.live[:0] = data
            return
        unread = self.end - self.pos
        storage = allocate(size + unread)
        put(storage, 0, data, 0, size)
        put(storage, size, self.head, self.pos, unread)
        self._clear()
        self.head = storage
        self.owned = True
        self.end = size + unread

    def reserve(self, total: int) -> None:
        """Expect *total* unread bytes to be taken at once: collect them in the very object that
        take() will return.

        Memory that is not there is not an error yet (the peer may have lied about the size): the
        storage then grows with what arrives. Uncompiled it always does: an allocation is filled
        there, and the lie would cost the memory.
        """
        if not cython.compiled or (self.live is not None and not self._conceal()):
            return
        try:
            self._move(allocate(total))
        except (MemoryError, OverflowError):  # OverflowError: more than any bytes object can have
            pass

    def room(self) -> int:
        """Return how many bytes can be put behind *end* without moving anything."""
        if self.live is not None or not self.owned:
            return 0
        return len(self.head) - self.end

    def _make_room(self, size: int) -> None:
        """Make head an owned storage with *size* free bytes at its end."""
        unread = self.end - self.pos
        if self.owned and self.end + size <= len(self.head):
            return
        # Twice what is unread, so that a trickle of small pieces costs O(1) a byte; no more than is
        # needed for a large one.
        self._move(allocate(max(unread + size, 2 * unread)))

    def _move(self, storage: bytes) -> None:
        """Move the unread bytes to the front of *storage* and make it the head."""
        unread = self.end - self.pos
        put(storage, 0, self.head, self.pos, unread)
        self._rebase(self.pos)
        self.head = storage
        self.owned = True
        self.pos = 0
        self.end = unread

    # ---- out

    def length(self) -> int:
        """Return how many bytes are unread."""
        if self.live is not None and not self._conceal():
            return len(self.live)
        return self.end - self.pos

    def take(self, size: int) -> bytes:
        """Remove and return the first *size* bytes, of which there are enough."""
        self.taken += size
        if self.live is not None and not self._conceal():
            data = front(self.live, size)
            del self.live[:size]
            return data
        if size == self.end - self.pos:
            head = self.head
            # Whatever may fail for want of memory comes first, and leaves everything as it is.
            if self.pos != 0 or len(head) != size:
                head = piece(head, self.pos, size)
            elif not cython.compiled:
                head = bytes(head)
            self._clear()
            return head
        data = piece(self.head, self.pos, size)
        self.pos += size
        return data

    def peek(self, start: int, size: int) -> bytes:
        """Return a copy of *size* bytes behind the first *start*, of which there are enough."""
        if self.live is not None and not self._conceal():
            return bytes(self.live[start : start + size])
        return piece(self.head, self.pos + start, size)

    def take_behind(self, start: int, size: int) -> bytes:
        """Remove the first *size* bytes, of which there are enough, and return those of them that
        are behind the first *start*."""
        if start == 0 or self.live is not None:
            data = self.take(size)
            return data[start:]
        data = piece(self.head, self.pos + start, size - start)
        self.skip(size)
        return data

    def number(self, start: int, size: int, big: bool) -> int:
        """Return the unsigned number that is written in *size* bytes, at most 8, behind the first
        *start*; one of 8 bytes whose highest bit is set is returned as negative."""
        if self.live is not None and not self._conceal():
            return number_at(bytes(self.live[start : start + size]), 0, size, big)
        return number_at(self.head, self.pos + start, size, big)

    def take_into(self, view: memoryview) -> None:
        """Remove as many bytes as *view* has, of which there are enough, and copy them there."""
        size = len(view)
        if self.live is not None and not self._conceal():
            view[:] = memoryview(self.live)[:size]
        else:
            view[:] = memoryview(self.head)[self.pos : self.pos + size]
        self.skip(size)

    def skip(self, size: int) -> None:
        """Remove the first *size* bytes, of which there are enough."""
        self.taken += size
        if self.live is not None and not self._conceal():
            del self.live[:size]
        elif size == self.end - self.pos:
            self._clear()
        else:
            self.pos += size

    def _clear(self) -> None:
        self.head = b""
        self.pos = 0
        self.end = 0
        self.owned = False
        self.scanned_one = 0
        self.scanned = None

    def spare(self) -> None:
        """Give back memory that only a few bytes pin; called when a reader begins to wait."""
        size = self.end - self.pos
        if size == 0:
            if self.head:
                self._clear()
        elif len(self.head) >= SPARE_BYTES and 4 * size <= len(self.head):
            self.head = piece(self.head, self.pos, size)
            self.owned = False
            self._rebase(self.pos)
            self.pos = 0
            self.end = size

    # ---- search

    def find_one(self, separator: bytes) -> int:
        """Return how many bytes stand before the first *separator*, or -1; O(bytes that came since
        the last search)."""
        if self.live is not None and not self._conceal():
            return self.live.find(separator)
        if self.separators is not separator:
            if self.separators != separator:
                self.scanned_one = 0
            self.separators = separator
        start = max(self.scanned_one, self.pos)
        hit = find(self.head, separator, start, self.end)
        if hit >= 0:
            self.scanned_one = hit
            return hit - self.pos
        # The last bytes may be the beginning of a separator.
        self.scanned_one = max(start, self.end - len(separator) + 1)
        return -1

    def find_first(self, separators: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return (bytes before it, bytes up to its end) of the match that ends first, or (-1, -1).

        *separators* are sorted by length; of several that end at the same place the shortest wins,
        as in asyncio. Each is searched only up to the best end so far, and only in bytes that it
        has not been searched in: a separator that never comes costs one look at each byte.
        """
        if self.live is not None and not self._conceal():
            return find_first_in(self.live, separators)
        if self.separators != separators or self.scanned is None:
            self.separators = separators
            self.scanned = [0] * len(separators)
            self.scanned_one = 0
        best_start = -1
        best_end = -1
        for i in range(len(separators)):
            separator = separators[i]
            until = self.end if best_end < 0 else best_end - 1
            start = max(self.scanned[i], self.pos)
            hit = find(self.head, separator, start, until)
            if hit >= 0:
                best_start = hit
                best_end = hit + len(separator)
                self.scanned[i] = hit
            else:
                self.scanned[i] = max(start, until - len(separator) + 1)
        if best_end < 0:
            return -1, -1
        return best_start - self.pos, best_end - self.pos

    def _rebase(self, shift: int) -> None:
        """Keep the scan positions true when the bytes move *shift* places towards the front."""
        self.scanned_one = max(0, self.scanned_one - shift)
        if self.scanned is not None:
            self.scanned = [max(0, at - shift) for at in self.scanned]

    # ---- the exposed form

    def expose(self) -> bytearray:
        """Return the buffer itself as a bytearray that the caller may change in place."""
        if self.live is None:
            self.live = bytearray(piece(self.head, self.pos, self.end - self.pos))
            self._clear()
        return self.live

    def replace(self, live: bytearray) -> None:
        """Make *live* the buffer; what was unread stays with whoever holds the old one."""
        self._clear()
        self.live = live

    def _conceal(self) -> bool:
        """Leave the exposed form if nobody else holds the bytearray any more; return whether that
        is so."""
        live = self.live
        if _holders(self) > _ALONE:
            return False
        self.live = None
        if live:
            self.head = bytes(live)
            self.end = len(self.head)
        return True


def find_first_in(data: bytearray, separators: tuple) -> tuple:
    """Return what ReadBuffer.find_first() does, of a plain bytearray and without memory."""
    best_start = -1
    best_end = -1
    for separator in separators:
        hit = data.find(separator) if best_end < 0 else data.find(separator, 0, best_end - 1)
        if hit >= 0:
            best_start = hit
            best_end = hit + len(separator)
    return best_start, best_end


def _holders(buffer: ReadBuffer) -> int:
    return references(buffer.live)


# How many references the count shows when the buffer alone holds its bytearray; it differs between
# builds and Pythons.
_probe = ReadBuffer()
_probe.expose()
_ALONE = _holders(_probe) + 1
