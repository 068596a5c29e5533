"""What a reader should do, in short: the reads that there are, and a model that says what each does
with what is buffered."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from hypothesis import strategies as st

FOUND = "Separator is found, but chunk is longer than limit"
NOT_FOUND = "Separator is not found, and chunk exceed the limit"


class Broken(ConnectionResetError):
    """What broke a connection of these tests."""


# ---- reads


@dataclasses.dataclass(frozen=True)
class Read:
    """One read: the name of the method and its argument."""

    name: str
    argument: Any = None

    def start(self, reader):
        method = getattr(reader, self.name)
        return method() if self.argument is None else method(self.argument)

    @property
    def waits_in(self):
        """What asyncio calls the method where two wait at once."""
        return "readuntil" if self.name in ("readline", "__anext__") else self.name


# Few letters, so that a separator is often there, in two pieces, or there twice.
piece = st.lists(st.sampled_from(b"ab\n"), max_size=9).map(bytes)
separator = st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=3).map(bytes)
separators = st.lists(separator, min_size=1, max_size=3).map(tuple)
mistaken = st.sampled_from([b"", (), (b"a", b""), bytearray()])

single_reads = st.one_of(
    st.builds(Read, st.just("read"), st.integers(-2, 12)),
    st.builds(Read, st.just("read")),
    st.builds(Read, st.just("readexactly"), st.one_of(st.integers(-1, 12), st.integers(1, 80))),
    st.builds(
        Read,
        st.just("readuntil"),
        st.one_of(separator, separator.map(bytearray), separator.map(memoryview)),
    ),
    st.builds(Read, st.just("readuntil")),
    st.builds(Read, st.just("readline")),
    st.builds(Read, st.just("__anext__")),
)
# Seldom a mistake: it ends at once.
reads = st.one_of(
    *[single_reads] * 3,
    *[st.builds(Read, st.just("readuntil"), separators)] * 5,
    st.builds(Read, st.just("readuntil"), mistaken),
)


# ---- the model


@dataclasses.dataclass
class Outcome:
    """What a read does: it waits, or takes bytes and returns a value or raises an error."""

    taken: int = 0
    value: object = None
    error: BaseException | None = None
    waits: bool = False


WAITS = Outcome(waits=True)


@dataclasses.dataclass
class Model:
    """What a reader should hold: the bytes, and how the stream ended."""

    limit: int
    buffered: bytes = b""
    eof: bool = False
    error: BaseException | None = None
    lost: BaseException | None = None

    @property
    def over(self):
        """Whether nothing more can come, or be read."""
        return self.eof or self.error is not None or self.lost is not None

    def outcome(self, read):
        """Return what *read* does now."""
        name, argument = read.name, read.argument
        if name == "readexactly" and argument < 0:
            return Outcome(error=ValueError("readexactly size can not be less than zero"))
        if name == "readuntil":
            wanted = (
                (b"\n",)
                if argument is None
                else argument
                if isinstance(argument, tuple)
                else (argument,)
            )
            if not wanted:
                return Outcome(error=ValueError("Separator should contain at least one element"))
            if not all(map(len, wanted)):
                return Outcome(error=ValueError("Separator should be at least one-byte string"))
            wanted = [bytes(each) for each in wanted]
        if self.error is not None:
            return Outcome(error=self.error)
        if name == "read":
            return self.read(-1 if argument is None else argument)
        if name == "readexactly":
            return self.readexactly(argument)
        if name == "readuntil":
            return self.readuntil(wanted)
        line = self.readline()
        if name == "__anext__" and line.value == b"":
            return Outcome(error=StopAsyncIteration())
        return line

    def nothing_yet(self):
        """A read that the buffer does not satisfy waits for more, unless no more can come."""
        return WAITS if self.lost is None else Outcome(error=self.lost)

    def take(self, size):
        return Outcome(size, self.buffered[:size])

    def read(self, size):
        if size < 0:
            return self.take(len(self.buffered)) if self.eof else self.nothing_yet()
        if size == 0 or self.buffered or self.eof:
            return self.take(min(size, len(self.buffered)))
        return self.nothing_yet()

    def readexactly(self, size):
        if len(self.buffered) >= size:
            return self.take(size)
        return self.incomplete(size) if self.eof else self.nothing_yet()

    def incomplete(self, expected):
        return Outcome(
            len(self.buffered), error=asyncio.IncompleteReadError(self.buffered, expected)
        )

    def readuntil(self, wanted):
        # The match that ends first; of those that end there the shortest.
        ends = [
            (self.buffered.find(each) + len(each), len(each))
            for each in wanted
            if each in self.buffered
        ]
        if ends:
            end, size = min(ends)
            if end - size > self.limit:
                return Outcome(error=asyncio.LimitOverrunError(FOUND, end - size))
            return self.take(end)
        searched = len(self.buffered) + 1 - max(map(len, wanted))
        if searched > self.limit:
            return Outcome(error=asyncio.LimitOverrunError(NOT_FOUND, searched))
        return self.incomplete(None) if self.eof else self.nothing_yet()

    def readline(self):
        found = self.readuntil([b"\n"])
        if isinstance(found.error, asyncio.IncompleteReadError):
            return self.take(found.taken)
        if isinstance(found.error, asyncio.LimitOverrunError):
            line, newline, _ = self.buffered.partition(b"\n")
            return Outcome(len(line) + len(newline), error=ValueError(found.error.args[0]))
        return found


def check(expected, value, error):
    """Compare what a read did with what it should have done."""
    if expected.error is None:
        assert error is None, repr(error)
        assert type(value) is bytes
        assert value == expected.value
        return
    assert type(error) is type(expected.error), repr(error)
    if isinstance(error, (asyncio.IncompleteReadError, asyncio.LimitOverrunError)):
        assert vars(error) == vars(expected.error)
    if isinstance(error, (ValueError, asyncio.LimitOverrunError)):
        # After asyncio's words come the figures.
        assert error.args[0].startswith(expected.error.args[0])
    elif isinstance(error, (KeyError, Broken)):
        assert error is expected.error


async def directly(read, reader):
    return await read.start(reader)


def ended(task):
    """Return a finished task's value and error."""
    if task.cancelled():
        return None, asyncio.CancelledError()
    error = task.exception()
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopAsyncIteration):
        error = error.__cause__  # as a coroutine raises it
    return (None, error) if error else (task.result(), None)
