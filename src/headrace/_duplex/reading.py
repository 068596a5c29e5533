"""The reading half of a Stream."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Self

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._duplex import foreign, reads
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._streams.read_half import Read
from headrace._streams.reader import Reader, StreamReader
from headrace._transport import operation as operations
from headrace._transport import sender as senders
from headrace._transport import timing as timings
from headrace._transport.timing import Timing

Buffer = bytes | bytearray | memoryview


class Reading:
    """The methods of a Stream that read. Over a reader that is not ours they read from one of ours,
    which is given what is fetched from theirs."""

    def __init__(self, reader: Any) -> None:
        self._h_given_reader = reader
        self._h_timing = None
        self._h_reads = 0
        if isinstance(reader, Reader):
            self._h_reader = reader
            self._h_is_foreign = False
        else:
            self._h_reader = StreamReader(DEFAULT_LIMIT)
            self._h_is_foreign = True

    def _h_start(self, kind: Read, amount: int, argument: object, timeout: float | None) -> Any:
        """Return what awaits a read of *kind*."""
        self._h_reads += 1
        if self._h_is_foreign:
            return self._h_start_foreign(kind, amount, argument, timeout, -1)
        if timeout is None and (self._h_timing is None or not self._h_timing.deadlines):
            return self._h_reader._h_start(kind, amount, argument)
        return self._h_start_bounded(kind, amount, argument, timeout)

    def _h_start_bounded(
        self, kind: Read, amount: int, argument: object, timeout: float | None
    ) -> Any:
        """The same within a time, or a deadline."""
        seconds = timings.checked_seconds(timeout, kind.name)
        operation = self._h_reader._h_start(kind, amount, argument)
        self._h_timed().bound(operation, seconds)
        return operation

    def _h_start_within(
        self, kind: Read, amount: int, argument: object, timeout: float | None, limit: int
    ) -> Any:
        """The same for a read that may search *limit* bytes."""
        self._h_reads += 1
        if limit < 0:
            raise ValueError(f"the limit is a number of bytes, not {limit}")
        if self._h_is_foreign:
            return self._h_start_foreign(kind, amount, argument, timeout, limit)
        operation = self._h_start_bounded(kind, amount, argument, timeout)
        timings.limit_to(operation, limit)
        return operation

    def _h_start_foreign(
        self, kind: Read, amount: int, argument: object, timeout: float | None, limit: int
    ) -> Any:
        seconds = timings.checked_seconds(timeout, kind.name)
        operation = operations.by_hand(self._h_reader, kind, amount, argument)
        if limit >= 0:
            timings.limit_to(operation, limit)
        if self._h_timing is not None:
            self._h_timing.bound(operation, seconds)
        return foreign.fetch(self, self._h_given_reader, self._h_reader, kind, operation, seconds)

    def _h_timed(self) -> Timing:
        """Return what bounds the waits of this stream; most need none."""
        raise NotImplementedError

    def read(self, n: int = 65536, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return up to *n* bytes as soon as there are any.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Returns: bytes, not empty before the end of input; b"" at the end.
        Raises: ValueError where *n* is negative (read_all() reads up to the end); ReadTimeout and
        DeadlineExceeded; what broke the connection, once what came before the loss has been read.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        amount = cprims.clipped(n)
        if amount < 0:
            raise ValueError("read() takes a number of bytes; read_all() reads up to the end")
        return self._h_start(reads.READ, amount, None, timeout)

    def readexactly(self, n: int, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return exactly *n* bytes; it may be more than the limit.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Raises: ValueError where *n* is negative; IncompleteReadError where the input ends before:
        its ``partial`` has what was left, and the buffer is empty; ReadTimeout and
        DeadlineExceeded; what broke the connection: the buffer stays.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        return self._h_start(reads.READEXACTLY, cprims.clipped(n), n, timeout)

    def readuntil(
        self,
        separator: Buffer | tuple[Buffer, ...] = b"\n",
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, bytes]:
        """Return the bytes up to and with *separator*.

        Args: *separator*, bytes-like, or a tuple of such: whichever ends first counts; *limit*, how
        many bytes may stand before it (None for the stream's limit); *timeout*, how many seconds
        this call may take.
        Raises: TypeError where *separator* is neither; ValueError where it, or the tuple, is empty,
        or *limit* is negative; IncompleteReadError where the input ends before: its ``partial`` has
        what was left, and the buffer is empty; LimitOverrunError where more bytes than the limit
        stand before the separator: all of them stay; ReadTimeout and DeadlineExceeded; what broke
        the connection: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped. So
        is a timeout.
        """
        if limit is None:
            return self._h_start(reads.READUNTIL, 0, separator, timeout)
        return self._h_start_within(reads.READUNTIL, 0, separator, timeout, limit)

    def readline(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Return one line with its newline, b"\\n"; at the end of input what is left, which may be
        b"".

        Args: *limit*, how many bytes a line may have before its newline (None for the stream's
        limit); *timeout*, how many seconds this call may take.
        Raises: LimitOverrunError where the line is longer: all of it stays, and skip() gets past
        it; ValueError where *limit* is negative; ReadTimeout and DeadlineExceeded; what broke the
        connection: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped. So
        is a timeout.
        """
        if limit is None:
            return self._h_start(reads.READLINE, 0, None, timeout)
        return self._h_start_within(reads.READLINE, 0, None, timeout, limit)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._h_start(reads.NEXT_LINE, 0, None, None)

    def read_all(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Return everything up to the end of input.

        Args: *limit*, how many bytes that may be (None for as many as come); *timeout*, how many
        seconds this call may take.
        Raises: LimitOverrunError where more than *limit* bytes come: all of them stay; ValueError
        where *limit* is negative; ReadTimeout and DeadlineExceeded; what broke the connection.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        if limit is None:
            return self._h_start(reads.READ_ALL, -1, None, timeout)
        return self._h_start_within(reads.READ_ALL_WITHIN, -1, None, timeout, limit)

    def peek(self, n: int, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return the first *n* bytes without taking them; fewer only at the end of input.

        Args: *n*, a number of bytes, at most the limit of the stream; *timeout*, how many seconds
        this call may take.
        Raises: ValueError where *n* is negative or more than the limit; ReadTimeout and
        DeadlineExceeded; what broke the connection, where it did so before n bytes came.
        Cancellation: safe. So is a timeout.
        """
        return self._h_start(reads.PEEK, cprims.clipped(n), n, timeout)

    def read_into(
        self, buffer: bytearray | memoryview, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        """Put bytes into *buffer* as soon as there are any, as many as fit; return how many.

        Args: *buffer*, anything writable with the buffer protocol; *timeout*, how many seconds this
        call may take.
        Returns: a number of bytes, 0 at the end of input or where *buffer* is empty.
        Raises: TypeError where *buffer* cannot be written; ReadTimeout and DeadlineExceeded; what
        broke the connection, once what came before the loss has been read.
        Cancellation: safe: the buffer is written in the task's own step, and never after that. So
        is a timeout.
        """
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("read_into() needs a buffer that can be written")
        return self._h_start(reads.READ_INTO, len(view), view, timeout)

    async def skip(self, n: int, *, timeout: float | None = None) -> int:
        """Throw away *n* bytes as they come, and return *n*.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Raises: ValueError where *n* is negative; IncompleteReadError where the input ends before;
        ReadTimeout and DeadlineExceeded; what broke the connection. Each has ``transferred``: how
        many bytes are gone.
        Cancellation: what is gone is gone; ``transferred`` of the CancelledError says how much.
        """
        if n < 0:
            raise ValueError("skip() takes a number of bytes that is not negative")
        # How many there were to be, and how many are gone. (bytes_read goes back at an unread().)
        skipped = [n, 0]
        try:
            await self._h_start(reads.SKIP, cprims.clipped(n), skipped, timeout)
        except BaseException as error:
            error.transferred = skipped[1]
            raise
        return n

    def read_nowait(self, n: int = -1) -> bytes:
        """Return what is buffered, up to *n* bytes where that is not negative. b"" says only that
        there is nothing now, and nothing of the end.

        Raises: what set_exception() of the reader has set.
        """
        reader = self._h_reader
        if reader._exception is not None:
            reader._h_check()
        size = reader._h_bytes.length()
        return reader._h_take(size if n < 0 else min(size, n))

    def unread(self, data: Buffer) -> None:
        """Put *data* back in front of what is to be read: what was read too far, or was never sent.
        A read that waits is woken.

        Raises: TypeError where *data* is not bytes-like.
        """
        data = senders.as_bytes(data)
        if data:
            self._h_reader._h_bytes.prepend(data)
            self._h_reader._h_after_feed()

    def at_eof(self) -> bool:
        """Return whether the input has ended and all of it was read."""
        return self._h_reader.at_eof()

    @property
    def buffered(self) -> int:
        """How many bytes have come and were not read."""
        return self._h_reader._h_bytes.length()

    @property
    def limit(self) -> int:
        """How many bytes a line may have, or what stands before a separator. Receiving pauses while
        more than twice as many are buffered."""
        return self._h_reader._limit

    @property
    def bytes_read(self) -> int:
        """How many bytes were read, skipped or passed on."""
        return self._h_reader._h_bytes.taken
