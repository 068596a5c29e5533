"""StreamReader: asyncio's reader over a ReadHalf and operations.

``Reader`` starts the reads, which are in ``reads.py``, and is compiled; ``StreamReader`` puts
asyncio's class behind it, so that ``isinstance`` holds and a program may set any attribute, put
methods on the class, and read asyncio's private names (``_buffer``, ``_limit``, ``_eof``, …). A
subclass or an instance that overrides a method which asyncio calls internally is noticed, and its
method is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._core.stock import StockStreamReader
from headrace._streams import reads
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._streams.read_half import ReadHalf

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
    """The reader's methods, without asyncio's class behind them: that makes it a StreamReader."""

    def __init__(self, limit: int | None = DEFAULT_LIMIT, loop: Any = None) -> None:
        ReadHalf.__init__(self, limit, loop)
        self._h_plain_reads = True
        self._h_notice_overrides()

    # ---- what programs override

    def _h_notice_overrides(self) -> None:
        """Look for methods that a subclass overrides, or that somebody has patched on the class."""
        global _looked_at, _plain, _plain_reads
        cls = type(self)
        version = cprims.version_of(cls)
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
        cprims.set_attribute(self, name, value)
        if name in _INNER_FEEDS:
            self._h_plain = False
        elif name in _INNER_READS:
            self._h_plain_reads = False

    # ---- reading

    def read(self, n: int = -1) -> Coroutine[Any, Any, bytes]:
        """Return up to *n* bytes as soon as there are any.

        Args: *n*, a number of bytes; 0 returns b"" at once, a negative one everything up to the end
        of input, however much that is.
        Returns: bytes, not empty before the end of input; b"" at the end.
        Raises: TypeError where *n* is no integer; what broke the connection, once what came before
        the loss has been read, but by read(-1) at once; what set_exception() set, at once. What is
        buffered stays.
        Cancellation: safe, of read(-1) too: no byte is taken.
        """
        if not is_number(n):
            return self._h_refuse(n)
        amount = cprims.clipped(n)
        return self._h_start(reads.READ_ALL if amount < 0 else reads.READ, amount, None)

    def readexactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """Return exactly *n* bytes.

        Args: *n*, a number of bytes; it may be above the limit.
        Raises: TypeError where *n* is no integer; ValueError where it is negative;
        IncompleteReadError where the input ends before: its ``partial`` has what was left, and the
        buffer is empty; what broke the connection, or what set_exception() set: the buffer stays.
        Cancellation: safe: no byte is taken.
        """
        if not is_number(n):
            return self._h_refuse(n)
        return self._h_start(reads.READEXACTLY, cprims.clipped(n), n)

    def readuntil(
        self, separator: Separator | tuple[Separator, ...] = reads.NEWLINE
    ) -> Coroutine[Any, Any, bytes]:
        """Return the bytes up to and with *separator*.

        Args: *separator*, bytes-like, or a tuple of such: whichever ends first counts.
        Returns: bytes, at most the limit and the separator.
        Raises: TypeError where *separator* is neither; ValueError where it, or the tuple, is empty;
        IncompleteReadError where the input ends before: its ``partial`` has what was left, and the
        buffer is empty; LimitOverrunError where more bytes than the limit stand before the
        separator: all of them stay, and ``consumed`` bytes can be read to get past them; what broke
        the connection, or what set_exception() set: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped.
        """
        return self._h_start(reads.READUNTIL, 0, separator)

    def readline(self) -> Coroutine[Any, Any, bytes]:
        """Return one line with its newline, b"\\n".

        Returns: bytes, at most the limit and the newline; at the end of input what is left, which
        may be b"".
        Raises: ValueError where a line is longer than the limit: it is dropped, up to its newline
        if that has come, else all that is buffered; what broke the connection, or what
        set_exception() set: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped.
        """
        if not self._h_plain_reads:
            return self._h_readline_by_readuntil()
        return self._h_start(reads.READLINE, 0, None)

    def __aiter__(self) -> Reader:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        if not self._h_plain_reads:
            return self._h_next_by_readline()
        return self._h_start(reads.NEXT_LINE, 0, None)

    def _wait_for_data(self, func_name: str) -> Coroutine[Any, Any, None]:
        return self._h_start(reads.WAIT_FOR_DATA, 0, func_name)

    async def _h_refuse(self, n: object) -> bytes:
        """Raise for *n*, which is no number of bytes, at the await, as asyncio's reads do."""
        raise TypeError(f"the number of bytes should be an integer, not {type(n).__name__!r}")

    async def _h_readline_by_readuntil(self) -> bytes:
        """readline() for a reader whose readuntil() is not ours: as asyncio's, it calls that."""
        try:
            return await self.readuntil(reads.NEWLINE)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            reads.drop_overrun(self, error.consumed)
            raise ValueError(error.args[0])  # noqa: B904 (the context shows, as it does in asyncio)

    async def _h_next_by_readline(self) -> bytes:
        line = await self.readline()
        if line == b"":
            raise StopAsyncIteration
        return line


def is_number(n: object) -> bool:
    """Tell whether *n* can be a number of bytes."""
    if type(n) is not int:  # hardly ever
        try:
            cprims.clipped(n)
        except Exception:
            return False
    return True


class StreamReader(Reader, StockStreamReader):
    """Reads from a byte stream: what open_connection() returns and start_server() hands to its
    callback.

    Every read keeps what it has not returned: cancelling one, or letting it time out, loses no
    byte, and the next read goes on where it stood. At most one read may wait at a time; a second
    one raises RuntimeError.

    *limit*: how many bytes a line may have, or what stands before a separator. The transport is
    paused while more than twice as many wait to be read.
    """

    __signature__: Any = SignatureOf(StockStreamReader)


mark_coroutine_functions(
    StreamReader, ("read", "readline", "readexactly", "readuntil", "_wait_for_data")
)

_originals = {name: getattr(StreamReader, name) for name in (*_INNER_FEEDS, *_INNER_READS)}
