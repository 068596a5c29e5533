"""StreamReader: asyncio's reader over a ReadBuffer and operations.

``Reader`` does the work and is compiled; ``StreamReader`` puts asyncio's class behind it, so that ``isinstance`` holds and a
program may set any attribute, put methods on the class, and read asyncio's private names (``_buffer``, ``_limit``, ``_eof``, …).
A subclass or an instance that overrides a method which asyncio calls internally is noticed, and its method is called.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.format_helpers import extract_stack
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if cython.compiled:
    from cython.cimports.headrace._core.buffer import ReadBuffer
    from cython.cimports.headrace._core.cprims import set_attribute
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
    from cython.cimports.headrace._transport.protocol import Receiver
    from cython.cimports.headrace._transport.sender import Sender
    from cython.cimports.headrace._transport.stepper import stepper_of
else:
    from headrace._core.buffer import ReadBuffer
    from headrace._core.cprims_py import set_attribute
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
    from headrace._transport.protocol import Receiver
    from headrace._transport.sender import Sender
    from headrace._transport.stepper import stepper_of

from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._core.stock import StockStreamReader

# asyncio's default, and what limit=None means.
DEFAULT_LIMIT = 2**16

# A readexactly() of at least this collects its bytes in the object that it returns. Below it, the copy is cheaper than
# the allocation of a storage. Not measured.
RESERVE_BYTES = 2**16

_NEWLINE = b"\n"

Separator = bytes | bytearray | memoryview

# The methods that asyncio's own code calls on a reader, so that overriding them has an effect there.
_INNER_FEEDS = ("feed_data", "feed_eof", "set_exception")
_INNER_READS = ("readuntil", "readline", "exception")


class Reader(Receiver):
    """The reader without asyncio's class behind it. See StreamReader for the public documentation."""

    def __init__(self, limit: int | None = DEFAULT_LIMIT, loop: Any = None) -> None:
        if limit is None:
            limit = DEFAULT_LIMIT
        if limit <= 0:
            raise ValueError("Limit cannot be <= 0")
        if loop is None:
            loop = asyncio.get_event_loop()
        self._limit = limit
        self._loop = loop
        self._h_stepper = stepper_of(loop)
        self._h_bytes = ReadBuffer()
        self._eof = False
        self._exception = None
        self._h_lost = None
        self._h_waiter = None
        self._h_transport = None
        self._h_sender = None
        self._h_context = None
        self._paused = False
        self._source_traceback = None
        self._h_plain = True
        self._h_plain_reads = True
        if type(self) is not StreamReader:
            self._h_notice_overrides()
        if loop.get_debug():
            self._source_traceback = extract_stack(sys._getframe(0 if cython.compiled else 1))

    # ---- what programs override

    def _h_notice_overrides(self) -> None:
        for name in _INNER_FEEDS:
            if getattr(type(self), name) is not getattr(StreamReader, name):
                self._h_plain = False
        for name in _INNER_READS:
            if getattr(type(self), name) is not getattr(StreamReader, name):
                self._h_plain_reads = False

    def __setattr__(self, name: str, value: object) -> None:
        set_attribute(self, name, value)
        if name in _INNER_FEEDS:
            self._h_plain = False
        elif name in _INNER_READS:
            self._h_plain_reads = False

    # ---- asyncio's private names

    @property
    def _buffer(self) -> bytearray:
        return self._h_bytes.expose()

    @_buffer.setter
    def _buffer(self, value: bytearray) -> None:
        self._h_bytes.replace(value if type(value) is bytearray else bytearray(value))

    @property
    def _waiter(self) -> object:
        return self._h_waiter

    @_waiter.setter
    def _waiter(self, value: object) -> None:
        self._h_waiter = value

    @property
    def _transport(self) -> object:
        sender = self._h_sender
        if sender is not None and sender.transport is self._h_transport:
            return sender.expose()
        return self._h_transport

    @_transport.setter
    def _transport(self, transport: object) -> None:
        self._h_transport = transport

    def _wakeup_waiter(self) -> None:
        self._h_wake_later()

    def _maybe_resume_transport(self) -> None:
        if self._paused and self._h_bytes.length() <= self._limit:
            self._h_resume()

    def _wait_for_data(self, func_name: str) -> Coroutine[Any, Any, None]:
        return start(self, WAIT_FOR_DATA, 0, func_name)

    def __repr__(self) -> str:
        info = ["StreamReader"]
        size = self._h_bytes.length()
        if size:
            info.append(f"{size} bytes")
        if self._eof:
            info.append("eof")
        if self._limit != DEFAULT_LIMIT:
            info.append(f"limit={self._limit}")
        if self._h_waiter:
            info.append(f"waiter={self._h_waiter!r}")
        if self._exception:
            info.append(f"exception={self._exception!r}")
        if self._h_transport:
            info.append(f"transport={self._h_transport!r}")
        if self._paused:
            info.append("paused")
        return "<{}>".format(" ".join(info))

    # ---- feeding

    def exception(self) -> BaseException | None:
        """Return the exception set by set_exception() or by the loss of the connection, or None."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Make every read raise *exc* from now on, whatever is buffered; a waiting read is woken."""
        self._exception = exc
        self._h_lost = None
        self._h_wake_later()

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport that is paused while the buffer holds more than twice the limit."""
        if self._h_transport is not None:
            raise AssertionError("Transport already set")
        self._h_transport = transport
        self._h_context = copy_context()

    def feed_data(self, data: bytes) -> None:
        """Add *data* to the buffer and wake a waiting read, in the loop's next turn, if it can now be satisfied."""
        operation = self._h_feed(data if type(data) is bytes else bytes(data))
        if operation is not None:
            operation.wake_later()

    def feed_eof(self) -> None:
        """Mark the end of the stream, and wake a waiting read."""
        self._eof = True
        self._h_wake_later()

    def at_eof(self) -> bool:
        """Return True if the buffer is empty and feed_eof() was called."""
        return self._eof and self._h_bytes.length() == 0

    def _h_feed(self, data: bytes) -> Operation | None:
        if self._eof:
            raise AssertionError("feed_data after feed_eof")
        if len(data) == 0:
            return None
        self._h_bytes.append(data)
        return self._h_after_feed()

    def _h_feed_front(self, scratch: bytearray, size: int) -> Operation | None:
        if self._eof:
            raise AssertionError("feed_data after feed_eof")
        self._h_bytes.append_front(scratch, size)
        return self._h_after_feed()

    def _h_after_feed(self) -> Operation | None:
        """Pause the transport if that is due, and return the operation that the new bytes satisfy."""
        waiter = self._h_waiter
        if waiter is not None:
            if type(waiter) is not Operation:
                self._h_wake_later()
            elif is_ready(self, waiter):
                self._h_waiter = None
                self._h_maybe_pause()
                return waiter
            else:
                # It wants more than the limit, which is its right: no pause, or it would wait for ever.
                if is_greedy(self, waiter):
                    self._h_pause_once(waiter)
                return None
        self._h_maybe_pause()
        return None

    def _h_maybe_pause(self) -> None:
        if self._paused or self._h_transport is None or self._h_bytes.length() <= 2 * self._limit:
            return
        try:
            self._h_transport.pause_reading()
        except NotImplementedError:
            # It cannot be paused: everything is buffered, and it is not asked again.
            self._h_transport = None
        else:
            self._paused = True

    def _h_pause_once(self, waiter: Operation) -> None:
        """Give a sender that floods read(-1) one pause: other connections get their turn, and asyncio's own tests look for it."""
        self._h_maybe_pause()
        if self._paused:
            waiter.amount = 0
            self._h_waiter = None
            waiter.wake_later()

    def _h_resume(self) -> None:
        self._paused = False
        if self._h_context is None:
            self._h_transport.resume_reading()
        else:
            # The loop runs later receives in the context of this call, which must not be that of whoever happens to read.
            # A copy, since a transport may deliver at once, and that may end here again.
            self._h_context.copy().run(self._h_transport.resume_reading)

    def _h_lose(self, error: BaseException) -> None:
        self._exception = error
        self._h_lost = error
        self._h_wake_later()

    def _h_wake_later(self) -> None:
        """Wake the waiter, whoever it is, in the loop's next turn."""
        waiter = self._h_waiter
        if waiter is None:
            return
        self._h_waiter = None
        if type(waiter) is Operation:
            wake(waiter)
        elif not waiter.cancelled():
            if self._exception is not None:
                waiter.set_exception(self._exception)
            else:
                waiter.set_result(None)

    # ---- reading

    def read(self, n: int = -1) -> Coroutine[Any, Any, bytes]:
        """Return up to *n* bytes as soon as there are any; all up to the end of input where *n* is negative; b"" at the end.

        Raises: what broke the connection, once what arrived before it has been read. Cancellation: safe, also of read(-1).
        """
        return start(self, READ_ALL if n < 0 else READ, n, None)

    def readexactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """Return exactly *n* bytes; *n* may be above the limit.

        Raises: ValueError where *n* is negative; IncompleteReadError at the end of input, whose ``partial`` has what was left;
        what broke the connection. Cancellation: safe.
        """
        return start(self, READEXACTLY, n, None)

    def readuntil(self, separator: Separator | tuple[Separator, ...] = _NEWLINE) -> Coroutine[Any, Any, bytes]:
        """Return the bytes up to and with *separator*, or with whichever of a tuple of separators ends first.

        Raises: ValueError for an empty separator or tuple; IncompleteReadError at the end of input, whose ``partial`` has what was
        left; LimitOverrunError where more than the limit stands before the separator: all of it stays, and ``consumed`` bytes
        can be read to get past it; what broke the connection. Cancellation: safe, and the search goes on where it stopped.
        """
        return start(self, READUNTIL, 0, separator)

    def readline(self) -> Coroutine[Any, Any, bytes]:
        """Return one line with its newline; at the end of input what is left, which may be b"".

        Raises: ValueError where a line is longer than the limit: it is dropped, up to its newline if that has come;
        what broke the connection. Cancellation: safe.
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

    async def _h_readline_by_readuntil(self) -> bytes:
        """readline() for a reader whose readuntil() is not ours: as asyncio's, it calls that."""
        try:
            return await self.readuntil(_NEWLINE)
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
            return self._h_readexactly(operation.amount)
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
        """Raise what set_exception() set; the loss of the connection only counts where the buffer does not do."""
        if self._exception is not None and self._h_lost is None:
            raise self._exception

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

    def _h_readexactly(self, wanted: int) -> object:
        if wanted < 0:
            raise ValueError("readexactly size can not be less than zero")
        self._h_check()
        if wanted == 0:
            return b""
        size = self._h_bytes.length()
        if size >= wanted:
            return self._h_take(wanted)
        if self._eof:
            raise asyncio.IncompleteReadError(self._h_bytes.take(size), wanted)
        result = self._h_pending()
        if wanted >= RESERVE_BYTES:
            self._h_bytes.reserve(wanted)
        return result

    def _h_readline(self) -> object:
        self._h_check()
        before = self._h_bytes.find_one(_NEWLINE)
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
        """Do what readline() does with a line that is too long: remove it, or everything where its end has not come."""
        size = self._h_bytes.length()
        if consumed < size and self._h_bytes.find_one(_NEWLINE) == consumed:
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
        """Wait for any data or EOF, once: asyncio's _wait_for_data(), for subclasses that call it."""
        if operation.amount == 0:
            operation.amount = 1
            return PENDING
        self._h_check()
        return None

    def _h_take(self, size: int) -> bytes:
        data = self._h_bytes.take(size)
        if self._paused and self._h_bytes.length() <= self._limit:
            self._h_resume()
        return data

    def _h_pending(self) -> object:
        """Return PENDING, or raise what broke the connection: what is buffered does not satisfy the read, and no more comes."""
        if self._h_lost is not None:
            raise self._h_lost
        return PENDING

    # ---- waiting

    def _h_wait(self, operation: Operation) -> None:
        if self._h_waiter is not None:
            name = operation.argument if operation.kind == WAIT_FOR_DATA else WAIT_NAMES[operation.kind]
            raise RuntimeError(f"{name}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            # Waiting for data while nothing can come would be for ever.
            self._h_resume()
        self._h_bytes.spare()
        self._h_waiter = operation

    def _h_detach(self, operation: Operation) -> None:
        if self._h_waiter is operation:
            self._h_waiter = None


# Who is named when two coroutines wait at once: asyncio's readline() and read() wait in readuntil() and read().
WAIT_NAMES = ("read", "read", "readexactly", "readuntil", "readuntil", "readuntil")


def wake(operation: Operation) -> None:
    """Wake a waiter whose type is known only here."""
    operation.wake_later()


def is_ready(reader: Reader, operation: Operation) -> bool:
    """Tell whether *operation* can be satisfied now, or can only fail; it is not woken before."""
    kind = operation.kind
    size = reader._h_bytes.length()
    if kind == READEXACTLY:
        return size >= operation.amount
    if kind == READLINE or kind == NEXT_LINE:
        return reader._h_bytes.find_one(_NEWLINE) >= 0 or size > reader._limit
    if kind == READUNTIL:
        if type(operation.argument) is bytes:
            found = reader._h_bytes.find_one(operation.argument) >= 0
        else:
            found = reader._h_bytes.find_first(operation.argument)[0] >= 0
        return found or size + 1 - operation.amount > reader._limit
    return kind != READ_ALL


def is_greedy(reader: Reader, operation: Operation) -> bool:
    """Tell whether *operation* reads to EOF, has more than twice the limit already, and was never paused for it."""
    return operation.kind == READ_ALL and operation.amount != 0 and reader._h_bytes.length() > 2 * reader._limit


def prepare_separators(operation: Operation) -> None:
    """Check readuntil()'s argument, and set the operation's argument and amount (the longest one's length) from it."""
    global _last_given, _last_prepared
    given = operation.argument
    if not isinstance(given, tuple):
        operation.argument = as_separator(given)
        operation.amount = len(operation.argument)
        return
    if given is not _last_given:
        if not given:
            raise ValueError("Separator should contain at least one element")
        _last_prepared = tuple(sorted([as_separator(each) for each in given], key=len))
        # Nearly every program has one tuple, a constant. One with a mutable element may differ the next time.
        _last_given = given if all([type(each) is bytes for each in given]) else None
    separators = _last_prepared
    operation.amount = len(separators[len(separators) - 1])
    operation.argument = separators[0] if len(separators) == 1 else separators


_last_given: tuple[object, ...] | None = None
_last_prepared: tuple[bytes, ...] = ()


def as_separator(separator: object) -> bytes:
    """Return *separator* as bytes, or raise: it has to be a bytes-like object of at least one byte."""
    if not isinstance(separator, (bytes, bytearray, memoryview)):
        raise TypeError(f"separator should be a bytes-like object or a tuple of them, not {type(separator).__name__!r}")
    if len(separator) == 0:
        raise ValueError("Separator should be at least one-byte string")
    return bytes(separator)


def overrun_message(found: bool, size: int, limit: int) -> str:
    """Say what was too long, by how much and against what: asyncio's words, then the figures."""
    if found:
        return f"Separator is found, but chunk is longer than limit ({size} bytes before it; limit={limit})"
    return f"Separator is not found, and chunk exceed the limit ({size} bytes searched; limit={limit})"


class StreamReader(Reader, StockStreamReader):
    """Reads from a byte stream: what open_connection() returns and start_server() hands to its callback.

    Every read keeps what it has not returned: cancelling one, or letting it time out, loses no byte, and the next read goes on
    where it stood. At most one read may wait at a time; a second one raises RuntimeError.
    """

    __signature__ = SignatureOf(StockStreamReader)


mark_coroutine_functions(StreamReader, ("read", "readline", "readexactly", "readuntil", "_wait_for_data"))
