"""What released programs do to a writer and to a server beyond the documentation, on asyncio's and
on ours. See `consumers.md`."""

import asyncio
import functools
import gc
import os
import socket
import warnings
from unittest import mock

import pytest
from conftest import uvloop
from support.connections import LOOPBACK, client, finish, pair, receive, serving, use_names


def test_write_wrapped_on_an_instance(run, streams):
    """writer.write, get_extra_info and attributes of any name can be set on one writer; what the
    wrapper writes arrives."""

    async def main():
        async with client(streams) as (_, writer, peer):
            inner = writer.write
            writer.write = lambda data: inner(data[::-1])
            writer.get_extra_info = lambda name, default=None: ("proxied", name, default)
            writer.cipher = "rot"
            writer.write(b"abc")
            await writer.drain()
            assert await receive(peer, 3) == b"cba"
            assert writer.get_extra_info("peername") == ("proxied", "peername", None)
            assert writer.cipher == "rot"

    run(main)


def test_writelines_patched_on_the_class(run, streams):
    """mock.patch.object(StreamWriter, "writelines") takes effect on connections that exist, and
    ends with the patch."""

    async def main():
        async with client(streams) as (_, writer, peer):
            with mock.patch.object(
                streams.StreamWriter, "writelines", side_effect=OSError("patched")
            ) as patched:
                with pytest.raises(OSError, match="patched"):
                    writer.writelines([b"x"])
            patched.assert_called_once_with([b"x"])
            writer.writelines([b"y", b"z"])
            assert await receive(peer, 2) == b"yz"

    run(main)


def test_drain_patched_on_the_class(run, streams):
    """mock.patch.object(StreamWriter, "drain") makes an AsyncMock by itself, which is awaited in
    place of the method."""

    async def main():
        async with client(streams) as (_, writer, _peer):
            with mock.patch.object(streams.StreamWriter, "drain") as patched:
                await writer.drain()
            patched.assert_awaited_once_with()
            await writer.drain()

    run(main)


def test_transport_assigned(run, streams):
    """reader._transport and writer._transport can be assigned: writes, close and pauses then go to
    the new transport."""

    async def main():
        async with client(streams, limit=8) as (reader, writer, _peer):
            real = writer.transport
            layer = mock.Mock(spec=asyncio.Transport)
            layer.is_closing.return_value = False
            layer.get_extra_info.side_effect = real.get_extra_info
            reader._transport = layer
            writer._transport = layer
            assert writer.transport is layer
            assert writer._transport is layer
            assert reader._transport is layer
            writer.write(b"wrapped")
            layer.write.assert_called_once_with(b"wrapped")
            assert writer.get_extra_info("peername") == real.get_extra_info("peername")
            reader.feed_data(bytes(17))
            layer.pause_reading.assert_called_once_with()
            assert await reader.read(17) == bytes(17)
            layer.resume_reading.assert_called_once_with()
            writer.close()
            layer.close.assert_called_once_with()
            writer._transport = real
            reader._transport = real

    run(main)


class Foreign(asyncio.Transport):
    """A transport of a program's own, such as one stream of a QUIC connection."""

    def __init__(self):
        super().__init__()
        self.sent = []
        self.closing = False

    def write(self, data):
        self.sent.append(bytes(data))

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.sent.append(None)

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def get_extra_info(self, name, default=None):
        return 4 if name == "stream_id" else default


def test_writer_over_a_foreign_transport(run, streams):
    """A writer over a program's own transport and a protocol never connected; the reader is fed by
    hand."""

    async def main():
        loop = asyncio.get_running_loop()
        transport = Foreign()
        reader = streams.StreamReader(loop=loop)
        protocol = streams.StreamReaderProtocol(reader, loop=loop)
        writer = streams.StreamWriter(transport, protocol, reader, loop)
        writer.write(b"GET /\r\n")
        writer.writelines([b"a", b"b"])
        await writer.drain()
        writer.write_eof()
        assert writer.can_write_eof()
        assert b"".join(transport.sent[:-1]) == b"GET /\r\nab"
        assert transport.sent[-1] is None
        waiting = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        reader.feed_data(b"hi")
        reader.feed_data(b"\nrest")
        assert await waiting == b"hi\n"
        reader.feed_eof()
        assert await reader.read() == b"rest"
        assert writer.get_extra_info("stream_id") == 4
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()

    run(main)


def test_a_slow_peer_makes_drain_wait(run, streams):
    """While the peer takes nothing, drain() waits above the high-water mark, and goes on when the
    peer reads."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(bytes(8 << 20))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.01)
            assert not draining.done()
            assert writer._protocol._paused
            assert len(await receive(peer, 8 << 20)) == 8 << 20
            await draining
            assert not writer._protocol._paused

    run(main)


def test_wait_closed_waits_for_what_is_queued(run, streams):
    """wait_closed() does not return while written bytes are still to be sent."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(bytes(8 << 20))
            writer.close()
            closing = asyncio.ensure_future(writer.wait_closed())
            await asyncio.sleep(0.01)
            assert not closing.done()
            assert len(await receive(peer)) == 8 << 20
            await closing

    run(main)


def test_a_half_close_arrives_and_leaves_reading_open(run, streams):
    """write_eof() reaches the peer as EOF, in order, and the answer is still read; so it is the
    other way round."""

    async def main():
        async with pair(streams) as both:
            both.writer.write(b"question")
            both.writer.write_eof()
            assert await both.server_reader.read() == b"question"
            await asyncio.sleep(0.005)
            assert not both.server_writer.is_closing()
            both.server_writer.write(b"answer")
            await both.server_writer.drain()
            both.server_writer.close()
            assert await both.reader.read() == b"answer"

    run(main)


def test_descriptor_taken_over_by_dup(run, streams):
    """pause_reading, dup of the socket, close, then open_connection(sock=dup): the connection goes
    on, no byte lost."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            peer.send(b"greeting")
            assert await reader.readexactly(8) == b"greeting"
            transport = writer.transport
            transport.pause_reading()
            raw = transport.get_extra_info("socket")
            duplicate = socket.socket(raw.family, raw.type, raw.proto, fileno=os.dup(raw.fileno()))
            duplicate.setblocking(False)
            transport.close()
            peer.send(b"more")
            await writer.wait_closed()
            reader2, writer2 = await streams.open_connection(sock=duplicate)
            assert await reader2.readexactly(4) == b"more"
            writer2.write(b"yes")
            assert await receive(peer, 3) == b"yes"
            await finish(writer2)

    run(main)


@pytest.mark.parametrize(
    "kind", ["function", "coroutine", "partial", "partial_coroutine", "method", "call"]
)
def test_kinds_of_callbacks(run, streams, kind):
    """Plain and coroutine functions, partials, bound methods and objects with __call__ serve as
    callbacks."""

    async def answer(prefix, reader, writer):
        writer.write(prefix + await reader.readline())
        writer.close()
        await writer.wait_closed()

    class Handler:
        def __init__(self):
            self.tasks = []

        def plain(self, reader, writer):
            self.tasks.append(asyncio.ensure_future(answer(b">", reader, writer)))

        async def method(self, reader, writer):
            await answer(b">", reader, writer)

        async def __call__(self, reader, writer):
            await answer(b">", reader, writer)

    handler = Handler()

    async def coroutine(reader, writer):
        await answer(b">", reader, writer)

    callback = {
        "function": lambda reader, writer: handler.plain(reader, writer),
        "coroutine": coroutine,
        "partial": functools.partial(lambda tag, reader, writer: handler.plain(reader, writer), 1),
        "partial_coroutine": functools.partial(answer, b">"),
        "method": handler.method,
        "call": handler,
    }[kind]

    async def main():
        async with serving(streams, callback) as address:
            reader, writer = await streams.open_connection(*address)
            writer.write(b"hello\n")
            assert await reader.read() == b">hello\n"
            writer.close()
            await writer.wait_closed()
            await asyncio.gather(*handler.tasks)

    run(main)


def test_the_exception_handler_hears_of_a_failed_handler(run, streams):
    """A handler that raises is reported with ``exception`` and ``transport``, once, and its
    connection is closed."""
    errors = run.expect_errors()
    failure = LookupError("broken handler")

    async def fail(reader, writer):
        await reader.readline()
        raise failure

    async def main():
        async with serving(streams, fail) as address:
            reader, writer = await streams.open_connection(*address)
            writer.write(b"go\n")
            assert await reader.read() == b""
            await finish(writer)
            assert [context["exception"] for context in errors] == [failure]
            assert errors[0].pop("transport").is_closing()
            assert "client_connected_cb" in errors[0]["message"]

    run(main)


def test_no_warning_in_normal_use(run, streams):
    """A served request, closed on both sides and collected, warns of nothing."""

    async def serve(reader, writer):
        async for line in reader:
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await streams.start_server(serve, LOOPBACK, 0) as server:
            reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
            writer.write(b"a\nb\n")
            assert await reader.readline() == b"a\n"
            writer.write_eof()
            assert await reader.read() == b"b\n"
            writer.close()
            await writer.wait_closed()
            del reader, writer
            await asyncio.sleep(0.002)
            gc.collect()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(main)
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


def test_a_server_started_later(run, streams):
    """start_serving=False, start_serving(), is_serving() and ``async with``; the server is an
    asyncio.AbstractServer."""

    async def main():
        accepted = asyncio.get_running_loop().create_future()
        server = await streams.start_server(
            lambda *both: accepted.set_result(both), LOOPBACK, 0, start_serving=False
        )
        if (
            uvloop is None
            or streams.name == "headrace"
            or not isinstance(server.get_loop(), uvloop.Loop)
        ):
            assert isinstance(server, asyncio.AbstractServer)
        assert not server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        await server.start_serving()
        assert server.is_serving()
        async with server:
            _, writer = await streams.open_connection(*server.sockets[0].getsockname())
            _, served = await accepted
            await finish(writer, served)
        assert not server.is_serving()
        assert list(server.sockets) == []

    run(main)


def test_names_patched_at_run_time(run, streams, monkeypatch):
    """A program that looks names up in asyncio.streams at each use gets what was put there, also
    for a mock of open_connection."""
    use_names(monkeypatch, streams)

    async def main():
        loop = asyncio.get_running_loop()
        reader = asyncio.streams.StreamReader(limit=asyncio.streams._DEFAULT_LIMIT, loop=loop)
        protocol = asyncio.streams.StreamReaderProtocol(reader, loop=loop)
        writer = asyncio.streams.StreamWriter(Foreign(), protocol, reader, loop)
        assert type(reader) is streams.StreamReader
        assert type(writer) is streams.StreamWriter
        assert isinstance(protocol, asyncio.streams.FlowControlMixin)
        with mock.patch("asyncio.streams.open_connection", return_value=(reader, writer)):
            assert await asyncio.streams.open_connection("h", 1) == (reader, writer)
        writer.close()

    run(main)
