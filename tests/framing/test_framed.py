"""Framed: frames over a Stream: waits, batches, ends, errors, and what stays where it is."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.wires import tcp_pair

import headrace
from headrace.framing import Codec, Delimited, JSONLines, LengthPrefixed, Lines, Need


@pytest.fixture(params=["native", "portable"])
def way(request):
    from headrace._transport import backend

    if request.param == "native" and backend.native is None:
        pytest.skip("the pure-Python build has the portable way only")
    return request.param


@contextlib.asynccontextmanager
async def streams(way, **options):
    """A Stream, and the plain socket of its peer."""
    ours, peer = tcp_pair()
    pair = await headrace.open_connection(sock=ours, way=way, **options)
    with peer:
        async with headrace.Stream(*pair) as stream:
            yield stream, peer


def sent(*frames):
    """Return *frames* as LengthPrefixed(4) writes them."""
    return b"".join(len(each).to_bytes(4, "big") + each for each in frames)


def test_one_at_a_time(run, way):
    """read() returns each frame; a wait is over when a whole frame is there; the end is
    EndOfStream, and ends an iteration."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4))
            peer.send(sent(b"one", b"", b"three"))
            assert [await frames.read() for _ in range(3)] == [b"one", b"", b"three"]
            waiting = asyncio.ensure_future(frames.read())
            for piece in (b"\0\0", b"\0\4fo", b"u"):
                peer.send(piece)
                await asyncio.sleep(0.01)
                assert not waiting.done()
            peer.send(b"r")
            assert await waiting == b"four"
            peer.send(sent(b"last"))
            peer.shutdown(1)
            assert [each async for each in frames] == [b"last"]
            for _ in range(2):
                with pytest.raises(headrace.EndOfStream):
                    await frames.read()
            assert await frames.read_many() == []

    run(main)


def test_all_that_are_there(run, way):
    """read_many() returns every whole frame, at most so many, and leaves the rest."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4))
            peer.send(sent(*[b"%d" % each for each in range(7)]) + b"\0\0\0\2x")
            await stream.peek(40)
            assert await frames.read_many(3) == [b"0", b"1", b"2"]
            assert await frames.read_many() == [b"3", b"4", b"5", b"6"]
            assert stream.buffered == 5
            peer.send(b"y" + sent(b"z"))
            assert (await frames.read_many())[0] == b"xy"

    run(main)


@pytest.mark.parametrize("codec", [LengthPrefixed(4), Lines(), Delimited(b"|", b"##")], ids=repr)
def test_views(run, way, codec):
    """Views are the same frames, of one object."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(codec)
            data = [b"one", b"", b"three"]
            peer.send(b"".join(map(codec.encode, data)) + codec.encode(b"tail")[:1])
            peer.shutdown(1)
            await stream.peek(60)
            views = await frames.read_many(2, views=True)
            assert [bytes(each) for each in views] == data[:2]
            assert views[0].obj is views[1].obj
            assert [bytes(each) for each in await frames.read_many(views=True)][:1] == data[2:]

    run(main)


def test_no_views(run, way):
    """Frames that are no bytes have no views."""

    async def main():
        async with streams(way) as (stream, peer):
            peer.send(b"1\n")
            for codec in (JSONLines(), Lines(encoding="ascii")):
                with pytest.raises(ValueError, match="no bytes"):
                    await stream.framed(codec).read_many(views=True)
            assert await stream.framed(JSONLines()).read() == 1

    run(main)


def test_an_error_behind_good_frames(run, way):
    """In a batch the good frames come first, and the error with the next call."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(JSONLines())
            peer.send(b"1\n2\nx\n3\n")
            await stream.peek(8)
            assert await frames.read_many() == [1, 2]
            with pytest.raises(headrace.BadFrame):
                await frames.read_many()
            assert await frames.read_many() == [3]

    run(main)


def test_an_error_behind_good_frames_is_of_its_place(run, way):
    """Where its bytes are gone by the next call, as plain bytes or by discard(), so is the
    error."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(1, limit=4))
            for get_rid in (lambda: stream.readexactly(10), frames.discard):
                peer.send(b"\x01a" + b"\x09123456789" + b"\x01b")
                await stream.peek(14)
                assert await frames.read_many() == [b"a"]
                await get_rid()
                assert await frames.read_many() == [b"b"]

    run(main)


def test_a_frame_that_is_too_large(run, way):
    """It is refused when its length is there, as often as it is read; discard() gets past it."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4, limit=1000))
            large = bytes(300_000)
            sending = asyncio.get_running_loop().run_in_executor(
                None, peer.sendall, sent(b"one", large, b"two")
            )
            assert await frames.read() == b"one"
            for _ in range(2):
                with pytest.raises(headrace.FrameTooLarge) as caught:
                    await frames.read()
                assert (caught.value.size, caught.value.position) == (300_004, 7)
            await frames.discard()
            assert await frames.read() == b"two"
            with pytest.raises(RuntimeError, match="is not"):
                await frames.discard()
            await sending

    run(main)


def test_a_line_that_is_too_long(run, way):
    """discard() gets past a line whose end has to be found."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(Lines(limit=10))
            peer.send(b"x" * 50)
            with pytest.raises(headrace.FrameTooLarge):
                await frames.read()
            dropping = asyncio.ensure_future(frames.discard())
            await asyncio.sleep(0.01)
            peer.send(b"xx\nnext\n")
            await dropping
            assert await frames.read() == b"next"

    run(main)


def test_frames_above_the_limit_of_the_stream(run, way):
    """A frame may be longer than what the stream buffers."""

    async def main():
        async with streams(way, limit=1000) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4))
            large = b"x" * 500_000
            sending = asyncio.get_running_loop().run_in_executor(
                None, peer.sendall, sent(large, b"y", large)
            )
            assert await frames.read() == large
            assert await frames.read_many(1) == [b"y"]
            assert await frames.read_many() == [large]
            await sending

    run(main)


def test_an_end_within_a_frame(run, way):
    """It is IncompleteFrame, with what came, how many bytes it needs, and where it begins."""

    async def main():
        async with streams(way) as (stream, peer):
            peer.send(sent(b"one") + b"\0\0\0\5ab")
            peer.shutdown(1)
            frames = stream.framed(LengthPrefixed(4))
            assert await frames.read() == b"one"
            with pytest.raises(headrace.IncompleteFrame) as caught:
                await frames.read()
            error = caught.value
            assert (error.partial, error.expected, error.position) == (b"\0\0\0\5ab", 9, 7)

    run(main)


def test_a_cancellation_and_a_timeout_take_nothing(run, way):
    """A read that is cancelled, or takes too long, leaves every byte."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4))
            peer.send(b"\0\0\0\4ab")
            for call in (frames.read, frames.read_many):
                with pytest.raises(headrace.ReadTimeout, match=call.__name__):
                    await call(timeout=0.01)
                task = asyncio.ensure_future(call())
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            peer.send(b"cd")
            assert await frames.read() == b"abcd"

    run(main)


def test_the_protocol_changes(run, way):
    """A Framed keeps no bytes: lines, bytes and frames follow one another."""

    async def main():
        async with streams(way) as (stream, peer):
            peer.send(b"hello\nraw" + sent(b"frame") + b"line\n")
            assert await stream.framed(Lines()).read() == b"hello"
            assert await stream.readexactly(3) == b"raw"
            assert await stream.framed(LengthPrefixed(4)).read() == b"frame"
            assert await stream.readline() == b"line\n"

    run(main)


@pytest.mark.parametrize("size", [3, 40_000])
def test_writing(run, way, size):
    """write() sends all frames together; one that cannot be encoded has nothing sent."""

    async def main():
        async with streams(way) as (stream, peer):
            frames = stream.framed(LengthPrefixed(4, limit=50_000))
            peer.settimeout(5)
            with pytest.raises(headrace.FrameTooLarge):
                await frames.write(b"one", bytes(60_000))
            one, two = b"x" * size, b"y" * size
            await frames.write(one, two)
            frames.write_nowait(b"three")
            expected = sent(one, two, b"three")
            received = b""
            while len(received) < len(expected):
                received += peer.recv(65536)
            assert received == expected

    run(main)


class Words(Codec[str]):
    """Words of four letters; notes where it is called."""

    def __init__(self):
        super().__init__()
        self.tasks = []

    def decode(self, view):
        self.tasks.append(asyncio.current_task())
        return (str(view[:4], "ascii"), 4) if len(view) >= 4 else Need(4)

    def encode(self, frame):
        return [frame[:2].encode(), frame[2:].encode()]

    def decode_end(self, view):
        return str(view, "ascii") + "…"


def test_ones_own_codec(run, way):
    """decode() runs in the task that reads, and only when the bytes are there that it asked for;
    decode_end() makes a last frame."""

    async def main():
        async with streams(way) as (stream, peer):
            codec = Words()
            frames = stream.framed(codec)
            waiting = asyncio.ensure_future(frames.read())
            for letter in b"word":
                peer.send(bytes([letter]))
                await asyncio.sleep(0.01)
            assert await waiting == "word"
            assert codec.tasks == [waiting, waiting]
            await frames.write("ab", "cdef")
            assert peer.recv(100) == b"abcdef"
            peer.send(b"morela")
            peer.shutdown(1)
            assert await frames.read() == "more"
            assert [each async for each in frames] == ["la…"]

    run(main)


def test_no_codec(run, way):
    """framed() of what is no codec is refused."""

    async def main():
        async with streams(way) as (stream, _):
            with pytest.raises(TypeError, match="a codec is one of"):
                stream.framed("utf-8")

    run(main)
