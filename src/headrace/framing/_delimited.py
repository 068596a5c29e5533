"""Codecs whose frames end with a delimiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace._core.buffer import ReadBuffer
from headrace._core.coroutines import SignatureOf
from headrace.errors import BadFrame, FrameTooLarge
from headrace.framing import _codec as codecs
from headrace.framing._codec import BaseCodec, Codec, Cursor

NEWLINE = b"\n"
# As long as a line of asyncio's reader may be.
LINE_BYTES = 65536


class DelimitedCodec(BaseCodec):
    """What Delimited does."""

    def __init__(
        self, *delimiters: bytes, limit: int = LINE_BYTES, strip: bool = True, last: str = "error"
    ) -> None:
        if not delimiters:
            raise TypeError("Delimited() needs at least one delimiter")
        found = {codecs.as_bytes(each) for each in delimiters}
        if b"" in found:
            raise ValueError("a delimiter has at least one byte")
        prepare(self, limit, last)
        self.strip = strip
        self.first: bytes = codecs.as_bytes(delimiters[0])
        self.delimiters: tuple[bytes, ...] = tuple(sorted(found, key=len))
        self.longest: int = max(map(len, found))

    def _find(self, buffer: ReadBuffer, ended: bool) -> tuple[int, int]:
        """Return how many bytes stand before the first delimiter, -1 where there is none yet, and
        how many up to its end. It begins first, and of those that do it is the longest: so it does
        not matter in which pieces the bytes come."""
        if len(self.delimiters) == 1:
            before = buffer.find_one(self.first)
            return before, before + self.longest
        before, after = buffer.find_first(self.delimiters)
        if before < 0:
            return -1, -1
        # Another may begin earlier, or be longer, and end later: near by, or still to come.
        low = max(0, after - self.longest)
        near = buffer.peek(low, min(buffer.length() - low, after - low + self.longest))
        for start in range(low, before + 1):
            best = -1
            for delimiter in self.delimiters:
                piece = near[start - low : start - low + len(delimiter)]
                if piece == delimiter:
                    best = start + len(delimiter)
                elif (
                    not ended
                    and start - low + len(delimiter) > len(near)
                    and delimiter.startswith(piece)
                ):
                    return -1, -1
            if best >= 0:
                return start, best
        return before, after

    def _check(self, buffer: ReadBuffer, before: int) -> None:
        """Raise FrameTooLarge where *before* bytes, or all that are there, are too many."""
        if before > self._h_limit:
            raise FrameTooLarge(before, self._h_limit, buffer.taken)
        if before < 0 and buffer.length() - self.longest + 1 > self._h_limit:
            raise FrameTooLarge(None, self._h_limit, buffer.taken)

    def _h_measure(self, buffer: ReadBuffer) -> int:
        before, after = self._find(buffer, False)
        self._check(buffer, before)
        return after if before >= 0 else -(buffer.length() + 1)

    def _h_extract(self, buffer: ReadBuffer, size: int) -> object:
        start, stop = self._h_span(buffer, size)
        return buffer.peek(start, stop - start)

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return 0, self._find(buffer, True)[0] if self.strip else size

    def _h_finish(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        before, after = self._find(buffer, True)
        if before >= 0:  # a delimiter that might have grown
            frame = self._h_extract(buffer, after)
            buffer.skip(after)
            return frame
        size = buffer.length()
        if size == 0 or not self.yields_last:
            cursor.need = 0  # where a delimiter would have come is not known
            return BaseCodec._h_finish(self, buffer, cursor)
        position = buffer.taken
        return self._last(buffer.take(size), position)

    def _last(self, data: bytes, position: int) -> object:
        """Return the frame that *data* is, which has no end."""
        return data

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire. Raises: ValueError where a delimiter is in it, or
        begins at its end, and where it is too long."""
        chunk = codecs.as_bytes(frame)
        encoded = chunk + self.first if self.strip else chunk
        # What the reader finds there: a delimiter may also begin at the end of the frame, or be
        # the beginning of a longer one, which the next frame could complete.
        buffer = ReadBuffer()
        buffer.append(encoded)
        before, after = self._find(buffer, False)
        if before < 0 or after < len(encoded) or (self.strip and before < len(chunk)):
            raise ValueError(
                "a frame that has a delimiter in it, or makes one with what is next to it"
                if self.strip
                else "a frame that does not end with its only delimiter"
            )
        if before > self._h_limit:
            raise FrameTooLarge(before, self._h_limit, 0)
        return encoded


class Delimited(DelimitedCodec, Codec[bytes]):
    """Frames up to a delimiter. Of several delimiters the one counts that begins first, and of
    those that begin there the longest: one that may still grow is waited for.

    Args:
        delimiters: one or more, bytes-like; a frame that is written ends with the first, which
            therefore must not be the beginning of another.
        limit: the most bytes before a delimiter.
        strip: leave the delimiter out of the frame.
        last: what an unfinished frame at the end of input is: "error", IncompleteFrame, or "yield",
            a frame.

    Raises: TypeError and ValueError for what cannot be.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(
        lambda *delimiters, limit=65536, strip=True, last="error": None
    )


class LineCodec(DelimitedCodec):
    """What Lines does."""

    def __init__(
        self,
        *,
        limit: int = LINE_BYTES,
        keepends: bool = False,
        encoding: str | None = None,
        last: str = "yield",
    ) -> None:
        prepare(self, limit, last)
        self.strip: bool = not keepends
        self.first = NEWLINE
        self.delimiters: tuple[bytes, ...] = (NEWLINE,)
        self.longest = 1
        self.encoding = encoding
        if encoding is not None:
            "".encode(encoding)  # LookupError now, and not at the first line

    def _h_take(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        before = buffer.find_one(NEWLINE)
        self._check(buffer, before)
        if before < 0:
            return cursor.want(buffer, buffer.length() + 1)
        position = buffer.taken
        line = buffer.take(before + 1)
        if self.strip:
            before -= before > 0 and line[before - 1] == 13
            line = line[:before]
        return line if self.encoding is None else self._decoded(line, position)

    def _decoded(self, line: bytes, position: int) -> str:
        """Return *line*, which was just taken, as text. Raises: BadFrame; the next line can be
        read."""
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError as error:
            raise BadFrame(f"a line is no {self.encoding}: {error}", position) from error

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        if self.encoding is not None:
            return BaseCodec._h_span(self, buffer, size)
        if not self.strip:
            return 0, size
        if size > 1 and buffer.number(size - 2, 1, True) == 13:
            return 0, size - 2
        return 0, size - 1

    def _last(self, data: bytes, position: int) -> object:
        return data if self.encoding is None else self._decoded(data, position)

    def encode(self, frame: Any) -> Any:
        """Return what *frame*, bytes, or text where there is an encoding, is on the wire. Raises:
        ValueError where a newline is in it, a carriage return at its end, or it is too long."""
        if self.encoding is not None and isinstance(frame, str):
            frame = frame.encode(self.encoding)
        chunk = codecs.as_bytes(frame)
        if not self.strip and chunk.endswith(NEWLINE):
            chunk = chunk[: len(chunk) - 1]
        if NEWLINE in chunk:
            raise ValueError("a line that has a newline in it")
        if self.strip and chunk.endswith(b"\r"):
            raise ValueError(
                "a line that ends with a carriage return, which its reader would take for a part "
                "of the line's end"
            )
        if len(chunk) > self._h_limit:
            raise FrameTooLarge(len(chunk), self._h_limit, 0)
        return chunk + NEWLINE


class Lines(LineCodec, Codec[Any]):
    """Lines: what ends with ``\\n``, or with ``\\r\\n``.

    Args:
        limit: the most bytes before the newline.
        keepends: leave the end of the line in the frame.
        encoding: give text, not bytes. The newline is a byte: UTF-16 cannot be.
        last: what an unfinished line at the end of input is: "yield", a line, or "error",
            IncompleteFrame.

    Raises: ValueError for what cannot be; LookupError for an encoding that nobody knows.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(
        lambda *, limit=65536, keepends=False, encoding=None, last="yield": None
    )


class JSONCodec(DelimitedCodec):
    """What JSONLines does."""

    def __init__(
        self,
        *,
        loads: Callable[[bytes], Any] | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
        limit: int = codecs.LIMIT_BYTES,
    ) -> None:
        prepare(self, limit, "yield")
        self.strip = True
        self.first = NEWLINE
        self.delimiters: tuple[bytes, ...] = (NEWLINE,)
        self.longest = 1
        if loads is None or dumps is None:
            import json  # not for everybody to import

            def of_utf8(line: bytes) -> Any:
                return json.loads(line.decode())  # of bytes it would take UTF-16 and a BOM, too

            loads = loads or of_utf8
            dumps = dumps or json.dumps
        self.loads = loads
        self.dumps = dumps

    def _h_take(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        while True:
            before = buffer.find_one(NEWLINE)
            self._check(buffer, before)
            if before < 0:
                return cursor.want(buffer, buffer.length() + 1)
            line = buffer.take(before + 1)
            if line.strip():
                return self._parsed(line, buffer.taken - len(line))

    def _parsed(self, line: bytes, position: int) -> object:
        """Return the value of *line*. Raises: BadFrame; the next line can be read."""
        try:
            return self.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"a line is no JSON: {error}", position) from error

    def _h_span(self, buffer: ReadBuffer, size: int) -> tuple[int, int]:
        return BaseCodec._h_span(self, buffer, size)

    def _h_finish(self, buffer: ReadBuffer, cursor: Cursor) -> object:
        size = buffer.length()
        if size == 0:
            return codecs.WANTED
        position = buffer.taken
        line = buffer.take(size)
        return self._parsed(line, position) if line.strip() else codecs.WANTED

    def encode(self, frame: Any) -> Any:
        """Return what *frame* is on the wire. Raises: what dumps() does; ValueError where that
        makes a newline, or too much."""
        text = self.dumps(frame)
        chunk = text.encode() if isinstance(text, str) else codecs.as_bytes(text)
        if NEWLINE in chunk:
            raise ValueError("dumps() made a newline, which ends a frame")
        if len(chunk) > self._h_limit:
            raise FrameTooLarge(len(chunk), self._h_limit, 0)
        return chunk + NEWLINE


class JSONLines(JSONCodec, Codec[Any]):
    """A JSON value in each line (jsonlines.org), of any type: None is one, too. Blank lines are
    passed over.

    Args:
        loads, dumps: what makes a value of bytes, and text or bytes of a value; None for those of
            the module json.
        limit: the most bytes before the newline.

    A line that is no JSON is BadFrame; the next line can be read.
    Raises: ValueError for what cannot be.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(lambda *, loads=None, dumps=None, limit=1 << 20: None)


def drop(codec: DelimitedCodec, buffer: ReadBuffer, ended: bool) -> bool:
    """Drop what is there up to a delimiter, with it; return whether it was found. Where the input
    has *ended*, none can grow."""
    before, after = codec._find(buffer, ended)
    if before >= 0:
        buffer.skip(after)
        return True
    # The last bytes may be the beginning of a delimiter.
    buffer.skip(max(0, buffer.length() - codec.longest + 1))
    return False


def prepare(codec: DelimitedCodec, limit: int, last: str) -> None:
    """Set what all codecs here have. Raises: ValueError."""
    codec._h_limit = codecs.checked_limit(limit, 1)
    if last not in ("yield", "error"):
        raise ValueError(f"last is 'yield' or 'error', not {last!r}")
    codec.yields_last = last == "yield"
