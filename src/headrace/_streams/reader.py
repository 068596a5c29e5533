"""StreamReader: asyncio's reader over an ReadHalf and operations.

``Reader`` does the reads and is compiled; ``StreamReader`` puts asyncio's class behind it, so that
``isinstance`` holds and a program may set any attribute, put methods on the class, and read
asyncio's private names (``_buffer``, ``_limit``, ``_eof``, …). A subclass or an instance that
overrides a method which asyncio calls internally is noticed, and its method is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if cython.compiled:
    from cython.cimports.headrace._core.cprims import clipped, set_attribute, version_of
    from cython.cimports.headrace._streams.read_half import NEWLINE, ReadHalf
    from cython.cimports.headrace._transport.operation import (
        NEXT_LINE,
        PENDING,
        READ,
        READ_ALL,
        READEXACTLY,
        READLINE,
        READUNTIL,
        WAIT_FOR_DATA,
        Operation,
        start,
    )
else:
    from headrace._core.cprims_py import clipped, set_attribute, version_of
    from headrace._streams.read_half import NEWLINE, ReadHalf
    from headrace._transport.operation import (
        NEXT_LINE,
        PENDING,
        READ,
        READ_ALL,
        READEXACTLY,
        READLINE,
        READUNTIL,
        WAIT_FOR_DATA,
        Operation,
        start,
    )

from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._core.stock import StockStreamReader
from headrace._streams.arguments import DEFAULT_LIMIT

Separator = bytes | bytearray | memoryview

# The methods that asyncio's own code calls on a reader, so that overriding them has an effect
# there.
_INNER_FEEDS = ("feed_data", "feed_eof", "set_exception")
_INNER_READS = ("readuntil", "readline", "exception")

# The version of the class that was looked at last, and what was found.
_looked_at = 0
_plain = True
_plain_reads = True


class Reader(ReadHalf):
    """The reader without asyncio's class behind it. See StreamReader for the public
    documentation."""

    def __init__(self, limit: int | None = DEFAULT_LIMIT, loop: Any = None) -> None:
        ReadHalf.__init__(self, limit, loop)
        self._h_plain_reads = True
        self._h_notice_overrides()

    # ---- what programs override

    def _h_notice_overrides(self) -> None:
        """Look for methods that a subclass overrides, or that somebody has patched on the class."""
        global _looked_at, _plain, _plain_reads
        cls = type(self)
        version = version_of(cls)
        if version != 0 and version == _looked_at:
            # The class is as it was when the last reader was made.
            self._h_plain = _plain
            self._h_plain_reads = _plain_reads
            return
        for name in _INNER_FEEDS:
            if getattr(cls, name) is not _originals[name]:
                self._h_plain = False
        for name in _INNER_READS:
            if getattr(cls, name) is not _originals[name]:
                self._h_plain_reads = False
        _looked_at = version
        _plain = self._h_plain
        _plain_reads = self._h_plain_reads

    def __setattr__(self, name: str, value: object) -> None:
        set_attribute(self, name, value)
        if name in _INNER_FEEDS:
            self._h_plain = False
        elif name in _INNER_READS:
            self._h_plain_reads = False

    # ---- reading

    def read(self, n: int = -1) -> Coroutine[Any, Any, bytes]:
        """Return up to *n* bytes as soon as there are any; all up to the end of input where *n* is
        negative; b"" at the end.

        Raises: what broke the connection, once what arrived before it has been read. Cancellation:
        safe, also of read(-1).
        """
        if type(n) is int:  # as nearly always, and then nothing can be wrong with it
            amount = clipped(n)
        else:
            try:
                amount = clipped(n)
            except Exception:
                return self._h_refuse(n)
        return start(self, READ_ALL if amount < 0 else READ, amount, None)

    def readexactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """Return exactly *n* bytes; *n* may be above the limit.

        Raises: ValueError where *n* is negative; IncompleteReadError at the end of input, whose
        ``partial`` has what was left; what broke the connection. Cancellation: safe.
        """
        if type(n) is int:  # as nearly always, and then nothing can be wrong with it
            amount = clipped(n)
        else:
            try:
                amount = clipped(n)
            except Exception:
                return self._h_refuse(n)
        return start(self, READEXACTLY, amount, n)

    def readuntil(
        self, separator: Separator | tuple[Separator, ...] = NEWLINE
    ) -> Coroutine[Any, Any, bytes]:
        """Return the bytes up to and with *separator*, or with whichever of a tuple of separators
        ends first.

        Raises: ValueError for an empty separator or tuple; IncompleteReadError at the end of input,
        whose ``partial`` has what was left; LimitOverrunError where more than the limit stands
        before the separator: all of it stays, and ``consumed`` bytes can be read to get past it;
        what broke the connection. Cancellation: safe, and the search goes on where it stopped.
        """
        return start(self, READUNTIL, 0, separator)

    def readline(self) -> Coroutine[Any, Any, bytes]:
        """Return one line with its newline; at the end of input what is left, which may be b"".

        Raises: ValueError where a line is longer than the limit: it is dropped, up to its newline
        if that has come; what broke the connection. Cancellation: safe.
        """
        if not self._h_plain_reads:
            return self._h_readline_by_readuntil()
        return start(self, READLINE, 0, None)

    def __aiter__(self) -> Reader:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        if not self._h_plain_reads:
            return self._h_next_by_readline()
        return start(self, NEXT_LINE, 0, None)

    def _wait_for_data(self, func_name: str) -> Coroutine[Any, Any, None]:
        return start(self, WAIT_FOR_DATA, 0, func_name)

    async def _h_refuse(self, n: object) -> bytes:
        """Raise for *n*, which is no number of bytes, at the await, as asyncio's reads do."""
        raise TypeError(f"the number of bytes should be an integer, not {type(n).__name__!r}")

    async def _h_readline_by_readuntil(self) -> bytes:
        """readline() for a reader whose readuntil() is not ours: as asyncio's, it calls that."""
        try:
            return await self.readuntil(NEWLINE)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            self._h_drop_overrun(error.consumed)
            raise ValueError(error.args[0])  # noqa: B904 (the context shows, as it does in asyncio)

    async def _h_next_by_readline(self) -> bytes:
        line = await self.readline()
        if line == b"":
            raise StopAsyncIteration
        return line

    # ---- the work of an operation

    def _h_attempt(self, operation: Operation) -> object:
        kind = operation.kind
        if kind == READ:
            return self._h_read(operation.amount)
        if kind == READEXACTLY:
            return self._h_readexactly(operation.amount, operation.argument)
        if kind == READLINE:
            return self._h_readline()
        if kind == NEXT_LINE:
            line = self._h_readline()
            if line is not PENDING and len(line) == 0:
                raise StopAsyncIteration
            return line
        if kind == READUNTIL:
            return self._h_readuntil(operation)
        if kind == READ_ALL:
            return self._h_read_all()
        return self._h_wait_once(operation)

    def _h_check(self) -> None:
        """Raise what set_exception() set; the loss of the connection only counts where the buffer
        does not do."""
        if self._exception is not None and self._h_lost is None:
            raise self._exception.with_traceback(None)

    def _h_read(self, limit: int) -> object:
        self._h_check()
        if limit == 0:
            return b""
        size = self._h_bytes.length()
        if size == 0:
            if self._eof:
                return b""
            return self._h_pending()
        return self._h_take(min(size, limit))

    def _h_read_all(self) -> object:
        self._h_check()
        if self._eof:
            return self._h_take(self._h_bytes.length())
        return self._h_pending()

    def _h_readexactly(self, wanted: int, asked: object) -> object:
        if wanted < 0:
            raise ValueError("readexactly size can not be less than zero")
        self._h_check()
        if wanted == 0:
            return b""
        size = self._h_bytes.length()
        if size >= wanted:
            return self._h_take(wanted)
        if self._eof:
            # What was asked for may be more than a size can be.
            raise asyncio.IncompleteReadError(self._h_bytes.take(size), asked)
        return self._h_pending()

    def _h_readline(self) -> object:
        self._h_check()
        before = self._h_bytes.find_one(NEWLINE)
        if before >= 0:
            if before <= self._limit:
                return self._h_take(before + 1)
            self._h_line_overrun(overrun_message(True, before, self._limit), before)
        size = self._h_bytes.length()
        if size > self._limit:
            self._h_line_overrun(overrun_message(False, size, self._limit), size)
        if self._eof:
            return self._h_bytes.take(size)
        return self._h_pending()

    def _h_line_overrun(self, message: str, consumed: int) -> object:
        """Raise what readline() raises of a line that is too long, after removing it."""
        try:
            raise asyncio.LimitOverrunError(message, consumed)
        except asyncio.LimitOverrunError:
            self._h_drop_overrun(consumed)
            raise ValueError(message)  # noqa: B904 (the context shows, as it does in asyncio)

    def _h_drop_overrun(self, consumed: int) -> None:
        """Do what readline() does with a line that is too long: remove it, or everything where its
        end has not come."""
        size = self._h_bytes.length()
        if consumed < size and self._h_bytes.find_one(NEWLINE) == consumed:
            self._h_bytes.skip(consumed + 1)
        else:
            self._h_bytes.skip(size)
        self._maybe_resume_transport()

    def _h_readuntil(self, operation: Operation) -> object:
        if type(operation.argument) is not bytes or operation.amount == 0:
            prepare_separators(operation)
        self._h_check()
        if type(operation.argument) is bytes:
            before = self._h_bytes.find_one(operation.argument)
            after = before + operation.amount
        else:
            before, after = self._h_bytes.find_first(operation.argument)
        if before >= 0:
            if before > self._limit:
                raise asyncio.LimitOverrunError(overrun_message(True, before, self._limit), before)
            return self._h_take(after)
        size = self._h_bytes.length()
        searched = size + 1 - operation.amount
        if searched > self._limit:
            raise asyncio.LimitOverrunError(overrun_message(False, searched, self._limit), searched)
        if self._eof:
            raise asyncio.IncompleteReadError(self._h_bytes.take(size), None)
        return self._h_pending()

    def _h_wait_once(self, operation: Operation) -> object:
        """Wait for any data or EOF, once: asyncio's _wait_for_data(), for subclasses that call
        it."""
        if operation.amount == 0:
            operation.amount = 1
            return PENDING
        self._h_check()
        return None


def prepare_separators(operation: Operation) -> None:
    """Check readuntil()'s argument, and set the operation's argument and amount (the longest one's
    length) from it."""
    global _last
    given = operation.argument
    if not isinstance(given, tuple):
        operation.argument = as_separator(given)
        operation.amount = len(operation.argument)
        return
    # Nearly every program has one tuple, a constant. Read and set in one piece: loops in other
    # threads have theirs.
    last = _last
    if given is last[0]:
        separators = last[1]
    else:
        if not given:
            raise ValueError("Separator should contain at least one element")
        separators = tuple(sorted([as_separator(each) for each in given], key=len))
        # One with a mutable element may differ the next time.
        if all([type(each) is bytes for each in given]):  # noqa: C419 (a generator costs more)
            _last = (given, separators)
    operation.amount = len(separators[len(separators) - 1])
    operation.argument = separators[0] if len(separators) == 1 else separators


_last: tuple[object, tuple[bytes, ...]] = (None, ())


def as_separator(separator: object) -> bytes:
    """Return *separator* as bytes, or raise: it has to be a bytes-like object of at least one
    byte."""
    if not isinstance(separator, (bytes, bytearray, memoryview)):
        raise TypeError(
            "separator should be a bytes-like object or a tuple of them, not "
            f"{type(separator).__name__!r}"
        )
    if len(separator) == 0:
        raise ValueError("Separator should be at least one-byte string")
    return bytes(separator)


def overrun_message(found: bool, size: int, limit: int) -> str:
    """Say what was too long, by how much and against what: asyncio's words, then the figures."""
    if found:
        return (
            "Separator is found, but chunk is longer than limit "
            f"({size} bytes before it; limit={limit})"
        )
    return (
        f"Separator is not found, and chunk exceed the limit ({size} bytes searched; limit={limit})"
    )


class StreamReader(Reader, StockStreamReader):
    """Reads from a byte stream: what open_connection() returns and start_server() hands to its
    callback.

    Every read keeps what it has not returned: cancelling one, or letting it time out, loses no
    byte, and the next read goes on where it stood. At most one read may wait at a time; a second
    one raises RuntimeError.

    *limit*: how many bytes a line may have, or what stands before a separator. The transport is
    paused while more than twice as many wait to be read.
    """

    __signature__ = SignatureOf(StockStreamReader)


mark_coroutine_functions(
    StreamReader, ("read", "readline", "readexactly", "readuntil", "_wait_for_data")
)

_originals = {name: getattr(StreamReader, name) for name in (*_INNER_FEEDS, *_INNER_READS)}
