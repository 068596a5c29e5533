"""What released programs do to a reader beyond its documentation, on asyncio's and on ours.
`consumers.md` says who does what."""

import asyncio
import inspect
import sys
from unittest import mock

import pytest
from support.connections import client, finish, pair, serving, until, use_names

# Until 3.12 nothing but a real coroutine function convinces inspect; asyncio's own test does
# better.
AGREES = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction


def test_isinstance_by_every_name(run, streams):
    """Both ends' streams are instances of asyncio's classes, by either module's name."""

    async def main():
        async with pair(streams) as both:
            for reader in both.reader, both.server_reader:
                assert isinstance(reader, asyncio.StreamReader)
                assert isinstance(reader, asyncio.streams.StreamReader)
            for writer in both.writer, both.server_writer:
                assert isinstance(writer, asyncio.StreamWriter)
                assert isinstance(writer, asyncio.streams.StreamWriter)

    run(main)


def test_isinstance_when_the_names_are_replaced(run, streams, monkeypatch):
    """Streams made through asyncio's replaced names are instances of those names, and stock streams
    made before still work."""
    stock = asyncio.StreamReader

    async def main():
        before = stock()
        use_names(monkeypatch, streams)
        async with pair(asyncio.streams) as both:
            assert type(both.reader) is streams.StreamReader
            assert isinstance(both.reader, asyncio.StreamReader)
            assert isinstance(both.server_writer, asyncio.streams.StreamWriter)
        before.feed_data(b"still\n")
        assert await before.readline() == b"still\n"

    run(main)


def test_unasked_data_shows_in_the_buffer(run, streams):
    """len(reader._buffer) and its truth tell a pooled connection with an answer that nobody asked
    for from an idle one."""

    async def main():
        async with client(streams) as (reader, _, peer):
            assert not reader._buffer
            assert len(reader._buffer) == 0
            peer.send(b"-ERR shutting down\r\n")
            await until(lambda: reader._buffer)
            assert len(reader._buffer) == 20
            assert await reader.readline() == b"-ERR shutting down\r\n"
            assert len(reader._buffer) == 0

    run(main)


def test_clear_of_the_buffer_discards(run, streams):
    """reader._buffer.clear() leaves nothing of what arrived before: aiosmtpd's guard against
    injection before TLS."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"STARTTLS\r\nRSET\r\n")
            assert await reader.readline() == b"STARTTLS\r\n"
            reader._buffer.clear()
            peer.send(b"EHLO\r\n")
            assert await reader.readline() == b"EHLO\r\n"
            peer.close()
            assert await reader.read() == b""

    run(main)


def test_clear_of_a_kept_buffer_discards(run, streams):
    """A buffer taken once stays the live one: what arrives later is in it, and clearing it then
    discards that too."""

    async def main():
        async with client(streams) as (reader, _, peer):
            kept = reader._buffer
            peer.send(b"one\ntwo\n")
            await until(lambda kept=kept: kept)
            assert bytes(kept) == b"one\ntwo\n"
            assert await reader.readline() == b"one\n"
            assert bytes(kept) == b"two\n"
            kept.clear()
            peer.send(b"three\n")
            assert await reader.readline() == b"three\n"
            del kept
            peer.send(b"four\n")
            assert await reader.readline() == b"four\n"

    run(main)


@pytest.mark.parametrize("way", ["slice", "setitem", "insert"])
def test_push_back(run, streams, way):
    """Bytes put in front of reader._buffer are read next: a proxy peeks at the first bytes and
    gives them back."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"\x05\x01\x00rest")
            peeked = await reader.readexactly(2)
            if way == "slice":
                reader._buffer[0:0] = peeked
            elif way == "setitem":
                reader._buffer.__setitem__(slice(0, 0), peeked)
            else:
                for byte in reversed(peeked):
                    reader._buffer.insert(0, byte)
            assert await reader.readexactly(7) == b"\x05\x01\x00rest"

    run(main)


def test_push_back_while_another_task_waits(run, streams):
    """A pushed-back separator is found by the next search, though the bytes behind it were searched
    already."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"abc")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readuntil(b"\r\n"), 0.02)
            reader._buffer[0:0] = b"x\r\n"
            assert await reader.readuntil(b"\r\n") == b"x\r\n"
            assert await reader.read(9) == b"abc"

    run(main)


def test_buffer_replaced_on_a_live_reader(run, streams):
    """reader._buffer = bytearray() starts afresh; the old one, kept, holds what had arrived, and
    later bytes go to the new one."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"cipher")
            await until(lambda: reader._buffer)
            old = reader._buffer
            reader._buffer = bytearray()
            peer.send(b"plain\n")
            assert await reader.readline() == b"plain\n"
            assert bytes(old) == b"cipher"
            reader._buffer = bytearray(b"given ")
            peer.send(b"later\n")
            assert await reader.readline() == b"given later\n"

    run(main)


def test_feed_data_wrapped_on_a_live_connection(run, streams):
    """Once reader.feed_data is replaced on an instance, every later byte goes through the
    replacement, also for a waiting read."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"key\n")
            assert await reader.readline() == b"key\n"
            inner = reader.feed_data
            reader.feed_data = lambda data: inner(bytes(byte ^ 0x20 for byte in data))
            waiting = asyncio.ensure_future(reader.readexactly(5))
            await asyncio.sleep(0)
            peer.send(b"hello")
            assert await waiting == b"HELLO"
            peer.send(b"abc")
            peer.close()
            assert await reader.read() == b"ABC"

    run(main)


def test_feed_data_wrapped_while_a_read_waits(run, streams):
    """The replacement counts from the moment it is set, with a read already waiting."""

    async def main():
        async with client(streams) as (reader, _, peer):
            waiting = asyncio.ensure_future(reader.read(100))
            await asyncio.sleep(0)
            inner = reader.feed_data
            reader.feed_data = lambda data: inner(data.upper())
            peer.send(b"late")
            assert await waiting == b"LATE"

    run(main)


def test_methods_put_on_the_class(run, streams, monkeypatch):
    """A method added to the class StreamReader works on every reader, those that exist already
    too."""

    async def main():
        async with client(streams) as (reader, _, peer):

            def rollback(self, data):
                self._buffer[0:0] = data

            async def read_word(self):
                return (await self.readuntil(b" "))[:-1]

            monkeypatch.setattr(streams.StreamReader, "rollback", rollback, raising=False)
            monkeypatch.setattr(streams.StreamReader, "read_word", read_word, raising=False)
            peer.send(b"two words ")
            assert await reader.read_word() == b"two"
            reader.rollback(b"no ")
            assert await reader.read_word() == b"no"
            assert await reader.read_word() == b"words"

    run(main)


def test_reads_as_tasks_and_with_timeouts(run, streams):
    """create_task(read), wait_for(read) and ensure_future(drain) work, and a timed-out read loses
    nothing."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            task = asyncio.create_task(reader.read(65536))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), 0.01)
            peer.send(b"first")
            assert await task == b"first"
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(5), 0.005)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(6), 0.005)
            peer.send(b"second")
            assert await asyncio.wait_for(reader.readexactly(6), 5) == b"second"
            await asyncio.ensure_future(writer.drain())

    run(main)


def test_subclass_of_the_reader_over_create_connection(run, streams):
    """A StreamReader subclass with its own feed_eof, a protocol and a writer made by hand, over
    loop.create_connection()."""

    class Reader(streams.StreamReader):
        ended = False
        received = 0

        def feed_data(self, data):
            self.received += len(data)
            super().feed_data(data)

        def feed_eof(self):
            self.ended = True
            super().feed_eof()

    async def main():
        loop = asyncio.get_running_loop()
        reader = Reader(limit=asyncio.streams._DEFAULT_LIMIT, loop=loop)
        protocol = streams.StreamReaderProtocol(reader, loop=loop)
        accepted = loop.create_future()
        async with serving(streams, lambda r, w: accepted.set_result(w)) as address:
            transport, same = await loop.create_connection(lambda: protocol, *address)
            assert same is protocol
            writer = streams.StreamWriter(transport, protocol, reader, loop)
            served = await accepted
            served.write(b"12345")
            assert await reader.readexactly(5) == b"12345"
            served.write(b"67")
            served.close()
            assert await reader.read() == b"67"
            assert reader.ended
            assert reader.received == 7
            await finish(writer, served)

    run(main)


def test_set_exception_wakes_a_waiting_read(run, streams):
    """reader.set_exception(e) ends a waiting read with e, and every later one."""

    class Closed(Exception):
        pass

    async def main():
        async with client(streams) as (reader, _, _peer):
            waiting = asyncio.ensure_future(reader.read(10))
            await asyncio.sleep(0)
            reader.set_exception(Closed())
            with pytest.raises(Closed):
                await waiting
            with pytest.raises(Closed):
                await reader.readline()

    run(main)


def test_health_of_a_pooled_connection(run, streams):
    """at_eof() and exception() tell a living connection, one that ended, and one that was marked
    bad."""

    async def main():
        async with client(streams) as (reader, _, peer):
            assert not reader.at_eof()
            assert reader.exception() is None
            peer.send(b"bye")
            peer.close()
            await until(lambda: reader._eof)
            assert not reader.at_eof()
            assert await reader.read(10) == b"bye"
            assert reader.at_eof()
            assert reader.exception() is None
            error = ConnectionError("bad")
            reader.set_exception(error)
            assert reader.exception() is error

    run(main)


@pytest.mark.filterwarnings(
    "ignore:'asyncio.iscoroutinefunction' is deprecated"
)  # from Python 3.14 on
def test_a_mock_made_from_the_spec(run, streams):
    """Mock(spec=StreamReader) makes AsyncMocks of what must be awaited, plain mocks of the rest,
    and inspect agrees."""

    async def main():
        reader = mock.Mock(spec=streams.StreamReader)
        for name in "read", "readline", "readexactly", "readuntil":
            assert isinstance(getattr(reader, name), mock.AsyncMock), name
            assert asyncio.iscoroutinefunction(getattr(streams.StreamReader, name)), name
            assert AGREES(getattr(streams.StreamReader, name)), name
        for name in (
            "feed_data",
            "feed_eof",
            "at_eof",
            "exception",
            "set_exception",
            "set_transport",
        ):
            assert not isinstance(getattr(reader, name), mock.AsyncMock), name
        writer = mock.Mock(spec=streams.StreamWriter)
        for name in "drain", "wait_closed", "start_tls":
            assert isinstance(getattr(writer, name), mock.AsyncMock), name
            assert AGREES(getattr(streams.StreamWriter, name)), name
        for name in "write", "writelines", "close", "is_closing", "transport", "get_extra_info":
            assert not isinstance(getattr(writer, name), mock.AsyncMock), name
        reader.readline.return_value = b"+OK\r\n"
        assert await reader.readline() == b"+OK\r\n"
        await writer.drain()
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)

    run(main)


@pytest.mark.filterwarnings(
    "ignore:'asyncio.iscoroutinefunction' is deprecated"
)  # from Python 3.14 on
def test_autospec_and_signatures(run, streams):
    """create_autospec and inspect.signature know the parameters of the functions and classes, and
    refuse others."""

    async def main():
        for name in "open_connection", "start_server":
            function = getattr(streams, name)
            assert "limit" in inspect.signature(function).parameters
            specced = mock.create_autospec(function)
            assert asyncio.iscoroutinefunction(specced)
            await specced("host", 1, limit=5)
            specced.assert_awaited_once_with("host", 1, limit=5)
        assert list(inspect.signature(streams.StreamReader).parameters) == ["limit", "loop"]
        assert list(inspect.signature(streams.StreamWriter).parameters) == [
            "transport",
            "protocol",
            "reader",
            "loop",
        ]
        parameters = inspect.signature(streams.StreamReaderProtocol).parameters
        assert list(parameters) == ["stream_reader", "client_connected_cb", "loop"]
        reader = mock.create_autospec(streams.StreamReader)
        await reader(limit=4).readexactly(4)

    run(main)


def test_open_connection_patched_with_autospec(run, streams, monkeypatch):
    """patch("asyncio.open_connection", autospec=True) gives an awaitable mock that records what it
    was called with."""
    use_names(monkeypatch, streams)

    async def main():
        with mock.patch("asyncio.open_connection", autospec=True) as opened:
            opened.return_value = (
                mock.Mock(spec=asyncio.StreamReader),
                mock.Mock(spec=asyncio.StreamWriter),
            )
            reader, writer = await asyncio.open_connection("db", 5432, ssl=None)
            assert isinstance(writer.drain, mock.AsyncMock)
            assert isinstance(reader.read, mock.AsyncMock)
        opened.assert_awaited_once_with("db", 5432, ssl=None)

    run(main)


def test_a_slow_reader_pauses_its_transport(run, streams):
    """While nobody reads, at most a few receives above twice the limit are taken from the peer; the
    rest stays there."""

    async def main():
        async with client(streams, limit=65536) as (reader, _, peer):
            loop = asyncio.get_running_loop()
            sending = asyncio.ensure_future(loop.sock_sendall(peer, bytes(16 << 20)))
            await until(lambda: reader._paused)
            await asyncio.sleep(0.02)
            assert 131072 < len(reader._buffer) <= 131072 + 262144
            assert not sending.done()
            got = 0
            while got < 16 << 20:
                got += len(await reader.read(1 << 20))
            await sending

    run(main)
