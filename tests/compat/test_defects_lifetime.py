"""Handlers that fail, writers that are dropped, input that is wrong: what the stream is worth
afterwards. See `defects.md`."""

import asyncio
import contextlib
import gc
import socket
import ssl
import warnings

import pytest
from support.connections import LOOPBACK, client, finish, pair, patience, receive, serving, until


@pytest.mark.defect("gh-155941")
def test_a_plain_callback_that_raises(run, streams):
    """A callback that raises is reported once, and its connection is closed."""
    errors = run.expect_errors()
    failure = LookupError("plain")

    def fail(reader, writer):
        raise failure

    async def main():
        async with serving(streams, fail) as address:
            reader, writer = await streams.open_connection(*address)
            try:
                async with asyncio.timeout(patience(streams)):
                    assert await reader.read() == b""
            finally:
                await finish(writer)
                gc.collect()
            assert [context["exception"] for context in errors] == [failure]
            assert errors[0].pop("transport").is_closing()

    run(main)


@pytest.mark.defect("a cancelled handler leaves its connection open (3.11, 3.12)")
def test_a_cancelled_handler_closes_quietly(run, streams):
    """The connection of a cancelled handler is closed, and nothing is reported."""
    tasks = []

    async def serve(reader, writer):
        tasks.append(asyncio.current_task())
        await reader.read()

    async def main():
        async with serving(streams, serve) as address:
            reader, writer = await streams.open_connection(*address)
            await until(lambda: tasks)
            tasks[0].cancel()
            try:
                async with asyncio.timeout(patience(streams)):
                    assert await reader.read() == b""
            finally:
                await finish(writer)

    run(main)


def test_a_dropped_writer_closes(run, streams):
    """A client's writer that is dropped closes its connection, with one ResourceWarning, also where
    the reader is kept."""

    async def main():
        with socket.create_server((LOOPBACK, 0)) as listener:
            reader, writer = await streams.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
        with peer:
            peer.setblocking(False)
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                del writer
                gc.collect()
                assert await receive(peer) == b""
            assert [warning.category for warning in seen] == [ResourceWarning]
            assert "unclosed <StreamWriter" in str(seen[0].message)
            assert await reader.read() == b""

    run(main)


def test_a_writer_closed_before_it_is_dropped(run, streams):
    """A writer that was closed is dropped without a warning."""

    async def main():
        async with client(streams) as (_, writer, _peer):
            writer.close()
            await writer.wait_closed()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del writer
            gc.collect()
        assert seen == []

    run(main)


class Idle(asyncio.Transport):
    """A transport that does nothing."""

    def is_closing(self):
        return False


def test_a_writer_dropped_after_its_loop(streams):
    """A writer that outlives its loop says 'loop is closed' when it is dropped, and nothing
    else."""
    loop = asyncio.new_event_loop()
    reader = streams.StreamReader(loop=loop)
    writer = streams.StreamWriter(
        Idle(), streams.StreamReaderProtocol(reader, loop=loop), reader, loop
    )
    loop.close()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del writer
        gc.collect()
    assert [(warning.category, str(warning.message)) for warning in seen] == [
        (ResourceWarning, "loop is closed")
    ]


# ---- wrong input: (call, error, words), on a stream that then still works


READER_ERRORS = {
    "readexactly(-1)": (lambda reader: reader.readexactly(-1), ValueError, "less than zero"),
    "readuntil(empty)": (lambda reader: reader.readuntil(b""), ValueError, "at least one-byte"),
    "readuntil(empty tuple)": (
        lambda reader: reader.readuntil(()),
        ValueError,
        "at least one element",
    ),
    "readuntil(empty in tuple)": (
        lambda reader: reader.readuntil((b"a", b"")),
        ValueError,
        "at least one-byte",
    ),
    "readuntil(str)": (lambda reader: reader.readuntil("x"), TypeError, None),
    "readuntil(list)": (lambda reader: reader.readuntil([b"x"]), TypeError, None),
    "readuntil(None)": (lambda reader: reader.readuntil(None), TypeError, None),
    "readuntil(str in tuple)": (lambda reader: reader.readuntil((b"a", "x")), TypeError, None),
    "read(str)": (lambda reader: reader.read("x"), TypeError, None),
    "readexactly(None)": (lambda reader: reader.readexactly(None), TypeError, None),
    "readexactly(float)": (lambda reader: reader.readexactly(1.5), TypeError, None),
}


@pytest.mark.parametrize("call", READER_ERRORS)
def test_wrong_reads_leave_the_stream_usable(run, ours, call):
    """A read with a wrong argument raises and takes nothing: the next read gets every byte."""
    wrong, error, words = READER_ERRORS[call]

    async def main():
        async with client(ours) as (reader, _, peer):
            peer.send(b"abc\n")
            await until(lambda: len(reader._buffer) == 4)
            with pytest.raises(error, match=words):
                await wrong(reader)
            assert await reader.readline() == b"abc\n"

    run(main)


@pytest.mark.defect("uvloop takes None for nothing")
@pytest.mark.parametrize(
    "data", ["text", 5, None, [b"x"], object()], ids=["str", "int", "None", "list", "object"]
)
def test_wrong_writes_leave_the_stream_usable(run, streams, data):
    """write() of what is not bytes-like raises TypeError and sends nothing; what is written before
    and after arrives."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(b"before ")
            with pytest.raises(TypeError):
                writer.write(data)
            with pytest.raises(TypeError):
                writer.writelines([data])
            writer.write(b"after")
            writer.close()
            assert await receive(peer) == b"before after"

    run(main)


def test_write_after_write_eof(run, streams):
    """write() after write_eof() raises RuntimeError; reading goes on."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            writer.write(b"last")
            writer.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"more")
            assert await receive(peer) == b"last"
            peer.send(b"answer\n")
            assert await reader.readline() == b"answer\n"

    run(main)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("end", ["close", "abort", "loss"])
def test_write_eof_after_the_end(run, streams, tls, end, later, secure):
    """write_eof() on a connection that is closing changes nothing: what is written behind it is
    dropped, as before it."""
    if streams.name == "stock" and (run.kind == "uvloop" or secure):
        pytest.skip("uvloop's transport raises, and asyncio's of TLS fails after a loss")

    async def main():
        loop = asyncio.get_running_loop()
        run.expect_errors()  # a loss may be reported
        async with pair(streams, (tls.server, tls.client) if secure else (None, None)) as both:
            writer = both.writer
            if end == "close":
                writer.close()
            elif end == "abort":
                writer.transport.abort()
            else:
                both.server_writer.transport.abort()
                await until(lambda: both.reader.at_eof() or both.reader.exception() is not None)
                writer.close()
            if later:
                # The transport has closed its socket by then.
                began = loop.time()
                await until(lambda: loop.time() - began > 0.02)
            for _ in range(2):
                with contextlib.suppress(
                    NotImplementedError
                ):  # over TLS of the loop's own, as ever
                    writer.write_eof()
                writer.write(b"dropped")
            if streams.name != "stock":  # 3.13.0 has a TypeError of its own
                writer.writelines([b"dropped"])

    run(main)


def test_write_after_write_eof_of_the_transport(run, streams):
    """The transport's own write_eof() counts as the writer's."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.transport.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"more")
            assert await receive(peer) == b""

    run(main)


def test_write_eof_over_tls(run, streams, tls):
    """TLS before 1.3 cannot half close: NotImplementedError, can_write_eof() says so, and the
    stream works on."""

    async def main():
        async with pair(streams, tls.contexts(ssl.TLSVersion.TLSv1_2)) as both:
            assert not both.writer.can_write_eof()
            with pytest.raises(NotImplementedError):
                both.writer.write_eof()
            both.writer.write(b"on\n")
            assert await both.server_reader.readline() == b"on\n"

    run(main)


def test_two_reads_at_once(run, streams):
    """A second read that would have to wait raises RuntimeError; the first one goes on."""

    async def main():
        async with client(streams) as (reader, _, peer):
            first = asyncio.ensure_future(reader.readline())
            await asyncio.sleep(0)
            calls = {
                "read": lambda: reader.read(1),
                "readuntil": reader.readline,
                "readexactly": lambda: reader.readexactly(1),
            }
            for name, call in calls.items():
                with pytest.raises(
                    RuntimeError,
                    match=rf"{name}\(\) called while another coroutine is already waiting",
                ):
                    await call()
            peer.send(b"mine\n")
            assert await first == b"mine\n"

    run(main)


@pytest.mark.parametrize("limit", [0, -1])
def test_wrong_limits(run, streams, limit):
    """A limit that is not positive is a ValueError, before anything is connected."""

    async def main():
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            streams.StreamReader(limit=limit)
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            await streams.open_connection(LOOPBACK, 9, limit=limit)

    run(main)


@pytest.mark.defect("limit=None, as documented, is a TypeError")
def test_no_limit_given(run, streams):
    """limit=None, which the documentation prints as the default, means 64 KiB."""

    async def main():
        assert streams.StreamReader(limit=None)._limit == 65536
        async with client(streams, limit=None) as (reader, _, peer):
            peer.send(b"x\n")
            assert await reader.readline() == b"x\n"

    run(main)


def test_overruns_of_readuntil_take_nothing(run, streams):
    """LimitOverrunError leaves the bytes, and its ``consumed`` says how many are safe to skip."""

    async def main():
        reader = streams.StreamReader(limit=8)
        reader.feed_data(b"0123456789ab\r\nnext\r\n")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"\r\n")
        assert caught.value.consumed == 12
        assert await reader.readexactly(caught.value.consumed + 2) == b"0123456789ab\r\n"
        assert await reader.readuntil(b"\r\n") == b"next\r\n"

    run(main)


def test_incomplete_reads_say_what_there_was(run, streams):
    """EOF in the middle: IncompleteReadError with the partial bytes and what was expected; then the
    stream is empty."""

    async def main():
        for call, expected in (
            (lambda reader: reader.readexactly(5), 5),
            (lambda reader: reader.readuntil(b"|"), None),
        ):
            reader = streams.StreamReader()
            reader.feed_data(b"abc")
            reader.feed_eof()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await call(reader)
            assert (caught.value.partial, caught.value.expected) == (b"abc", expected)
            assert reader.at_eof()
            assert await reader.read() == b""

    run(main)
