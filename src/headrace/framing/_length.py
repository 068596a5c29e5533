"""Codecs whose frames say how long they are, or are all of one length."""

from __future__ import annotations

from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._core.buffer import ReadBuffer
from headrace._core.coroutines import SignatureOf
from headrace.errors import BadFrame, FrameTooLarge
from headrace.framing import _codec as codecs
from headrace.framing._codec import BaseCodec, Codec, Cursor

# Frames of more than this on average are handed on beside their heads, and not copied behind them.
# Not measured.
COPY_BYTES = 16384
# More than any memory has.
MOST_BYTES = 1 << 60


class LengthCodec(BaseCodec):
    """What LengthPrefixed does."""

    def __init__(
        self,
        size: int,
        *,
        byteorder: str = "big",
        limit: int = codecs.LIMIT_BYTES,
        offset: int = 0,
        adjust: int = 0,
        skip: int | None = None,
    ) -> None:
        if size not in (1, 2, 3, 4, 8):
            raise ValueError(f"size is that of the length in bytes: 1, 2, 3, 4 or 8, not {size!r}")
        if byteorder not in ("big", "little"):
            raise ValueError(f"byteorder is 'big' or 'little', not {byteorder!r}")
        if offset < 0:
            raise ValueError(f"offset is a number of bytes before the length, not {offset!r}")
        if skip is not None and skip < 0:
            raise ValueError(f"skip is a number of bytes that no frame has, not {skip!r}")
        self.size = size
        self.is_big: bool = byteorder == "big"
        self.adjust = adjust
        self.head: int = offset + size
        self.offset = offset
        self.skip: int = self.head if skip is None else skip
        self._h_limit: int = codecs.checked_limit(limit, self.head)

    def _h_take(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        size = self._h_measure(buffer)
        if size <= 0:
            return cursor.want(buffer, -size)
        return buffer.take_behind(self.skip, size)

    def _h_measure(self, buffer: ReadBuffer) -> int:
        there = buffer.length()
        if there < self.head:
            return -self.head
        value = buffer.number(self.offset, self.size, self.is_big)
        if value < 0 or value > self._h_limit - self.head - self.adjust:
            # Eight bytes can say more than anybody has.
            known = 0 <= value <= MOST_BYTES
            size = self.head + value + self.adjust if known else None
            raise FrameTooLarge(size, self._h_limit, buffer.taken)
        whole = self.head + value + self.adjust
        if whole < self.head or whole < self.skip:
            raise BadFrame(f"the length {value} is less than that of a frame's head", buffer.taken)
        return whole if there >= whole else -whole

    def _h_extract(self, buffer: ReadBuffer, size: int) -> object:
        return buffer.peek(self.skip, size - self.skip)

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return self.skip, size

    def _h_encode_all(self, frames: Any) -> Any:
        chunks = codecs.all_bytes(frames)
        if self.skip != self.head or self.offset != 0:
            return (b"".join([self._checked(chunk) for chunk in chunks]),)
        total = 0
        for chunk in chunks:
            total += self._whole(len(chunk))
        if total > COPY_BYTES * len(chunks):
            pieces = []
            for chunk in chunks:
                head = cprims.allocate(self.size)
                cprims.put_number(head, 0, len(chunk) - self.adjust, self.size, self.is_big)
                pieces.append(head if cython.compiled else bytes(head))
                pieces.append(chunk)
            return tuple(pieces)
        storage = cprims.allocate(total)
        at = 0
        for chunk in chunks:
            size = len(chunk)
            cprims.put_number(storage, at, size - self.adjust, self.size, self.is_big)
            at += self.size
            cprims.put(storage, at, chunk, 0, size)
            at += size
        return (storage if cython.compiled else bytes(storage),)

    def _whole(self, size: int) -> int:
        """Return how many bytes a payload of *size* bytes takes on the wire. Raises: ValueError
        where it cannot be sent."""
        whole = self.head + size
        if whole > self._h_limit:
            raise FrameTooLarge(whole, self._h_limit, 0)
        value = size - self.adjust
        if value < 0 or (self.size < 8 and value >> (8 * self.size)):
            raise ValueError(
                f"a frame of {size} bytes has the length {value}, which {self.size} bytes cannot "
                "say"
            )
        return whole

    def _checked(self, frame: bytes) -> bytes:
        """Return *frame*, which has its own head. Raises: ValueError where that is not what its
        length says, or the head is not a part of the frames of this codec."""
        if self.skip != 0:
            raise ValueError(
                "frames can be encoded where their head is only a length, or is a part of them "
                f"(skip=0), not with offset={self.offset}, skip={self.skip}"
            )
        size = len(frame)
        if size > self._h_limit:
            raise FrameTooLarge(size, self._h_limit, 0)
        if size >= self.head:
            value = cprims.number_at(frame, self.offset, self.size, self.is_big)
            if self.head + value + self.adjust == size:
                return frame
        raise ValueError(f"a frame of {size} bytes whose head says something else")

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire. Raises: ValueError where it cannot be sent."""
        return b"".join(self._h_encode_all((frame,)))


class LengthPrefixed(LengthCodec, Codec[bytes]):
    """Frames behind their length.

    On the wire a frame has *offset* bytes, the length in *size* bytes, and as many bytes as the
    length says and *adjust* adds: ``offset + size + length + adjust`` in all, which is Netty's
    rule (LengthFieldBasedFrameDecoder). The user gets what is behind the first *skip*; as in
    tokio-util that is all but the head, unless *skip* says otherwise.

    ====================  =================================================
    DNS over TCP          ``LengthPrefixed(2)``
    Kafka                 ``LengthPrefixed(4)``
    PostgreSQL            ``LengthPrefixed(4, offset=1, adjust=-4, skip=0)``
    MySQL                 ``LengthPrefixed(3, byteorder="little", adjust=1, skip=0)``
    ====================  =================================================

    Args:
        size: bytes of the length: 1, 2, 3, 4 or 8; it is unsigned.
        byteorder: "big" or "little".
        limit: the longest frame on the wire, in bytes, its head included. It is looked at before
            memory is taken.
        offset: bytes before the length.
        adjust: what is to be added to the length; negative where it counts the head.
        skip: how many bytes at the start the user does not get; None for the head.

    Writing: where the head is only a length, it is put before each frame; with ``skip=0`` a frame
    has its own head, which is checked.
    Raises: ValueError for what cannot be.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(
        lambda size, *, byteorder="big", limit=1 << 20, offset=0, adjust=0, skip=None: None
    )


class VarintCodec(BaseCodec):
    """What Varint does."""

    def __init__(
        self,
        *,
        limit: int = codecs.LIMIT_BYTES,
        offset: int = 0,
        max_bytes: int = 5,
        canonical: bool = False,
        keep_head: bool = False,
    ) -> None:
        if offset < 0:
            raise ValueError(f"offset is a number of bytes before the length, not {offset!r}")
        if not 1 <= max_bytes <= 8:
            raise ValueError(f"max_bytes is that of the length, from 1 to 8, not {max_bytes!r}")
        self.offset = offset
        self.most = max_bytes
        self.canonical = canonical
        self.keep_head = keep_head
        self._h_limit: int = codecs.checked_limit(limit, offset + 1)

    def _head(self, buffer: ReadBuffer) -> int:
        """Return how many bytes the head of the first frame has, 0 where it is not whole."""
        there = buffer.length()
        count = 0
        while self.offset + count < there:
            byte = buffer.number(self.offset + count, 1, True)
            count += 1
            if byte < 128:
                if self.canonical and byte == 0 and count > 1:
                    raise BadFrame("a length in more bytes than it needs", buffer.taken)
                return self.offset + count
            if count == self.most:
                raise BadFrame(f"a length of more than {self.most} bytes", buffer.taken)
        return 0

    def _h_measure(self, buffer: ReadBuffer) -> int:
        there = buffer.length()
        head = self._head(buffer)
        if head == 0:
            return -(max(there, self.offset) + 1)
        value = 0
        for at in range(head - 1, self.offset - 1, -1):
            value = value << 7 | (buffer.number(at, 1, True) & 127)
        whole = head + value
        if whole > self._h_limit:
            raise FrameTooLarge(whole, self._h_limit, buffer.taken)
        return whole if there >= whole else -whole

    def _h_extract(self, buffer: ReadBuffer, size: int) -> object:
        start = 0 if self.keep_head else self._head(buffer)
        return buffer.peek(start, size - start)

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return (0 if self.keep_head else self._head(buffer)), size

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire. Raises: ValueError where it cannot be sent."""
        chunk = codecs.as_bytes(frame)
        if self.keep_head:
            buffer = ReadBuffer()
            buffer.append(chunk)
            if self._h_measure(buffer) != len(chunk):
                raise ValueError(f"a frame of {len(chunk)} bytes whose head says something else")
            return chunk
        if self.offset != 0:
            raise ValueError(
                "frames can be encoded where their head is only a length, or is a part of them "
                "(keep_head=True)"
            )
        head = bytearray()
        left = len(chunk)
        while left > 127:
            head.append(left & 127 | 128)
            left >>= 7
        head.append(left)
        if len(head) > self.most:
            raise ValueError(f"the length {len(chunk)} takes more than {self.most} bytes")
        if len(head) + len(chunk) > self._h_limit:
            raise FrameTooLarge(len(head) + len(chunk), self._h_limit, 0)
        return bytes(head) + chunk


class Varint(VarintCodec, Codec[bytes]):
    """Frames behind their length in a varint: seven bits a byte, the lowest first, the highest bit
    set in all but the last (LEB128, as in Protocol Buffers).

    MQTT is ``Varint(offset=1, max_bytes=4, canonical=True, keep_head=True)``.

    Args:
        limit: the longest frame on the wire, in bytes, its head included.
        offset: bytes before the length.
        max_bytes: the most that a length may have; 5 are enough for 32 bits.
        canonical: refuse a length in more bytes than it needs.
        keep_head: give the user the head too; a frame that is written has its own then.

    Raises: ValueError for what cannot be.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(
        lambda *, limit=1 << 20, offset=0, max_bytes=5, canonical=False, keep_head=False: None
    )


class NetstringCodec(BaseCodec):
    """What Netstring does."""

    def __init__(self, *, limit: int = codecs.LIMIT_BYTES) -> None:
        self._h_limit: int = codecs.checked_limit(limit, 3)
        self.most: int = min(18, len(str(limit)))  # what a C integer can be

    def _head(self, buffer: ReadBuffer) -> int:
        """Return how many bytes the head has, with its colon; 0 where it is not whole."""
        there = min(buffer.length(), self.most + 1)
        for at in range(there):
            byte = buffer.number(at, 1, True)
            if byte == 58 and at > 0:
                return at + 1
            if not 48 <= byte <= 57 or (at == 1 and buffer.number(0, 1, True) == 48):
                raise BadFrame("a netstring begins with its length and a colon", buffer.taken)
        if there > self.most:
            raise FrameTooLarge(None, self._h_limit, buffer.taken)
        return 0

    def _h_measure(self, buffer: ReadBuffer) -> int:
        there = buffer.length()
        head = self._head(buffer)
        if head == 0:
            return -(there + 1)
        value = 0
        for at in range(head - 1):
            value = 10 * value + buffer.number(at, 1, True) - 48
        whole = head + value + 1
        if whole > self._h_limit:
            raise FrameTooLarge(whole, self._h_limit, buffer.taken)
        if there < whole:
            return -whole
        if buffer.number(whole - 1, 1, True) != 44:
            raise BadFrame("a netstring ends with a comma", buffer.taken)
        return whole

    def _h_extract(self, buffer: ReadBuffer, size: int) -> object:
        start = self._head(buffer)
        return buffer.peek(start, size - start - 1)

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return self._head(buffer), size - 1

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire. Raises: ValueError where it cannot be sent."""
        chunk = codecs.as_bytes(frame)
        encoded = b"%d:%b," % (len(chunk), chunk)
        if len(encoded) > self._h_limit:
            raise FrameTooLarge(len(encoded), self._h_limit, 0)
        return encoded


class Netstring(NetstringCodec, Codec[bytes]):
    """Netstrings (cr.yp.to/proto/netstrings.txt): the length in decimal digits, a colon, the bytes,
    a comma.

    Args: *limit*, the longest frame on the wire, in bytes, with all of that.
    Raises: ValueError where it is less than 3.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(lambda *, limit=1 << 20: None)


class FixedCodec(BaseCodec):
    """What Fixed does."""

    def __init__(self, size: int) -> None:
        self._h_limit: int = codecs.checked_limit(size, 1)

    def _h_measure(self, buffer: ReadBuffer) -> int:
        return self._h_limit if buffer.length() >= self._h_limit else -self._h_limit

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return 0, size

    def encode(self, frame: Any) -> Any:
        """Return *frame*. Raises: ValueError where it is not as long as all others."""
        chunk = codecs.as_bytes(frame)
        if len(chunk) != self._h_limit:
            raise ValueError(f"a frame has {self._h_limit} bytes here, not {len(chunk)}")
        return chunk


class Fixed(FixedCodec, Codec[bytes]):
    """Frames of *size* bytes each.

    Args: *size*, a number of bytes.
    Raises: ValueError where it is less than 1.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(lambda size: None)
