"""The reads of a Stream: what each returns, takes and leaves, at its limits and at the end."""

from __future__ import annotations

import array
import asyncio
import tracemalloc
from typing import Any, NamedTuple

import pytest
from support.connections import reset, until
from support.duplex import stream_to

import headrace

# Of most streams here.
LIMIT = 10
MIB = 1 << 20


class Case(NamedTuple):
    """What a read does: of these bytes, and of their end, it returns this, or raises an error with
    these attributes, and leaves those."""

    call: Any
    sent: bytes
    result: Any
    left: bytes
    ends: bool = False


class Fails(NamedTuple):
    kind: type[Exception]
    attributes: dict[str, Any]


def into(size):
    """A read into a buffer of *size* bytes; it returns what was put there."""

    async def call(stream):
        buffer = bytearray(b"?" * size)
        count = await stream.read_into(buffer)
        assert buffer[count:] == b"?" * (size - count)
        return bytes(buffer[:count])

    return call


async def lines(stream):
    return [line async for line in stream]


def incomplete(partial, expected, **more):
    return Fails(asyncio.IncompleteReadError, {"partial": partial, "expected": expected, **more})


OVERRUN = Fails(asyncio.LimitOverrunError, {})
REFUSED = Fails(ValueError, {})

# What a byte-wise peer changes: these return as soon as there is anything.
SOME = {
    "read, fewer": Case(lambda s: s.read(3), b"abcdef", b"abc", b"def"),
    "read, as much": Case(lambda s: s.read(3), b"abc", b"abc", b""),
    "read, more": Case(lambda s: s.read(9), b"abc", b"abc", b""),
    "read, any": Case(lambda s: s.read(), b"abc", b"abc", b""),
    "into, fewer": Case(into(3), b"abcdef", b"abc", b"def"),
    "into, more": Case(into(9), b"abc", b"abc", b""),
    "skip, and the end": Case(lambda s: s.skip(3), b"abcdef", 3, b"def", True),
}
WHOLE = {
    "read, none": Case(lambda s: s.read(0), b"abc", b"", b"abc"),
    "read, end": Case(lambda s: s.read(3), b"", b"", b"", True),
    "into, none": Case(into(0), b"abc", b"", b"abc"),
    "into, end": Case(into(3), b"", b"", b"", True),
    "exactly": Case(lambda s: s.readexactly(4), b"abcdef", b"abcd", b"ef"),
    "exactly, none": Case(lambda s: s.readexactly(0), b"abc", b"", b"abc"),
    "exactly, all": Case(lambda s: s.readexactly(3), b"abc", b"abc", b""),
    "exactly, above the limit": Case(
        lambda s: s.readexactly(35), b"abcde" * 8, b"abcde" * 7, b"abcde"
    ),
    "exactly, ends before": Case(
        lambda s: s.readexactly(5), b"abc", incomplete(b"abc", 5), b"", True
    ),
    "exactly, at the end": Case(lambda s: s.readexactly(5), b"", incomplete(b"", 5), b"", True),
    "until": Case(lambda s: s.readuntil(), b"ab\ncd", b"ab\n", b"cd"),
    "until, two": Case(lambda s: s.readuntil(b";;"), b"a;b;;cd", b"a;b;;", b"cd"),
    "until, bytearray": Case(lambda s: s.readuntil(bytearray(b";")), b"ab;cd", b"ab;", b"cd"),
    "until, memoryview": Case(lambda s: s.readuntil(memoryview(b";")), b"ab;cd", b"ab;", b"cd"),
    "until, one of": Case(lambda s: s.readuntil((b"!", b";;")), b"a;;b!", b"a;;", b"b!"),
    "until, none before": Case(lambda s: s.readuntil(b";"), b";cd", b";", b"cd"),
    "until, at the limit": Case(
        lambda s: s.readuntil(b";"), b"x" * LIMIT + b";c", b"x" * LIMIT + b";", b"c"
    ),
    "until, above the limit": Case(
        lambda s: s.readuntil(b";"), b"x" * (LIMIT + 1) + b";c", OVERRUN, b"x" * (LIMIT + 1) + b";c"
    ),
    "until, at a limit of its own": Case(
        lambda s: s.readuntil(b";", limit=3), b"abc;d", b"abc;", b"d"
    ),
    "until, above a limit of its own": Case(
        lambda s: s.readuntil(b";", limit=2), b"abc;d", OVERRUN, b"abc;d"
    ),
    "until, a limit of 0": Case(lambda s: s.readuntil(b";", limit=0), b";d", b";", b"d"),
    "until, a larger limit": Case(
        lambda s: s.readuntil(b";", limit=50), b"x" * 50 + b";d", b"x" * 50 + b";", b"d"
    ),
    "until, ends before": Case(
        lambda s: s.readuntil(b";"), b"abc", incomplete(b"abc", None), b"", True
    ),
    "until, ends before, limit": Case(
        lambda s: s.readuntil(b";", limit=50), b"abc", incomplete(b"abc", None), b"", True
    ),
    "line": Case(lambda s: s.readline(), b"ab\ncd", b"ab\n", b"cd"),
    "line, empty": Case(lambda s: s.readline(), b"\ncd", b"\n", b"cd"),
    "line, at the limit": Case(
        lambda s: s.readline(), b"x" * LIMIT + b"\nc", b"x" * LIMIT + b"\n", b"c"
    ),
    "line, above the limit": Case(
        lambda s: s.readline(), b"x" * (LIMIT + 1) + b"\nc", OVERRUN, b"x" * (LIMIT + 1) + b"\nc"
    ),
    "line, above a limit of its own": Case(
        lambda s: s.readline(limit=2), b"abc\nd", OVERRUN, b"abc\nd"
    ),
    "line, a larger limit": Case(
        lambda s: s.readline(limit=50), b"x" * 50 + b"\nd", b"x" * 50 + b"\n", b"d"
    ),
    "line, what is left": Case(lambda s: s.readline(), b"abc", b"abc", b"", True),
    "line, what is left, limit": Case(lambda s: s.readline(limit=3), b"abc", b"abc", b"", True),
    "line, end": Case(lambda s: s.readline(), b"", b"", b"", True),
    "lines": Case(lines, b"ab\n\ncd", [b"ab\n", b"\n", b"cd"], b"", True),
    "lines, one too long": Case(lines, b"x" * 20 + b"\n", OVERRUN, b"x" * 20 + b"\n", True),
    "all": Case(lambda s: s.read_all(), b"abc" * 20, b"abc" * 20, b"", True),
    "all, end": Case(lambda s: s.read_all(), b"", b"", b"", True),
    "all, at its limit": Case(lambda s: s.read_all(limit=30), b"abc" * 10, b"abc" * 10, b"", True),
    "all, above its limit": Case(
        lambda s: s.read_all(limit=5), b"abcdef", OVERRUN, b"abcdef", True
    ),
    "all, above its limit, no end": Case(
        lambda s: s.read_all(limit=5), b"abcdef", OVERRUN, b"abcdef"
    ),
    "all, none allowed": Case(lambda s: s.read_all(limit=0), b"", b"", b"", True),
    "peek": Case(lambda s: s.peek(3), b"abcdef", b"abc", b"abcdef"),
    "peek, none": Case(lambda s: s.peek(0), b"abc", b"", b"abc"),
    "peek, the limit": Case(lambda s: s.peek(LIMIT), b"ab" * LIMIT, b"ab" * 5, b"ab" * LIMIT),
    "peek, fewer at the end": Case(lambda s: s.peek(5), b"abc", b"abc", b"abc", True),
    "peek, end": Case(lambda s: s.peek(5), b"", b"", b"", True),
    "peek, above the limit": Case(lambda s: s.peek(LIMIT + 1), b"abc", REFUSED, b"abc"),
    "peek, negative": Case(lambda s: s.peek(-1), b"abc", REFUSED, b"abc"),
    "exactly, negative": Case(lambda s: s.readexactly(-1), b"abc", REFUSED, b"abc"),
    "until, no separator": Case(lambda s: s.readuntil(b""), b"abc", REFUSED, b"abc"),
    "until, one of none": Case(lambda s: s.readuntil(()), b"abc", REFUSED, b"abc"),
    "until, no bytes": Case(lambda s: s.readuntil(5), b"abc", Fails(TypeError, {}), b"abc"),
    "skip": Case(lambda s: s.skip(3), b"abcdef", 3, b"def"),
    "skip, none": Case(lambda s: s.skip(0), b"abc", 0, b"abc"),
    "skip, above the limit": Case(lambda s: s.skip(35), b"abcde" * 8, 35, b"abcde"),
    "skip, ends before": Case(
        lambda s: s.skip(7), b"abc", incomplete(b"", 7, transferred=3), b"", True
    ),
}


async def compare(reading, case):
    """Compare what *reading* does with *case*."""
    if isinstance(case.result, Fails):
        with pytest.raises(case.result.kind) as caught:
            await reading
        for name, value in case.result.attributes.items():
            assert getattr(caught.value, name) == value
        return
    result = await reading
    assert type(result) is type(case.result)
    assert result == case.result


@pytest.mark.parametrize("case", [*SOME.values(), *WHOLE.values()], ids=[*SOME, *WHOLE])
def test_what_is_there(run, way, case):
    """Of what has come it takes what it returns, and leaves the rest: also where it fails."""

    async def main():
        async with stream_to(way, limit=LIMIT) as (stream, peer):
            if case.sent:
                peer.send(case.sent)
            if case.ends:
                peer.shutdown(1)
            # More than twice the limit pauses the transport.
            await until(lambda: stream.buffered >= min(len(case.sent), 2 * LIMIT))
            await compare(case.call(stream), case)
            if not case.ends:
                peer.shutdown(1)
            assert await stream.read_all() == case.left
            assert stream.bytes_read == len(case.sent)
            assert stream.at_eof()

    run(main)


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_byte_by_byte(run, way, case):
    """The same where every byte comes by itself, while it waits."""

    async def main():
        async with stream_to(way, limit=LIMIT) as (stream, peer):
            reading = asyncio.ensure_future(compare(case.call(stream), case))
            for index in range(len(case.sent)):
                peer.send(case.sent[index : index + 1])
                await asyncio.sleep(0)
            if case.ends:
                peer.shutdown(1)
            await reading
            if not case.ends:
                peer.shutdown(1)
            assert await stream.read_all() == case.left

    run(main)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.read(-1), ValueError),
        (lambda s: s.readuntil(limit=-1), ValueError),
        (lambda s: s.readline(limit=-1), ValueError),
        (lambda s: s.read_all(limit=-1), ValueError),
        (lambda s: s.read_into(b"constant"), TypeError),
        (lambda s: s.read_into(memoryview(b"constant")), TypeError),
        (lambda s: s.read_into("text"), TypeError),
        (lambda s: s.read_into(memoryview(bytearray(4))[::2]), TypeError),
        (lambda s: s.read(timeout=-1), ValueError),
        (lambda s: s.readexactly(1.5), TypeError),
    ],
)
def test_told_at_the_call(run, way, call, error):
    """What is wrong in itself is told at the call, and leaves nothing that was never awaited."""

    async def main():
        async with stream_to(way) as (stream, _):
            with pytest.raises(error):
                call(stream)

    run(main)


def test_unread_beside_a_skip(run, way):
    """What is put back while a skip waits is skipped too, and counted."""

    async def main():
        async with stream_to(way) as (stream, peer):
            skipping = asyncio.ensure_future(stream.skip(5))
            await asyncio.sleep(0)
            stream.unread(b"ab")
            await asyncio.sleep(0.01)
            peer.shutdown(1)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await skipping
            assert caught.value.transferred == 2

    run(main)


def test_skip_checks_when_it_is_awaited(run, way):
    """skip() of less than nothing is refused."""

    async def main():
        async with stream_to(way) as (stream, _):
            with pytest.raises(ValueError, match="negative"):
                await stream.skip(-1)

    run(main)


def test_errors_name_the_stream_s_method(run, way):
    """Where two read at once the second is told which method was called; the first goes on."""

    async def main():
        async with stream_to(way) as (stream, peer):
            first = asyncio.ensure_future(stream.readexactly(3))
            await until(lambda: stream.reader._waiter is not None)
            for call in (stream.readline, stream.__anext__):
                with pytest.raises(RuntimeError, match=r"^readline\(\) called while another"):
                    await call()
            calls = {
                "read": stream.read,
                "read_all": stream.read_all,
                "peek": lambda: stream.peek(5),
                "read_into": lambda: stream.read_into(bytearray(5)),
                "skip": lambda: stream.skip(5),
            }
            for name, call in calls.items():
                with pytest.raises(RuntimeError, match=rf"^{name}\(\) called while another"):
                    await call()
            peer.send(b"abc")
            assert await first == b"abc"

    run(main)


# ---- unread


def test_unread(run, way):
    """unread() puts bytes-like objects in front of what is there, the last one first."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.send(b"world")
            await stream.peek(5)
            stream.unread(b"lo ")
            stream.unread(bytearray(b"el"))
            stream.unread(memoryview(b"xHx")[1:2])
            stream.unread(b"")
            assert stream.buffered == 11
            assert await stream.peek(11) == b"Hello world"
            assert await stream.readexactly(11) == b"Hello world"
            with pytest.raises(TypeError):
                stream.unread("text")
            assert stream.buffered == 0

    run(main)


def test_unread_wakes(run, way):
    """A read that waits is woken by what is put back, where that does."""

    async def main():
        async with stream_to(way) as (stream, peer):
            reading = asyncio.ensure_future(stream.readline())
            await until(lambda: stream.reader._waiter is not None)
            stream.unread(b"line\nmore")
            assert await reading == b"line\n"
            assert stream.read_nowait() == b"more"

    run(main)


def test_unread_at_the_end(run, way):
    """After the end, what is put back is read, and then it is the end again."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.send(b"abc")
            peer.shutdown(1)
            assert await stream.read_all() == b"abc"
            assert stream.at_eof()
            stream.unread(b"bc")
            assert not stream.at_eof()
            assert await stream.peek(5) == b"bc"
            assert await stream.read() == b"bc"
            assert await stream.read() == b""
            assert stream.at_eof()

    run(main)


def test_unread_more_than_the_limit(run, way):
    """More than the limit may be put back; the peer's bytes follow it."""

    async def main():
        async with stream_to(way, limit=LIMIT) as (stream, peer):
            stream.unread(b"x" * 100)
            peer.send(b"y" * 50)
            assert await stream.readexactly(150) == b"x" * 100 + b"y" * 50

    run(main)


# ---- read_nowait


def test_read_nowait(run, way):
    """read_nowait() takes what is there, never waits, and says nothing of the end."""

    async def main():
        async with stream_to(way) as (stream, peer):
            assert stream.read_nowait() == b""
            assert stream.read_nowait(5) == b""
            peer.send(b"abcdef")
            await stream.peek(6)
            assert stream.read_nowait(0) == b""
            assert stream.read_nowait(2) == b"ab"
            assert stream.read_nowait(100) == b"cdef"
            peer.shutdown(1)
            assert await stream.read() == b""
            assert stream.read_nowait() == b""

    run(main)


def test_read_nowait_resumes(run, way):
    """It lets a transport go on that was paused for what it took."""

    async def main():
        async with stream_to(way, limit=LIMIT) as (stream, peer):
            data = bytes(range(256)) * 8
            peer.send(data)
            peer.shutdown(1)
            taken = b""
            while len(taken) < len(data):
                await until(lambda: stream.buffered)
                taken += stream.read_nowait()
            assert taken == data

    run(main)


# ---- read_into


def test_read_into_any_buffer(run, way):
    """The buffer may be an array, or a part of one: what is beside it stays."""

    async def main():
        async with stream_to(way) as (stream, peer):
            numbers = array.array("I", [0, 0, 0])
            whole = bytearray(b"0123456789")
            peer.send(b"\1\0\0\0\2\0\0\0" + b"abc")
            await stream.peek(11)
            assert await stream.read_into(memoryview(numbers)[:2]) == 8
            assert numbers == array.array("I", [1, 2, 0])
            assert await stream.read_into(memoryview(whole)[4:6]) == 2
            assert whole == b"0123ab6789"

    run(main)


def test_read_into_after_a_cancellation(run, way):
    """A buffer is never written once the read was cancelled."""

    async def main():
        async with stream_to(way) as (stream, peer):
            buffer = bytearray(3)
            reading = asyncio.ensure_future(stream.read_into(buffer))
            await until(lambda: stream.reader._waiter is not None)
            peer.send(b"abc")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await until(lambda: stream.buffered == 3)
            assert buffer == bytes(3)
            assert await stream.read() == b"abc"

    run(main)


# ---- much


async def flood(peer, size):
    """Send *size* bytes, in a thread."""
    peer.settimeout(None)
    block = bytes(range(256)) * 256

    def send():
        for _ in range(size // len(block)):
            peer.sendall(block)

    await asyncio.get_running_loop().run_in_executor(None, send)


@pytest.mark.parametrize("name", ["skip", "read_into", "read"])
def test_memory_is_flat(run, way, name):
    """20 MiB go through skip(), read_into() and read() in little memory."""
    size = 20 * MIB

    async def by_read_into(stream):
        buffer = bytearray(65536)
        count = 0
        while count < size:
            got = await stream.read_into(buffer)
            # Every byte is where it should be.
            assert buffer[0] == count % 256 and buffer[got - 1] == (count + got - 1) % 256
            count += got

    async def by_read(stream):
        count = 0
        while count < size:
            count += len(await stream.read())

    async def main():
        async with stream_to(way) as (stream, peer):
            call = {"skip": lambda each: each.skip(size), "read": by_read}.get(name, by_read_into)
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                sending = asyncio.ensure_future(flood(peer, size))
                await call(stream)
                peak = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            await sending
            assert peak < 2 * MIB
            assert stream.bytes_read == size
            assert stream.buffered == 0

    run(main)


# ---- ends


KINDS = {
    "readexactly": lambda s: s.readexactly(9),
    "readuntil": lambda s: s.readuntil(b";"),
    "readline": lambda s: s.readline(),
    "read_all": lambda s: s.read_all(),
    "read_all within": lambda s: s.read_all(limit=50),
    "peek": lambda s: s.peek(9),
    "lines": lines,
}


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("call", KINDS.values(), ids=KINDS)
def test_loss(run, way, call, waits):
    """Where the connection breaks, a read that lacks bytes raises that, and leaves what came."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.send(b"abc")
            await stream.peek(3)
            reading = asyncio.ensure_future(call(stream)) if waits else None
            if waits:
                await until(lambda: stream.reader._waiter is not None)
            reset(peer)
            if not waits:
                await until(lambda: stream.reader.exception() is not None)
                reading = call(stream)
            with pytest.raises(ConnectionResetError):
                await reading
            assert stream.buffered == 3
            assert await stream.peek(3) == b"abc"
            assert await stream.readexactly(2) == b"ab"
            buffer = bytearray(9)
            assert await stream.read_into(buffer) == 1
            for again in (stream.read, lambda: stream.read_into(buffer)):
                with pytest.raises(ConnectionResetError):
                    await again()
            with pytest.raises(ConnectionResetError) as caught:
                await stream.skip(1)
            assert caught.value.transferred == 0

    run(main)


def test_skip_tells_how_much_is_gone(run, way):
    """Whatever ends a skip() has ``transferred``: the end, a loss, a timeout, a cancellation."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.send(b"ab")
            await stream.peek(2)
            with pytest.raises(headrace.ReadTimeout) as caught:
                await stream.skip(10, timeout=0.01)
            assert caught.value.transferred == 2
            skipping = asyncio.ensure_future(stream.skip(10))
            peer.send(b"cde")
            await until(lambda: stream.bytes_read == 5)
            skipping.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await skipping
            assert cancelled.value.transferred == 3
            peer.send(b"f")
            await stream.peek(1)
            skipping = asyncio.ensure_future(stream.skip(10))
            await until(lambda: stream.bytes_read == 6)
            reset(peer)
            with pytest.raises(ConnectionResetError) as lost:
                await skipping
            assert lost.value.transferred == 1

    run(main)


def test_abort(run, way):
    """After abort() a read raises ConnectionAbortedError, also one that waits, and whatever is
    buffered."""

    async def main():
        async with stream_to(way) as (stream, peer):
            peer.send(b"abc")
            await stream.peek(3)
            reading = asyncio.ensure_future(stream.readexactly(5))
            await until(lambda: stream.reader._waiter is not None)
            stream.abort()
            for call in (lambda: reading, stream.read, stream.readline, lambda: stream.skip(1)):
                with pytest.raises(ConnectionAbortedError):
                    await call()
            with pytest.raises(ConnectionAbortedError):
                stream.read_nowait()

    run(main)
