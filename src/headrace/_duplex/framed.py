"""Framed: a Stream that reads and writes frames. It keeps no bytes of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from headrace._core.buffer import ReadBuffer
from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._duplex import stream as streams
from headrace._duplex import writes
from headrace._duplex.stream import Duplex
from headrace._streams.read_half import Read, ReadHalf
from headrace._transport import receive
from headrace._transport import timing as timings
from headrace._transport.operation import Operation
from headrace.errors import EndOfStream, FrameTooLarge
from headrace.framing import _codec as codecs
from headrace.framing import _delimited as delimited
from headrace.framing._codec import Cursor
from headrace.framing._delimited import DelimitedCodec

T = TypeVar("T")


class ReadFrame(Read):
    """read(): one frame, by *argument*, a Cursor."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        cursor = operation.argument
        raise_left(cursor, reader._h_bytes)
        frame = codecs.take(cursor, reader._h_bytes)
        if frame is codecs.WANTED and reader._eof:
            frame = codecs.finish(cursor, reader._h_bytes)
            if frame is codecs.WANTED:
                return self.end()
        if frame is codecs.WANTED:
            operation.amount = need_of(cursor)
            return reader._h_pending()
        reader._h_maybe_resume()
        return frame

    def end(self) -> object:
        """There are no more frames."""
        raise EndOfStream("frame")

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return codecs.is_ready(operation.argument, reader._h_bytes)

    def is_large(self, operation: Operation) -> bool:
        return operation.amount >= receive.RESERVE_BYTES


class NextFrame(ReadFrame):
    """``async for``: the same, but the end of input ends the iteration."""

    def end(self) -> object:
        raise StopAsyncIteration


class Many:
    """What read_many() asks for."""

    def __init__(self, cursor: Cursor, most: int, views: bool) -> None:
        self.cursor = cursor
        self.most = most
        self.views = views


class ReadMany(Read):
    """read_many(): every whole frame that is there; *argument* is a Many."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        many = operation.argument
        raise_left(cursor_of(many), reader._h_bytes)
        frames = views_of(many, reader) if wants_views(many) else frames_of(many, reader)
        if frames or reader._eof:
            reader._h_maybe_resume()
            return frames
        operation.amount = need_of(cursor_of(many))
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return codecs.is_ready(cursor_of(operation.argument), reader._h_bytes)

    def is_large(self, operation: Operation) -> bool:
        return operation.amount >= receive.RESERVE_BYTES


READ_FRAME = ReadFrame("Framed.read")
NEXT_FRAME = NextFrame("Framed.__anext__")
READ_MANY = ReadMany("Framed.read_many")


def frames_of(many: Many, reader: ReadHalf) -> list[Any]:
    """Take the frames that are there. Raises: what is wrong with the first; where others are good,
    they are returned, and it is raised the next time."""
    frames: list[Any] = []
    buffer = reader._h_bytes
    while len(frames) < many.most:
        try:
            frame = codecs.take(many.cursor, buffer)
            if frame is codecs.WANTED and reader._eof:
                frame = codecs.finish(many.cursor, buffer)
        except Exception as error:
            if not frames:
                raise
            many.cursor.leave(buffer, error)
            break
        if frame is codecs.WANTED:
            break
        frames.append(frame)
    return frames


def views_of(many: Many, reader: ReadHalf) -> list[memoryview]:
    """The same, as views into one object."""
    cursor = many.cursor
    codec = cursor.codec
    buffer = reader._h_bytes
    size = codecs.measure(cursor, buffer)
    if size <= 0:
        codec._h_span(buffer, 0)  # raises where there are no views, before anything is taken
        if not reader._eof:
            cursor.want(buffer, -size)
            return []
        frame = codecs.finish(cursor, buffer)
        return [] if frame is codecs.WANTED else [memoryview(frame)]
    data = memoryview(buffer.peek(0, buffer.length()))
    views: list[memoryview] = []
    at = 0
    while size > 0 and len(views) < many.most:
        start, stop = codec._h_span(buffer, size)
        views.append(data[at + start : at + stop])
        at += size
        buffer.skip(size)
        try:
            size = codecs.measure(cursor, buffer)
        except Exception as error:
            cursor.leave(buffer, error)
            break
    return views


# What stands in an untyped field is typed by a call.


def raise_left(cursor: Cursor, buffer: ReadBuffer) -> None:
    """Raise what was found behind the good frames of the last read_many(), where nothing of
    *buffer* was taken since."""
    error = cursor.error
    if error is not None:
        cursor.error = None
        if cursor.error_at == buffer.taken:
            raise error


def need_of(cursor: Cursor) -> int:
    """Return how many bytes the next frame of *cursor* needs."""
    return cursor.need


def cursor_of(many: Many) -> Cursor:
    """Return the cursor of *many*."""
    return many.cursor


def wants_views(many: Many) -> bool:
    """Tell whether *many* is to be views."""
    return many.views


class FramedStream:
    """The methods of a Framed. A compiled class cannot be published: Framed stands in front."""

    def __init__(self, stream: Any, codec: Any) -> None:
        self._stream = stream
        self._cursor = Cursor(codec)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._cursor.codec!r} over {self._stream!r}>"

    @property
    def stream(self) -> Any:
        """The stream: it may be read as bytes, or with another codec, between two frames."""
        return self._stream

    @property
    def codec(self) -> Any:
        """The codec."""
        return self._cursor.codec

    def read(self, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Return the next frame.

        Args: *timeout*, how many seconds this call may take.
        Raises: EndOfStream at the end; IncompleteFrame where that is within a frame: ``partial``
        has what was left, and the buffer is empty; FrameTooLarge: nothing is taken, and discard()
        gets past it; what the codec raises of bytes that are no frame; ReadTimeout and
        DeadlineExceeded; what broke the connection.
        Cancellation: safe: nothing is taken. So is a timeout.
        """
        return self._stream._h_start(READ_FRAME, 0, self._cursor, timeout)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._stream._h_start(NEXT_FRAME, 0, self._cursor, None)

    def read_many(
        self, most: int = 100, *, views: bool = False, timeout: float | None = None
    ) -> Coroutine[Any, Any, list[Any]]:
        """Return every whole frame that is there, as soon as there is one; one wait for all.

        Args: *most*, how many at most; *views*, memoryviews into one object and not bytes, where
        the frames of the codec are bytes; *timeout*, how many seconds this call may take.
        Returns: a list, empty only at the end.
        Raises: as for read(), where the first frame is wrong, but EndOfStream; where others are
        good, they are returned, and the error comes with the next call. ValueError where *most* is
        less than 1, or there can be no views.
        Cancellation: safe: nothing is taken. So is a timeout.
        """
        if most < 1:
            raise ValueError(f"read_many() reads 1 frame or more, not {most}")
        return self._stream._h_start(READ_MANY, 0, Many(self._cursor, most, views), timeout)

    def write(self, *frames: Any, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait until there is room, then send all of *frames* together: see Stream.write().

        Args: *frames*, what the codec encodes; *timeout*, how many seconds this call may wait for
        room.
        Raises: ValueError and TypeError where one of them cannot be encoded; what Stream.write()
        does. Nothing was accepted then.
        Cancellation: safe: nothing was accepted.
        """
        pieces = codecs.encode_all(self._cursor, frames)
        stream = self._stream
        if timeout is None:
            return stream._h_out.start(writes.WRITE, pieces, timings.NEVER)
        seconds = timings.checked_seconds(timeout, "Framed.write")
        stream._h_timed()
        return stream._h_out.start(writes.WRITE, pieces, seconds)

    def write_nowait(self, *frames: Any) -> None:
        """Send all of *frames*, or keep them, without waiting for room: see Stream.write_nowait().

        Raises: as for write(). Nothing was accepted then.
        """
        self._stream.write_nowait(*codecs.encode_all(self._cursor, frames))

    async def discard(self, *, timeout: float | None = None) -> None:
        """Throw away the next frame, one that is too large, as it comes.

        Args: *timeout*, how many seconds this call may take.
        Raises: RuntimeError where the next frame is not too large, or has not come; FrameTooLarge
        where nobody can tell how long it is; IncompleteReadError where the input ends before it
        does; ReadTimeout and DeadlineExceeded; what broke the connection.
        Cancellation: what is gone is gone. Where frames begin with their length, the next one
        cannot be found any more then: close the stream.
        """
        size = too_large(self._cursor, self._stream)
        if size > 0:
            await self._stream.skip(size, timeout=timeout)
        else:
            await self._stream._h_start(DISCARD, 0, self._cursor, timeout)


class Framed(FramedStream, Generic[T]):
    """A stream as frames: what ``stream.framed(codec)`` returns. It keeps no bytes of its own, so
    that the protocol may change between two frames.

    Args:
        stream: a Stream.
        codec: one of headrace.framing, or one's own.

    One task may read at a time, and any number may write.
    Raises: TypeError where *codec* is none.
    """

    __slots__ = ()
    __signature__: Any = SignatureOf(lambda stream, codec: None)

    if TYPE_CHECKING:  # of which type the frames are; the class behind cannot say it

        def read(self, *, timeout: float | None = None) -> Coroutine[Any, Any, T]:
            """See FramedStream."""

        def __anext__(self) -> Coroutine[Any, Any, T]: ...

        @overload
        def read_many(
            self, most: int = 100, *, views: Literal[False] = False, timeout: float | None = None
        ) -> Coroutine[Any, Any, list[T]]:
            """See FramedStream."""

        @overload
        def read_many(
            self, most: int = 100, *, views: Literal[True], timeout: float | None = None
        ) -> Coroutine[Any, Any, list[memoryview]]:
            """See FramedStream."""

        @overload
        def read_many(
            self, most: int = 100, *, views: bool = False, timeout: float | None = None
        ) -> Coroutine[Any, Any, list[Any]]:
            """See FramedStream."""

        def read_many(self, most: int = 100, **options: Any) -> Any:
            """See FramedStream."""

        def write(self, *frames: T, timeout: float | None = None) -> Coroutine[Any, Any, None]:
            """See FramedStream."""

        def write_nowait(self, *frames: T) -> None:
            """See FramedStream."""


class Discard(Read):
    """discard(): drops what comes up to a delimiter; *argument* is a Cursor."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        is_over = drop(operation.argument, reader)
        reader._h_maybe_resume()
        if is_over:
            return None
        if reader._eof:
            raise asyncio.IncompleteReadError(b"", None)
        return reader._h_pending()


DISCARD = Discard("Framed.discard")


def too_large(cursor: Cursor, stream: Duplex) -> int:
    """Return how long the next frame is, one that is too large; 0 where its end has to be found."""
    codec = cursor.codec
    try:
        codecs.measure(cursor, stream._h_reader._h_bytes)
    except FrameTooLarge as error:
        if isinstance(codec, DelimitedCodec):
            return 0  # what it says does not count the delimiter
        if error.size is None:
            raise
        return error.size
    raise RuntimeError("discard() is for a frame that is too large, and the next one is not")


def drop(cursor: Cursor, reader: ReadHalf) -> bool:
    """Drop what is there up to a delimiter; return whether it was found."""
    return delimited.drop(cursor.codec, reader._h_bytes, reader._eof)


# What Stream.framed() makes and is annotated with.
streams.Framed = Framed

mark_coroutine_functions(Framed, ("read", "read_many", "write"))
