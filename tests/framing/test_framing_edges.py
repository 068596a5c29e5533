"""Codecs and frames where bytes are easily lost or invented: delimiters that touch, codecs that are
subclassed, damaged input."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wires import tcp_pair

import headrace
from headrace import BadFrame, FrameTooLarge, IncompleteFrame
from headrace.framing import (
    Codec,
    Decoder,
    Delimited,
    JSONLines,
    LengthPrefixed,
    Lines,
    Need,
    Netstring,
    Varint,
)


@contextlib.asynccontextmanager
async def streams():
    """A Stream, and the plain socket of its peer."""
    ours, peer = tcp_pair()
    pair = await headrace.open_connection(sock=ours)
    with peer:
        async with headrace.Stream(*pair) as stream:
            yield stream, peer


def decoded(codec, data):
    """Return all frames of *data*."""
    decoder = Decoder(codec)
    decoder.feed(data)
    decoder.feed_eof()
    return list(decoder)


# ---- writing what is read as something else

DELIMITERS = [b"a", b"b", b"ab", b"aa", b"aba", b"abc", b"ca"]


@settings(max_examples=500)
@given(
    delimiters=st.lists(st.sampled_from(DELIMITERS), min_size=1, max_size=3, unique=True),
    frames=st.lists(st.text("abc", max_size=4).map(str.encode), max_size=5),
)
def test_delimited_is_read_as_it_was_written(delimiters, frames):
    """What encode() accepts is what the reader gets, whatever frames stand next to each other."""
    codec = Delimited(*delimiters)
    accepted = []
    data = b""
    for frame in frames:
        with contextlib.suppress(ValueError):
            data += codec.encode(frame)
            accepted.append(frame)
    assert decoded(codec, data) == accepted


@settings(max_examples=300)
@given(
    delimiters=st.lists(st.sampled_from(DELIMITERS), min_size=1, max_size=3, unique=True),
    frames=st.lists(st.text("abc", max_size=5).map(str.encode), max_size=5),
)
def test_delimiters_that_stay(delimiters, frames):
    """So it is where a frame has its delimiter with it."""
    codec = Delimited(*delimiters, strip=False)
    accepted = []
    for frame in frames:
        with contextlib.suppress(ValueError):
            accepted.append(codec.encode(frame))
    assert decoded(codec, b"".join(accepted)) == accepted


@pytest.mark.parametrize(
    ("delimiters", "frame"),
    [
        ((b"\n\n",), b"line\n"),
        ((b"\n", b"\r\n"), b"x\r"),
        ((b"\r", b"\r\n"), b"x"),
    ],
)
def test_a_delimiter_that_begins_in_the_frame(delimiters, frame):
    """A frame whose last bytes make a delimiter with the first of what follows is refused."""
    with pytest.raises(ValueError, match="next to it"):
        Delimited(*delimiters).encode(frame)


# ---- subclasses


class Shouting(LengthPrefixed):
    """One of ours, with an encode() of its own."""

    def encode(self, frame):
        return super().encode(frame.upper())


class Numbers(LengthPrefixed):
    """One of ours, with a decode() of its own."""

    def decode(self, view):
        found = super().decode(view)
        return found if isinstance(found, Need) else (int(found[0]), found[1])


class WriteOnly(Codec[bytes]):
    """A codec that nobody reads with."""

    def encode(self, frame):
        return [frame, b"!"]


@pytest.mark.parametrize(
    ("codec", "on_the_wire"),
    [
        (Shouting(2), b"\0\1A\0\2BC"),
        (Numbers(2), b"\0\1a\0\2bc"),
        (WriteOnly(), b"a!bc!"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_subclass_encodes(run, codec, on_the_wire):
    """write() calls the encode() of a subclass, also where decode() is ours."""

    async def main():
        async with streams() as (stream, peer):
            frames = stream.framed(codec)
            await frames.write(b"a", b"bc")
            assert peer.recv(100) == on_the_wire

    run(main)


def test_a_subclass_decodes():
    """decode() of a subclass may call ours."""
    assert decoded(Numbers(1), b"\1" + b"7" + b"\2" + b"42") == [7, 42]


class Pairs(Codec[bytes]):
    """Two bytes each; keeps every view that it was given."""

    def __init__(self):
        super().__init__()
        self.views = []

    def decode(self, view):
        self.views.append(view)
        return (bytes(view[:2]), 2) if len(view) >= 2 else Need(2)


def test_the_views_of_ones_own_codec_stay():
    """decode() gets views, not copies; they are read-only, and nothing changes in them later."""
    codec = Pairs()
    decoder = Decoder(codec)
    data = bytes(range(250)) * 2
    frames = []
    # Pieces of odd sizes: the buffer is empty, filled up, moved.
    for at in range(0, len(data), 7):
        decoder.feed(data[at : at + 7])
        if at % 3:
            frames += decoder
    frames += decoder
    assert b"".join(frames) == data
    at = 0
    for view in codec.views:
        assert view.readonly
        assert bytes(view) == data[at : at + len(view)]
        at += 2 if len(view) >= 2 else 0
    shared = [a.obj is b.obj for a, b in itertools.pairwise(codec.views)]
    assert any(shared)


def test_ones_own_codec_and_much_input():
    """What is there is not copied for each frame: the memory at once is that of the input."""
    data = bytes(1 << 20)
    decoder = Decoder(Pairs())
    decoder.feed(data)
    tracemalloc.start()
    try:
        for _ in range(10):
            next(decoder)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# ---- damaged input

SMALL_LIMIT = 200
LIMITED = [
    LengthPrefixed(2, limit=SMALL_LIMIT),
    LengthPrefixed(8, limit=SMALL_LIMIT, adjust=-8),
    Varint(limit=SMALL_LIMIT),
    Netstring(limit=SMALL_LIMIT),
    Lines(limit=SMALL_LIMIT, encoding="utf-8"),
    Delimited(b"\r\n", b"\0", limit=SMALL_LIMIT),
    JSONLines(limit=SMALL_LIMIT),
]


@settings(max_examples=100)
@given(
    frames=st.lists(st.text("ab1", min_size=8, max_size=60).map(str.encode), max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=6),
)
@pytest.mark.parametrize("codec", LIMITED, ids=repr)
def test_damaged_frames(codec, frames, changes):
    """Of frames with some bytes changed come frames within the limit, or one of our errors; the
    reading comes to an end, and every byte is in a frame, in an error, or still there."""
    is_json = isinstance(codec, JSONLines)
    data = bytearray(b"".join(codec.encode(each.decode() if is_json else each) for each in frames))
    for at, value in changes:
        if data:
            data[at % len(data)] = value
    decoder = Decoder(codec)
    decoder.feed(data)
    decoder.feed_eof()
    left = len(data)
    partial = None
    for _ in range(2 * len(data) + 2):
        try:
            frame = next(decoder)
        except StopIteration:
            break
        except FrameTooLarge:
            assert decoder.buffered == left
            return
        except BadFrame:
            if decoder.buffered == left:
                return
        except IncompleteFrame as error:
            partial = error.partial
        else:
            assert is_json or len(frame) <= SMALL_LIMIT
        assert decoder.buffered < left
        if partial is not None:
            assert (len(partial), decoder.buffered) == (min(left, SMALL_LIMIT), 0)
        left = decoder.buffered
    assert decoder.buffered == 0


def test_json_that_is_nested_too_deeply():
    """It is BadFrame and no RecursionError; the next line can be read."""
    decoder = Decoder(JSONLines())
    decoder.feed(b"[" * 200_000 + b"\n1\n")
    with pytest.raises(BadFrame):
        next(decoder)
    assert next(decoder) == 1


# ---- Framed


@pytest.mark.parametrize("codec", [Lines(limit=10), Delimited(b"\r", b"\r\n", limit=10)], ids=repr)
def test_discard_of_a_line_that_is_all_there(run, codec):
    """Its end goes with it: no empty frame is left behind."""

    async def main():
        async with streams() as (stream, peer):
            end = b"\n" if isinstance(codec, Lines) else b"\r\n"
            peer.send(b"x" * 50 + end + b"next" + end + b"y" * 50 + end[:1])
            peer.shutdown(1)
            await stream.peek(100)
            frames = stream.framed(codec)
            with pytest.raises(FrameTooLarge):
                await frames.read()
            await frames.discard()
            assert await frames.read() == b"next"
            # The end of input tells that the last delimiter does not grow.
            with pytest.raises(FrameTooLarge):
                await frames.read()
            await frames.discard()
            with pytest.raises(headrace.EndOfStream):
                await frames.read()

    run(main)


@pytest.mark.parametrize("codec", [Lines(encoding="ascii"), JSONLines()], ids=repr)
def test_no_views_of_a_last_line(run, codec):
    """Where there can be no views, an unfinished last line is not lost with the error."""

    async def main():
        async with streams() as (stream, peer):
            peer.send(b"12")
            peer.shutdown(1)
            frames = stream.framed(codec)
            with pytest.raises(ValueError, match="no bytes"):
                await frames.read_many(views=True)
            assert str(await frames.read()) == "12"

    run(main)


def test_lines_longer_than_the_stream_buffers(run):
    """A line may be longer than what the stream buffers while nobody reads."""

    async def main():
        ours, peer = tcp_pair()
        pair = await headrace.open_connection(sock=ours, limit=1000)
        with peer:
            async with headrace.Stream(*pair) as stream:
                line = b"x" * 300_000
                loop = asyncio.get_running_loop()
                sending = loop.run_in_executor(None, peer.sendall, line + b"\nnext\n")
                frames = stream.framed(Lines(limit=1 << 20))
                assert await frames.read() == line
                assert await frames.read() == b"next"
                await sending

    run(main)


def test_a_carriage_return_at_the_end_of_a_line():
    """The reader would take it for a part of the line's end; one within the line is nothing."""
    with pytest.raises(ValueError, match="carriage return"):
        Lines().encode(b"a\r")
    assert Lines().encode(b"a\rb") == b"a\rb\n"
    assert Lines(keepends=True).encode(b"a\r\n") == b"a\r\n"


@pytest.mark.parametrize("line", [b"\xef\xbb\xbf1\n", "1\n".encode("utf-16"), b"\xff\n"])
def test_json_is_utf_8(line):
    """JSON Lines are UTF-8 without a byte order mark; json.loads() would take more."""
    decoder = Decoder(JSONLines())
    decoder.feed(line)
    decoder.feed_eof()
    with pytest.raises(headrace.BadFrame):
        next(decoder)


def test_a_codec_without_its_constructor():
    """One's own codec that forgets super().__init__() is told so, and not that all frames are too
    large."""

    class Forgetful(Codec):
        def __init__(self):
            pass

        def decode(self, view):
            return bytes(view), len(view)

    with pytest.raises(RuntimeError, match=r"super\(\)"):
        Decoder(Forgetful())
