"""The reads of a Stream that a StreamReader does not have; the others are those of
``_streams/reads.py``, by another name."""

from __future__ import annotations

import asyncio

from headrace._streams import reads as readers
from headrace._streams.read_half import Read, ReadHalf
from headrace._streams.reads import ReadAll, ReadExactly, ReadLine, ReadSome, ReadUntil
from headrace._transport import operation as operations
from headrace._transport.operation import Operation


class Line(ReadLine):
    """readline(): one line, or what is left at the end. One that is too long stays."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        limit = readers.limit_of(reader, operation)
        before = reader._h_bytes.find_one(readers.NEWLINE)
        if before >= 0:
            if before > limit:
                raise asyncio.LimitOverrunError(
                    readers.overrun_message(True, before, limit), before
                )
            return reader._h_take(before + 1)
        size = reader._h_bytes.length()
        if size > limit:
            raise asyncio.LimitOverrunError(readers.overrun_message(False, size, limit), size)
        if reader._eof:
            return reader._h_take(size)
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        size = reader._h_bytes.length()
        return reader._h_bytes.find_one(readers.NEWLINE) >= 0 or size > readers.limit_of(
            reader, operation
        )

    def waits_in(self, operation: Operation) -> str:
        return "readline"


class NextLine(Line):
    """``async for``: the same, but the end of input ends the iteration."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        line = Line.attempt(self, reader, operation)
        if line is not operations.PENDING and len(line) == 0:
            raise StopAsyncIteration
        return line


class ReadAllWithin(ReadAll):
    """read_all(limit=): everything up to the end of input, where that is no more than the limit."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        size = reader._h_bytes.length()
        limit = readers.limit_of(reader, operation)
        if size > limit:
            raise asyncio.LimitOverrunError(
                f"more than the limit has come before the end ({size} bytes; {limit=})", size
            )
        if reader._eof:
            return reader._h_take(size)
        return reader._h_pending()

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return reader._h_bytes.length() > readers.limit_of(reader, operation)


class Peek(Read):
    """peek(n): the first *amount* bytes, which stay; fewer only at the end of input."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        if operation.amount < 0 or operation.amount > reader._limit:
            raise ValueError(
                f"peek() can show from 0 up to {reader._limit} bytes, the limit of the stream, not "
                f"{operation.argument}"
            )
        size = reader._h_bytes.length()
        if size < operation.amount and not reader._eof:
            return reader._h_pending()
        return reader._h_bytes.peek(0, min(size, operation.amount))

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        return reader._h_bytes.length() >= operation.amount


class ReadInto(Read):
    """read_into(buffer): as many bytes as fit into *argument*, a memoryview, as soon as there are
    any. They are copied in the task's own step."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        size = min(reader._h_bytes.length(), operation.amount)
        if size == 0 and operation.amount > 0 and not reader._eof:
            return reader._h_pending()
        # An operation may be kept to be used again, and the caller's buffer must not be.
        view = operation.argument
        operation.argument = None
        if size > 0:
            with view[:size] as part:
                reader._h_bytes.take_into(part)
            reader._h_maybe_resume()
        view.release()
        return size


class Skip(Read):
    """skip(n): throws away *amount* bytes as they come; *argument* is a list of how many there were
    to be and how many are gone."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        if reader._exception is not None:
            reader._h_check()
        size = min(reader._h_bytes.length(), operation.amount)
        if size > 0:
            reader._h_bytes.skip(size)
            operation.amount -= size
            operation.argument[1] += size
            reader._h_maybe_resume()
        if operation.amount == 0:
            return operation.argument[0]
        if reader._eof:
            raise asyncio.IncompleteReadError(b"", operation.argument[0])
        return reader._h_pending()


READ = ReadSome("Stream.read")
READ_ALL = ReadAll("Stream.read_all")
READ_ALL_WITHIN = ReadAllWithin("Stream.read_all")
READEXACTLY = ReadExactly("Stream.readexactly")
READUNTIL = ReadUntil("Stream.readuntil")
READLINE = Line("Stream.readline")
NEXT_LINE = NextLine("Stream.__anext__")
PEEK = Peek("Stream.peek")
READ_INTO = ReadInto("Stream.read_into")
SKIP = Skip("Stream.skip")
