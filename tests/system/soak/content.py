"""What connections carry: bytes that say where they belong, so that one lost, invented, repeated or
moved is noticed at its place.

All streams are cut from one ring of pseudo-random bytes, each from a start of its own. The ring's
length is a prime: a loss of any number of whole buffers does not come round to the same bytes.
"""

from __future__ import annotations

import hashlib
import random

RING_BYTES = 1_048_573
# No more than this can be asked for at once.
MOST_BYTES = 3 * RING_BYTES

_ring = random.Random("headrace").randbytes(RING_BYTES)
_rings = _ring * 4


class Content:
    """The bytes of one direction of one connection, named by *names*, at every offset."""

    def __init__(self, *names: object) -> None:
        digest = hashlib.blake2b(":".join(map(str, names)).encode(), digest_size=8).digest()
        self.start = int.from_bytes(digest, "big") % RING_BYTES

    def piece(self, offset: int, size: int) -> bytes:
        """Return the *size* bytes at *offset*."""
        start = (self.start + offset) % RING_BYTES
        return _rings[start : start + size]

    def end_of(self, offset: int, separators: tuple[bytes, ...]) -> int:
        """Return how many bytes from *offset* on there are up to the end of the separator that ends
        first."""
        start = (self.start + offset) % RING_BYTES
        return min(_rings.find(each, start) + len(each) for each in separators) - start

    def complaint(self, offset: int, data: bytes) -> str:
        """Return "" if *data* belongs at *offset*, else what is wrong, in words."""
        for begin in range(0, len(data), MOST_BYTES):
            part = data[begin : begin + MOST_BYTES]
            wanted = self.piece(offset + begin, len(part))
            if part != wanted:
                first = next(index for index in range(len(part)) if part[index] != wanted[index])
                return self._describe(offset + begin + first, part[first:])
        return ""

    def _describe(self, at: int, found: bytes) -> str:
        sample = found[:24]
        place = _rings.find(sample, (self.start + at) % RING_BYTES) if len(sample) >= 8 else -1
        words = f"wrong from byte {at} on ({len(found)} bytes were left): {sample.hex(' ')}"
        if place < 0:
            return f"{words}, which is nowhere in the stream"
        moved = (place - self.start - at) % RING_BYTES
        return f"{words}, which belongs {moved} bytes further on, or {RING_BYTES - moved} back"
