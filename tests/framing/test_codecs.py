"""Each codec beside a reference of a few lines: the same frames and the same errors, whatever the
chunks."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import BadFrame, FrameTooLarge, IncompleteFrame
from headrace.framing import (
    Codec,
    Decoder,
    Delimited,
    Fixed,
    JSONLines,
    LengthPrefixed,
    Lines,
    Need,
    Netstring,
    Varint,
)


def decoded(codec, chunks):
    """Return the frames of *chunks*, and the class of what ended them, or None."""
    decoder = Decoder(codec)
    frames = []
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            frames += decoder_frames(decoder)
        decoder.feed_eof()
        frames += decoder_frames(decoder)
    except Stop as stop:
        return frames + stop.frames, type(stop.__cause__)
    return frames, None


class Stop(Exception):
    """A decoder failed behind these *frames*."""

    def __init__(self, frames):
        super().__init__()
        self.frames = frames


def decoder_frames(decoder):
    frames = []
    try:
        for frame in decoder:
            frames.append(frame)
    except (BadFrame, FrameTooLarge, IncompleteFrame) as error:
        raise Stop(frames) from error
    return frames


def cut(data, cuts):
    """Return *data* in pieces that end at *cuts*."""
    places = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 1 << 20), max_size=8)


# ---- references: whole input -> (frames, error or None)


def length_prefixed(data, size, byteorder, limit, offset, adjust, skip):
    frames = []
    head = offset + size
    while data:
        if len(data) < head:
            return frames, IncompleteFrame
        whole = head + int.from_bytes(data[offset:head], byteorder) + adjust
        if whole > limit:
            return frames, FrameTooLarge
        if whole < head or whole < skip:
            return frames, BadFrame
        if len(data) < whole:
            return frames, IncompleteFrame
        frames.append(data[skip:whole])
        data = data[whole:]
    return frames, None


def varint(data, limit, offset, max_bytes):
    frames = []
    while data:
        value = shift = 0
        at = offset
        while True:
            if at >= len(data):
                return frames, IncompleteFrame
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
            if at - offset == max_bytes:
                return frames, BadFrame
        if at + value > limit:
            return frames, FrameTooLarge
        if len(data) < at + value:
            return frames, IncompleteFrame
        frames.append(data[at : at + value])
        data = data[at + value :]
    return frames, None


def netstring(data, limit):
    frames = []
    most = len(str(limit))
    while data:
        digits, colon, rest = data[: most + 1].partition(b":")
        valid = all(48 <= each <= 57 for each in digits) and not (
            len(digits) > 1 and digits[:1] == b"0"
        )
        if not valid or (colon and not digits):
            return frames, BadFrame
        if not colon:
            return frames, FrameTooLarge if len(digits) > most else IncompleteFrame
        start = len(digits) + 1
        whole = start + int(digits) + 1
        if whole > limit:
            return frames, FrameTooLarge
        if len(data) < whole:
            return frames, IncompleteFrame
        if data[whole - 1 : whole] != b",":
            return frames, BadFrame
        frames.append(data[start : whole - 1])
        data = data[whole:]
    return frames, None


def delimited(data, delimiters, limit, strip, last):
    frames = []
    while data:
        found = [(start, -len(each)) for each in delimiters if (start := data.find(each)) >= 0]
        if not found:
            longest = max(map(len, delimiters))
            if len(data) - longest + 1 > limit:
                return frames, FrameTooLarge
            return (frames, IncompleteFrame) if last == "error" else ([*frames, data], None)
        start, negative = min(found)
        if start > limit:
            return frames, FrameTooLarge
        end = start - negative
        frames.append(data[:start] if strip else data[:end])
        data = data[end:]
    return frames, None


def lines(data, limit, keepends):
    frames, error = delimited(data, [b"\n"], limit, False, "yield")
    if keepends:
        return frames, error
    return [
        each[:-2] if each.endswith(b"\r\n") else each[:-1] if each.endswith(b"\n") else each
        for each in frames
    ], error


# Small numbers, so that random bytes make frames.
NEARLY_FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=6), st.sampled_from([b"\0", b"\1", b"\3", b"\0\0\0\2ab", b"\x80"])
    ),
    max_size=20,
).map(b"".join)


@settings(max_examples=300)
@given(
    data=NEARLY_FRAMES,
    cuts=CUTS,
    size=st.sampled_from([1, 2, 3, 4, 8]),
    byteorder=st.sampled_from(["big", "little"]),
    limit=st.integers(16, 40),
    offset=st.integers(0, 3),
    adjust=st.integers(-4, 4),
    skip=st.one_of(st.none(), st.integers(0, 12)),
)
def test_length_prefixed(data, cuts, size, byteorder, limit, offset, adjust, skip):
    """LengthPrefixed does what Netty's formula says, with tokio's default for skip."""
    codec = LengthPrefixed(
        size, byteorder=byteorder, limit=limit, offset=offset, adjust=adjust, skip=skip
    )
    expected = length_prefixed(
        data, size, byteorder, limit, offset, adjust, offset + size if skip is None else skip
    )
    assert decoded(codec, cut(data, cuts)) == expected


@settings(max_examples=200)
@given(
    data=NEARLY_FRAMES,
    cuts=CUTS,
    limit=st.integers(4, 300),
    offset=st.integers(0, 2),
    max_bytes=st.integers(1, 5),
)
def test_varint(data, cuts, limit, offset, max_bytes):
    """Varint reads the lengths of Protocol Buffers, and behind an offset those of MQTT."""
    codec = Varint(limit=limit, offset=offset, max_bytes=max_bytes)
    assert decoded(codec, cut(data, cuts)) == varint(data, limit, offset, max_bytes)


@settings(max_examples=200)
@given(
    data=st.lists(
        st.one_of(st.sampled_from([b"0:,", b"3:abc,", b"12", b":", b",", b"00:,"]), st.binary()),
        max_size=8,
    ).map(b"".join),
    cuts=CUTS,
    limit=st.integers(3, 120),
)
def test_netstring(data, cuts, limit):
    """Netstring takes exactly what the definition allows."""
    assert decoded(Netstring(limit=limit), cut(data, cuts)) == netstring(data, limit)


TEXT = st.lists(st.sampled_from([b"a", b"b", b"c", b"\r", b"\n", b"ab", b"abc"]), max_size=30).map(
    b"".join
)


@settings(max_examples=300)
@given(
    data=TEXT,
    cuts=CUTS,
    delimiters=st.sets(st.sampled_from([b"\n", b"\r\n", b"\r", b"ab", b"abc", b"bc"]), min_size=1),
    strip=st.booleans(),
    last=st.sampled_from(["yield", "error"]),
)
def test_delimited(data, cuts, delimiters, strip, last):
    """Of several delimiters the one counts that begins first, and there the longest, whatever the
    chunks."""
    codec = Delimited(*delimiters, strip=strip, last=last)
    assert decoded(codec, cut(data, cuts)) == delimited(data, delimiters, 65536, strip, last)


@settings(max_examples=200)
@given(data=TEXT, cuts=CUTS, limit=st.integers(1, 12), keepends=st.booleans())
def test_lines(data, cuts, limit, keepends):
    """Lines end with a newline, with or without a carriage return; the last one may have none."""
    frames, error = decoded(Lines(limit=limit, keepends=keepends), cut(data, cuts))
    assert (frames, error) == lines(data, limit, keepends)


@given(data=st.binary(max_size=40), cuts=CUTS, size=st.integers(1, 7))
def test_fixed(data, cuts, size):
    """Fixed frames are all as long."""
    whole = len(data) // size * size
    expected = [data[at : at + size] for at in range(0, whole, size)]
    assert decoded(Fixed(size), cut(data, cuts)) == (
        expected,
        IncompleteFrame if len(data) % size else None,
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    values=st.lists(VALUES, max_size=6), cuts=CUTS, blank=st.sampled_from([b"", b"\n", b" \r\n"])
)
def test_json_lines(values, cuts, blank):
    """JSON lines give back any values; blank lines are passed over, and the last newline may be
    missing."""
    data = blank.join(json.dumps(each).encode() + b"\n" for each in values)
    assert decoded(JSONLines(), cut(data, cuts)) == (values, None)
    assert decoded(JSONLines(), cut(data.rstrip(b"\n"), cuts)) == (values, None)


CODECS = [
    LengthPrefixed(1),
    LengthPrefixed(4),
    LengthPrefixed(2, byteorder="little", adjust=2),
    LengthPrefixed(8),
    Varint(),
    Netstring(),
    Delimited(b"\0|", b"|"),
]


@settings(max_examples=60)
@given(frames=st.lists(st.binary(max_size=200), max_size=8), cuts=CUTS)
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_what_is_encoded_is_decoded(codec, frames, cuts):
    """encode() is the other way of decode(), one frame at a time."""
    frames = [each.replace(b"|", b"").replace(b"\n", b"") for each in frames]
    frames = [each for each in frames if len(each) >= 2]
    data = b"".join(codec.encode(each) for each in frames)
    assert decoded(codec, cut(data, cuts)) == (frames, None)


@pytest.mark.parametrize("length", [0, 127, 128, 1 << 14, 1 << 21])
@pytest.mark.parametrize("cut_at", [1, 2, 3, 4])
def test_a_varint_in_pieces(length, cut_at):
    """A length that comes in two pieces is one length, also where the first piece alone would be
    another (what a decoder of Netty's took it for)."""
    codec = Varint(limit=1 << 22)
    data = codec.encode(bytes(length))
    assert decoded(codec, [data[:cut_at], data[cut_at:]]) == ([bytes(length)], None)


# The first bytes of real conversations, as the protocols define them.
PROTOCOLS = {
    "DNS over TCP": (LengthPrefixed(2), b"\x00\x0c" + bytes(12), [bytes(12)]),
    "Kafka": (
        LengthPrefixed(4),
        b"\x00\x00\x00\x0a\x00\x12\x00\x03\x00\x00\x00\x01\xff\xff",
        [b"\x00\x12\x00\x03\x00\x00\x00\x01\xff\xff"],
    ),
    "PostgreSQL": (
        LengthPrefixed(4, offset=1, adjust=-4, skip=0),
        b"Q\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I",
        [b"Q\x00\x00\x00\x0dSELECT 1\x00", b"Z\x00\x00\x00\x05I"],
    ),
    "MySQL": (
        LengthPrefixed(3, byteorder="little", adjust=1, skip=0),
        b"\x01\x00\x00\x00\x0e\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00",
        [b"\x01\x00\x00\x00\x0e", b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"],
    ),
    "MQTT": (
        Varint(offset=1, max_bytes=4, canonical=True, keep_head=True),
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\xe0\x00",
        [b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\xe0\x00"],
    ),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols(name):
    """The frames of well-known protocols are found byte by byte, and written as they were."""
    codec, data, frames = PROTOCOLS[name]
    assert decoded(codec, [data[at : at + 1] for at in range(len(data))]) == (frames, None)
    assert b"".join(codec.encode(each) for each in frames) == data


@pytest.mark.parametrize("codec", [*CODECS, Fixed(50), Lines(last="error")], ids=repr)
def test_an_end_within_a_frame(codec):
    """A frame that is cut off, after any of its bytes, is IncompleteFrame with all that came."""
    data = codec.encode(bytes(50).replace(b"\0", b"x"))
    for size in range(1, len(data)):
        decoder = Decoder(codec)
        decoder.feed(data[:size])
        decoder.feed_eof()
        with pytest.raises(IncompleteFrame) as caught:
            next(decoder)
        assert (caught.value.partial, caught.value.position) == (data[:size], 0)
        assert decoder.buffered == 0


@pytest.mark.parametrize(
    ("codec", "head"),
    [
        (LengthPrefixed(4, limit=1000), b"\x7f\xff\xff\xff"),
        (LengthPrefixed(8, limit=1000), b"\xff" * 8),
        (Varint(limit=1000), b"\xff\xff\xff\xff\x07"),
        (Netstring(limit=1000), b"1001:"),
        (Netstring(limit=1000), b"99999"),
    ],
)
def test_a_large_claim_costs_nothing(codec, head):
    """A length above the limit is refused when its head is there, before memory is taken, and
    nothing of it is."""
    decoder = Decoder(codec)
    decoder.feed(head)
    tracemalloc.start()
    try:
        for _ in range(2):
            with pytest.raises(FrameTooLarge) as caught:
                next(decoder)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert caught.value.limit == 1000
    assert decoder.buffered == len(head)


def test_a_bad_line_is_one_line():
    """Behind a line that cannot be read, the next one can; the error says where it was."""
    for codec in (Lines(encoding="utf-8"), JSONLines()):
        decoder = Decoder(codec)
        decoder.feed(b"1\n\xff\n2\n")
        assert str(next(decoder)) == "1"
        with pytest.raises(BadFrame) as caught:
            next(decoder)
        assert caught.value.position == 2
        assert str(next(decoder)) == "2"


@pytest.mark.parametrize(
    ("codec", "frame", "error"),
    [
        (LengthPrefixed(1), bytes(256), ValueError),
        (LengthPrefixed(4, limit=100), bytes(97), FrameTooLarge),
        (LengthPrefixed(2, adjust=4), b"abc", ValueError),
        (LengthPrefixed(2, offset=1), b"abc", ValueError),
        (LengthPrefixed(2, skip=0), b"\x00\x05abc", ValueError),
        (LengthPrefixed(4), "text", TypeError),
        (Varint(max_bytes=1), bytes(128), ValueError),
        (Varint(offset=1), b"abc", ValueError),
        (Netstring(limit=10), bytes(8), FrameTooLarge),
        (Fixed(3), b"ab", ValueError),
        (Lines(), b"a\nb", ValueError),
        (Lines(limit=2), b"abc", FrameTooLarge),
        (Delimited(b"ab"), b"xab", ValueError),
        (JSONLines(dumps=lambda value: "a\nb"), 1, ValueError),
        (JSONLines(), {1, 2}, TypeError),
    ],
)
def test_what_cannot_be_encoded(codec, frame, error):
    """A frame that would be read as something else is refused."""
    with pytest.raises(error):
        codec.encode(frame)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LengthPrefixed(5),
        lambda: LengthPrefixed(4, byteorder="middle"),
        lambda: LengthPrefixed(4, limit=3),
        lambda: LengthPrefixed(4, offset=-1),
        lambda: LengthPrefixed(4, skip=-1),
        lambda: Varint(max_bytes=9),
        lambda: Fixed(0),
        lambda: Netstring(limit=2),
        lambda: Lines(limit=0),
        lambda: Lines(last="drop"),
        lambda: Delimited(b""),
        lambda: Codec(0),
    ],
)
def test_what_cannot_be(make):
    """Arguments that make no codec are refused when it is made."""
    with pytest.raises(ValueError):
        make()


class Pairs(Codec[bytes]):
    """Two bytes each; notes how much decode() is given."""

    def __init__(self):
        super().__init__(limit=10)
        self.seen = []

    def decode(self, view):
        self.seen.append(len(view))
        return (bytes(view[:4]), 4) if len(view) >= 4 else Need(4)

    def encode(self, frame):
        return [frame[:2], frame[2:]]


def test_ones_own_codec():
    """decode() of a user's codec is not called again before the bytes are there that it asked
    for."""
    codec = Pairs()
    assert decoded(codec, [b"a", b"b", b"c", b"d", b"ef"]) == ([b"abcd"], IncompleteFrame)
    assert codec.seen == [1, 4, 2]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (Need(11), FrameTooLarge),
        (Need(3), RuntimeError),
        ((b"", 0), RuntimeError),
        ((b"", 4), RuntimeError),
    ],
)
def test_what_decode_must_not_return(returned, error):
    """A codec that asks for too much is too large, and one that goes nowhere is a mistake."""

    class Wrong(Codec[bytes]):
        def decode(self, view):
            return returned

    decoder = Decoder(Wrong(limit=10))
    decoder.feed(b"abc")
    with pytest.raises(error):
        next(decoder)
    assert decoder.buffered == 3


def test_decode_without_a_decoder():
    """decode() of any codec says what the first frame is and how much it takes, or what it
    needs."""
    assert LengthPrefixed(4).decode(memoryview(b"\0\0\0\1ab")) == (b"a", 5)
    assert LengthPrefixed(4).decode(memoryview(b"\0\0\0\5ab")).size == 9
    assert Lines().decode(memoryview(b"ab")).size == 3


def test_no_codec():
    """What is no codec is refused, and says what one is."""
    with pytest.raises(TypeError, match=r"a codec is one of headrace\.framing"):
        Decoder("utf-8")
