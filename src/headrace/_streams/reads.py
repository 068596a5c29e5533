"""The reads: what each read does, when it is worth waking, and what it is called.

A read is one class and one object of it: ``attempt()`` takes the bytes, or says that more are
needed; ``is_ready()`` says whether another attempt is worth while, and is asked whenever bytes come
while the read waits; ``Read`` in ``read_half.py`` has the rest. The methods of the reader
(``reader.py``) start an operation with one of the objects.

An attempt takes bytes only when it returns them: a read that is cancelled has then taken nothing.
"""

from __future__ import annotations

import asyncio

from headrace._streams.read_half import Read, ReadHalf
from headrace._transport import operation as operations
from headrace._transport import receive
from headrace._transport import timing as timings
from headrace._transport.operation import Operation

NEWLINE = b"\n"


class ReadSome(Read):
    """read(n): up to *amount* bytes, as soon as there are any."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        if operation.amount == 0:
            return b""
        size = reader._h_bytes.length()
        if size == 0:
            if reader._eof:
                return b""
            return reader._h_pending()
        return reader._h_take(min(size, operation.amount))


class ReadAll(Read):
    """read(-1): everything up to the end of input. Its *amount* is 0 once it was paused."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        if reader._eof:
            return reader._h_take(reader._h_bytes.length())
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return False  # the end of input wakes whoever waits

    def is_greedy(self, reader: ReadHalf, operation: Operation) -> bool:
        return operation.amount != 0 and reader._h_bytes.length() - reader._limit > reader._limit


class ReadExactly(Read):
    """readexactly(n): *amount* bytes. Its *argument* is the number as it was given, which may be
    more than a size can be."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        wanted = operation.amount
        if wanted < 0:
            raise ValueError("readexactly size can not be less than zero")
        if reader._exception is not None:
            reader._h_check()
        if wanted == 0:
            return b""
        size = reader._h_bytes.length()
        if size >= wanted:
            return reader._h_take(wanted)
        if reader._eof:
            raise asyncio.IncompleteReadError(reader._h_bytes.take(size), operation.argument)
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return reader._h_bytes.length() >= operation.amount

    def is_large(self, operation: Operation) -> bool:
        return operation.amount >= receive.RESERVE_BYTES


class ReadLine(Read):
    """readline(): one line, or what is left at the end of input."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        return take_line(reader)

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return reader._h_bytes.find_one(NEWLINE) >= 0 or reader._h_bytes.length() > reader._limit

    def waits_in(self, operation: Operation) -> str:
        return "readuntil"  # where asyncio's readline() waits


class NextLine(ReadLine):
    """``async for``: the same, but the end of input ends the iteration."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        line = take_line(reader)
        if line is not operations.PENDING and len(line) == 0:
            raise StopAsyncIteration
        return line


class ReadUntil(Read):
    """readuntil(separator): everything up to and with a separator.

    Its *argument* is the separator, as bytes, or a tuple of them, the shortest first; its *amount*
    is the length of the longest, 0 before prepare_separators().
    """

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if type(operation.argument) is not bytes or operation.amount == 0:
            prepare_separators(operation)
        if reader._exception is not None:
            reader._h_check()
        if type(operation.argument) is bytes:
            before = reader._h_bytes.find_one(operation.argument)
            after = before + operation.amount
        else:
            before, after = reader._h_bytes.find_first(operation.argument)
        limit = limit_of(reader, operation)
        if before >= 0:
            if before > limit:
                raise asyncio.LimitOverrunError(overrun_message(True, before, limit), before)
            return reader._h_take(after)
        size = reader._h_bytes.length()
        searched = size + 1 - operation.amount
        if searched > limit:
            raise asyncio.LimitOverrunError(overrun_message(False, searched, limit), searched)
        if reader._eof:
            raise asyncio.IncompleteReadError(reader._h_bytes.take(size), None)
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        if type(operation.argument) is bytes:
            found = reader._h_bytes.find_one(operation.argument) >= 0
        else:
            found = reader._h_bytes.find_first(operation.argument)[0] >= 0
        searched = reader._h_bytes.length() + 1 - operation.amount
        return found or searched > limit_of(reader, operation)


class WaitForData(Read):
    """_wait_for_data(name): a wait for any bytes, or for the end, which takes nothing.

    asyncio's own, for subclasses that call it. It waits once, whatever is buffered: its *amount* is
    1 from then on. Its *argument* is the method that is named where two wait.
    """

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if operation.amount == 0:
            operation.amount = 1
            return operations.PENDING
        if reader._exception is not None:
            reader._h_check()
        return None

    def waits_in(self, operation: Operation) -> str:
        return operation.argument


READ = ReadSome("StreamReader.read")
READ_ALL = ReadAll("StreamReader.read")
READEXACTLY = ReadExactly("StreamReader.readexactly")
READUNTIL = ReadUntil("StreamReader.readuntil")
READLINE = ReadLine("StreamReader.readline")
NEXT_LINE = NextLine("StreamReader.__anext__")
WAIT_FOR_DATA = WaitForData("StreamReader._wait_for_data")


def limit_of(reader: ReadHalf, operation: Operation) -> int:
    """Return how many bytes *operation* may search: its own limit, or the reader's."""
    return reader._limit if operation.bounds is None else timings.limit_of(operation, reader._limit)


def take_line(reader: ReadHalf) -> object:
    """Do what readline() does: return a line, what is left at the end of input, or PENDING."""
    if reader._exception is not None:
        reader._h_check()
    before = reader._h_bytes.find_one(NEWLINE)
    if before >= 0:
        if before <= reader._limit:
            return reader._h_take(before + 1)
        raise_overrun(reader, overrun_message(True, before, reader._limit), before)
    size = reader._h_bytes.length()
    if size > reader._limit:
        raise_overrun(reader, overrun_message(False, size, reader._limit), size)
    if reader._eof:
        return reader._h_bytes.take(size)
    return reader._h_pending()


def raise_overrun(reader: ReadHalf, message: str, consumed: int) -> object:
    """Raise what readline() raises of a line that is too long, after removing it."""
    try:
        raise asyncio.LimitOverrunError(message, consumed)
    except asyncio.LimitOverrunError:
        drop_overrun(reader, consumed)
        raise ValueError(message)  # noqa: B904 (the context shows, as it does in asyncio)


def drop_overrun(reader: ReadHalf, consumed: int) -> None:
    """Do what readline() does with a line that is too long: remove it, or everything where its end
    has not come."""
    size = reader._h_bytes.length()
    if consumed < size and reader._h_bytes.find_one(NEWLINE) == consumed:
        reader._h_bytes.skip(consumed + 1)
    else:
        reader._h_bytes.skip(size)
    reader._maybe_resume_transport()


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
