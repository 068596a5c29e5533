"""Codec: what cuts a stream of bytes into frames; Decoder: one without a stream.

What is compiled calls take() and encode_all() of a BaseCodec; ``Codec`` is for codecs in Python,
and calls their decode() and encode().
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

from headrace._core.buffer import ReadBuffer
from headrace.errors import EndOfStream, FrameTooLarge, IncompleteFrame

# The longest frame, in bytes, where the user does not say; tokio-util allows eight times as much.
LIMIT_BYTES = 1 << 20

T = TypeVar("T")

# What take() returns where no frame is whole.
WANTED = object()


class Need:
    """What ``decode()`` of a Codec returns where no frame is whole: *size* bytes from the start of
    the frame on are needed before another look is worth while. ``decode()`` is not called before
    they are there."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size: int = size

    def __repr__(self) -> str:
        return f"Need({self.size})"


class Cursor:
    """A codec, and how many bytes its next frame needs: what a Framed or a Decoder keeps."""

    def __init__(self, codec: Any) -> None:
        if not isinstance(codec, Codec):
            raise TypeError(
                f"a codec is one of headrace.framing, or a subclass of its Codec, not "
                f"{type(codec).__name__!r}"
            )
        self.codec: Any = codec
        self.is_python: bool = type(codec).decode is not Codec.decode
        # A subclass of one of ours may have either.
        self.encodes_itself: bool = not is_ours(type(codec).encode)
        self.need: int = 0
        self.position: int = 0
        self.error: Any = None
        self.error_at: int = 0
        if limit_of(codec) == 0:
            raise RuntimeError(
                f"{type(codec).__name__}.__init__() does not call super().__init__(), which sets "
                "the limit"
            )

    def want(self, buffer: ReadBuffer, need: int) -> object:
        """Note that *need* bytes of *buffer* are needed; return WANTED."""
        self.need = need
        self.position = buffer.taken
        return WANTED

    def leave(self, buffer: ReadBuffer, error: Exception) -> None:
        """Note *error*, which was found in *buffer* behind good frames, for the next call."""
        self.error = error
        # Some errors take their frame out of the buffer, so this is where the next call begins.
        self.error_at = buffer.taken

    def is_short(self, buffer: ReadBuffer) -> bool:
        """Tell whether *buffer* has not yet what was needed."""
        return self.position == buffer.taken and buffer.length() < self.need


class BaseCodec:
    """What is called of a codec. It has no state. *limit* is the longest frame, in bytes."""

    if not cython.compiled:
        _h_limit = 0  # as a field of C is

    def _h_take(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        """Take the first frame out of *buffer* and return it, or return WANTED."""
        size = self._h_measure(buffer)
        if size <= 0:
            return cursor.want(buffer, -size)
        frame = self._h_extract(buffer, size)
        buffer.skip(size)
        return frame

    def _h_is_ready(self, buffer: ReadBuffer, cursor: Cursor) -> bool:
        """Tell whether take() is worth while: a frame is whole, or it can only fail."""
        if cursor.is_short(buffer):
            return False
        try:
            size = self._h_measure(buffer)
        except Exception:
            return True
        if size > 0:
            return True
        cursor.want(buffer, -size)
        return False

    def _h_measure(self, buffer: ReadBuffer) -> int:
        """Return the size of the first frame on the wire, which is whole in *buffer*; or minus the
        number of bytes that are needed. Raises: FrameTooLarge and BadFrame."""
        raise NotImplementedError

    def _h_extract(self, buffer: ReadBuffer, size: int) -> object:
        """Return the first frame of *buffer*, which has *size* bytes on the wire."""
        return buffer.peek(0, size)

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        """Return where the payload of the first frame begins, and ends, in its *size* bytes.
        Raises: ValueError where frames are no bytes."""
        raise ValueError(
            f"frames of {type(self).__name__} are no bytes: there are no views of them"
        )

    def _h_finish(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        """The input has ended: return a last frame, taken, or WANTED where there is nothing left.

        Raises: IncompleteFrame, whose ``partial`` has what was left, as far as the limit; the
        buffer is empty then.
        """
        size = buffer.length()
        if size == 0:
            return WANTED
        need = cursor.need if cursor.position == buffer.taken and cursor.need > size else None
        position = buffer.taken
        partial = buffer.peek(0, min(size, self._h_limit))
        buffer.skip(size)
        raise IncompleteFrame(partial, need, position)

    def _h_encode_all(self, frames: Any) -> Any:
        """Return the pieces that *frames* are on the wire."""
        return (b"".join([self.encode(frame) for frame in frames]),)

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire, in bytes."""
        raise NotImplementedError

    @property
    def limit(self) -> int:
        """The longest frame, in bytes."""
        return self._h_limit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} limit={self._h_limit}>"


class Codec(BaseCodec, Generic[T]):
    """What cuts bytes into frames, and frames into bytes. For one's own, subclass it, and write
    ``decode()`` and ``encode()``.

    ::

        class Pairs(headrace.framing.Codec[bytes]):
            def decode(self, view):
                if len(view) < 2:
                    return headrace.framing.Need(2)
                return bytes(view[:2]), 2

            def encode(self, frame):
                return frame

    Args:
        limit: the longest frame, in bytes: what decode() needs more for is FrameTooLarge.
    """

    __slots__ = ()

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        set_limit(self, limit)

    def decode(self, view: memoryview) -> tuple[T, int] | Need:
        """Return the first frame of *view* and how many bytes it takes of it, or how many bytes are
        needed. One's own is called in the task that reads, and never for less than it needed
        before.

        Raises: what is wrong with the bytes (FrameTooLarge, BadFrame): the reader gets it.
        """
        cursor = Cursor(self)
        buffer = ReadBuffer()
        buffer.append(bytes(view))
        return decoded(cursor, buffer)

    def decode_end(self, view: memoryview) -> T:
        """The input has ended with *view*, which is no whole frame: return a last frame, or raise.
        As it is, it raises EndOfStream, and the reader gets IncompleteFrame."""
        raise EndOfStream("frame")

    def encode(self, frame: T) -> Any:
        """Return what *frame* is on the wire: bytes-like, or several such.

        Raises: what is wrong with *frame*: nothing is sent then.
        """
        raise NotImplementedError


class Decoder(Generic[T]):
    """A codec without a stream: bytes go in, frames come out.

    ::

        decoder = Decoder(Lines())
        decoder.feed(b"one\\ntwo")
        list(decoder)  # [b"one"]

    Args: *codec*, any of this module, or one's own.
    Raises: TypeError where it is none.
    """

    __slots__ = ("_buffer", "_cursor", "_ended")

    def __init__(self, codec: Codec[T]) -> None:
        self._cursor = Cursor(codec)
        self._buffer = ReadBuffer()
        self._ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add *data*, bytes-like. Raises: TypeError where it is not; RuntimeError after
        feed_eof()."""
        if self._ended:
            raise RuntimeError("feed() after feed_eof()")
        chunk = as_bytes(data)
        if chunk:
            self._buffer.append(chunk)

    def feed_eof(self) -> None:
        """Nothing more comes: the iteration goes on with an unfinished last frame, or raises
        IncompleteFrame."""
        self._ended = True

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        frame: Any = take(self._cursor, self._buffer)
        if frame is WANTED and self._ended:
            frame = finish(self._cursor, self._buffer)
        if frame is WANTED:
            raise StopIteration
        return frame

    @property
    def buffered(self) -> int:
        """How many bytes were fed that no frame has taken."""
        return self._buffer.length()


def is_ours(method: Any) -> bool:
    """Tell whether *method* of a codec is one of this package."""
    return getattr(method, "__module__", "").startswith("headrace.framing")


def as_bytes(data: Any) -> bytes:
    """Return *data*, bytes-like, as bytes. Raises: TypeError where it is not."""
    if type(data) is bytes:
        return data
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}")


def all_bytes(frames: Any) -> Any:
    """Return *frames*, a tuple of bytes-like objects, as one of bytes. Raises: TypeError where one
    is not."""
    for frame in frames:
        if type(frame) is not bytes:
            return tuple([as_bytes(each) for each in frames])
    return frames  # no tuple of our own: most frames are bytes


def checked_limit(limit: int, least: int) -> int:
    """Return *limit*, in bytes. Raises: ValueError where it is less than *least*."""
    if limit < least:
        raise ValueError(f"limit is a number of bytes, at least {least} here, not {limit}")
    return limit


def set_limit(codec: BaseCodec, limit: int) -> None:
    """Have *codec* take frames of up to *limit* bytes."""
    codec._h_limit = checked_limit(limit, 1)


# ---- what a Framed and a Decoder call: a codec in Python is called here, and nowhere else


def take(cursor: Cursor, buffer: ReadBuffer) -> object:
    """Take the first frame out of *buffer* and return it, or return WANTED."""
    if cursor.is_python:
        return take_by_python(cursor.codec, cursor, buffer)
    return cursor.codec._h_take(buffer, cursor)


def decoded(cursor: Cursor, buffer: ReadBuffer) -> object:
    """Return what decode() of one of our codecs does of *buffer*."""
    frame = cursor.codec._h_take(buffer, cursor)
    if frame is WANTED:
        return Need(cursor.need)
    return frame, buffer.taken


def take_by_python(codec: Any, cursor: Cursor, buffer: ReadBuffer) -> object:
    """The same with *codec*, one in Python."""
    size = buffer.length()
    if size == 0:
        return cursor.want(buffer, 1)
    if cursor.is_short(buffer):
        return WANTED
    decoded = codec.decode(view_of(buffer))
    if isinstance(decoded, Need):
        if decoded.size <= size:
            raise RuntimeError(f"{decoded!r} of decode(), which was given {size} bytes")
        limit = limit_of(codec)
        if decoded.size > limit:
            raise FrameTooLarge(decoded.size, limit, buffer.taken)
        return cursor.want(buffer, decoded.size)
    frame, taken = decoded
    if not 0 < taken <= size:
        raise RuntimeError(f"decode() took {taken} of {size} bytes")
    buffer.skip(taken)
    return frame


def view_of(buffer: ReadBuffer) -> memoryview:
    """Return what is unread in *buffer*, as a view and not a copy: else a codec that takes a few
    bytes at a time would cost the square of what is there. The buffer never changes those bytes
    in place, but for those that somebody else holds (*live*)."""
    if buffer.live is not None:
        return memoryview(buffer.peek(0, buffer.length()))
    return memoryview(buffer.head).toreadonly()[buffer.pos : buffer.end]


def is_ready(cursor: Cursor, buffer: ReadBuffer) -> bool:
    """Tell whether take() is worth while. No Python of a user's runs here."""
    if cursor.is_python:
        return not cursor.is_short(buffer)
    return cursor.codec._h_is_ready(buffer, cursor)


def measure(cursor: Cursor, buffer: ReadBuffer) -> int:
    """Call measure(), for what is known of a frame without making it. Raises: ValueError where the
    codec is one in Python; FrameTooLarge and BadFrame."""
    if cursor.is_python:
        raise ValueError("only decode() knows the frames of a codec in Python")
    return cursor.codec._h_measure(buffer)


def finish(cursor: Cursor, buffer: ReadBuffer) -> object:
    """The input has ended: return a last frame, taken, or WANTED where nothing is left. Raises:
    IncompleteFrame."""
    codec = cursor.codec
    size = buffer.length()
    if size > 0 and cursor.is_python:
        try:
            frame = decode_end(codec, view_of(buffer))
        except EndOfStream:
            pass
        else:
            buffer.skip(size)
            return frame
    return codec._h_finish(buffer, cursor)


def decode_end(codec: Any, view: memoryview) -> object:
    """Call decode_end() of *codec*, one in Python."""
    return codec.decode_end(view)


def limit_of(codec: BaseCodec) -> int:
    """Return the longest frame of *codec*, in bytes; 0 where its constructor did not run."""
    return codec._h_limit


def encode_all(cursor: Cursor, frames: Any) -> Any:
    """Return the pieces that *frames* are on the wire. Raises: ValueError and TypeError where one
    cannot be encoded."""
    codec = cursor.codec
    if not cursor.encodes_itself:
        return codec._h_encode_all(frames)
    pieces: list[bytes] = []
    for frame in frames:
        pieces += pieces_of(codec, frame)
    return tuple(pieces)


def pieces_of(codec: Any, frame: Any) -> list[bytes]:
    """Return what *codec*, one in Python, makes of *frame*."""
    encoded = codec.encode(frame)
    if isinstance(encoded, (bytes, bytearray, memoryview)):
        return [as_bytes(encoded)]
    if not isinstance(encoded, Iterable):
        raise TypeError(f"encode() returned {type(encoded).__name__!r}, which is no bytes")
    return [as_bytes(piece) for piece in encoded]
