"""How a connection ends, once, and what is left of it: no descriptor, no frame, no loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import warnings
import weakref

import pytest
from conftest import new_loop
from support.certificates import tls  # noqa: F401 (a fixture)
from support.connections import until
from support.wires import (
    RecordingTransport,
    connected,
    from_callback,
    received,
    stepping,
    tcp_pair,
    turns,
)

from headrace._streams.reader_protocol import BufferedStreamProtocol
from headrace._transport.scheduler import scheduler_of


@pytest.mark.parametrize("end", ["close", "abort"])
def test_one_connection_lost_after_a_drain(run, streams, end):
    """A task that closes or aborts as soon as its drain() returns gets one connection_lost(), and
    the exception handler none."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            lost = []
            protocol = writer._protocol
            connection_lost = protocol.connection_lost
            protocol.connection_lost = lambda error: (lost.append(error), connection_lost(error))

            async def flooding():
                for _ in range(8):
                    writer.write(bytes(1 << 20))
                await writer.drain()
                writer.close() if end == "close" else writer.transport.abort()

            task = asyncio.create_task(flooding())
            await turns(3)
            receiving = asyncio.create_task(received(peer))
            await task
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            with contextlib.suppress(ConnectionError):
                got = await receiving
                assert end == "abort" or len(got) == 8 << 20
            await turns(3)
            assert lost == [None]

    run(main)


@pytest.mark.parametrize("how", ["close", "abort", "eof"])
def test_the_socket_is_closed_after_wait_closed(run, streams, how):
    """When wait_closed() returns, the descriptor is closed: a program may count on it, to reopen a
    port or to drop privileges."""

    async def main():
        async with connected(streams) as (reader, writer, peer):
            descriptor = writer.get_extra_info("socket").fileno()
            before = os.readlink(f"/proc/self/fd/{descriptor}")
            if how == "eof":
                peer.close()
                assert await reader.read() == b""
            writer.transport.abort() if how == "abort" else writer.close()
            await writer.wait_closed()
            if run.kind != "uvloop":
                assert writer.get_extra_info("socket").fileno() == -1
            try:
                after = os.readlink(f"/proc/self/fd/{descriptor}")
            except FileNotFoundError:
                after = None
            assert after != before

    run(main)


def test_tls_close_at_eof_is_clean(run, streams, tls):  # noqa: F811
    """A TLS client that ends its side and waits for the server's gets close_notify, no error."""

    async def main():
        ended = asyncio.Event()

        async def serve(reader, writer):
            async for line in reader:
                writer.write(line)
                await writer.drain()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            ended.set()

        server = await streams.start_server(serve, "127.0.0.1", 0, ssl=tls.server)
        address = server.sockets[0].getsockname()

        def talk():
            with socket.create_connection(address, timeout=5) as raw:
                with tls.client.wrap_socket(raw, server_hostname="localhost") as client:
                    client.sendall(b"line\n")
                    answer = client.recv(100)
                    client.unwrap().close()
            return answer

        assert await asyncio.get_running_loop().run_in_executor(None, talk) == b"line\n"
        await ended.wait()
        server.close()
        await server.wait_closed()
        await turns(2)

    run(main)


def test_receive_buffer_is_never_resized_while_exported(run, ours):
    """The loop's view of the receive buffer stays valid through every step: buffer_updated() runs
    with the view exported."""

    async def main():
        loop = asyncio.get_running_loop()
        reader = ours.StreamReader(loop=loop)
        protocol = BufferedStreamProtocol(reader, None, loop)
        protocol._h_receive_bytes = 8192
        protocol.connection_made(RecordingTransport())
        got = []

        async def reading():
            got.append(await reader.readexactly(100_000))
            got.append(await reader.readline())
            got.append(await reader.readuntil(b"!"))
            got.append(await reader.read())

        sent = os.urandom(100_000) + b"l" * 5000 + b"\n" + b"u" * 5000 + b"!" + b"rest" * 5000
        task = asyncio.create_task(reading())
        await turns(2)
        view = protocol.get_buffer(-1)
        assert len(view) == 8192

        def receive(piece):
            view[: len(piece)] = piece
            protocol.buffer_updated(len(piece))
            view[: len(piece)] = bytes(len(piece))

        for start in range(0, len(sent), 7001):
            await from_callback(receive, sent[start : start + 7001])
            again = protocol.get_buffer(-1)
            assert again.obj is view.obj
            assert len(view.obj) >= len(view)
        reader.feed_eof()
        await task
        assert b"".join(got) == sent

    run(main)


def test_connections_share_the_receive_buffer(run, ours):
    """Bytes of one connection are its own before another one receives into the same buffer."""

    async def main():
        loop = asyncio.get_running_loop()
        readers, protocols = [], []
        for _ in range(2):
            readers.append(ours.StreamReader(loop=loop))
            protocols.append(BufferedStreamProtocol(readers[-1], None, loop))
            protocols[-1]._h_receive_bytes = 4096
            protocols[-1].connection_made(RecordingTransport())

        def receive():
            for letter in (b"a", b"b", b"c"):
                for index in range(2):
                    piece = letter * (100 + index)
                    view = protocols[index].get_buffer(-1)
                    view[: len(piece)] = piece
                    protocols[index].buffer_updated(len(piece))

        await from_callback(receive)
        for index, reader in enumerate(readers):
            reader.feed_eof()
            assert await reader.read() == b"".join(
                letter * (100 + index) for letter in (b"a", b"b", b"c")
            )

    run(main)


def test_a_dropped_writer_closes(run, streams):
    """Where the program keeps the reader and drops the writer, the connection closes, with a
    ResourceWarning."""
    if not hasattr(streams.StreamWriter, "__del__"):
        pytest.skip("asyncio's writers have this since Python 3.11.5 or so")

    async def main():
        end, peer = tcp_pair()
        with peer:
            reader, writer = await streams.open_connection(sock=end)
            await turns(2)
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
                del writer
                gc.collect()
            assert await received(peer) == b""
            assert await reader.read() == b""
            await turns(2)

    run(main)


def test_a_waiting_reader_does_not_keep_the_connection(run, streams):
    """A task that waits in a read, and is held by nobody but its own reader, does not outlive the
    program's last reference."""
    errors = run.expect_errors()

    async def main():
        end, peer = tcp_pair()
        with peer:

            class Local:
                pass

            seen = []

            async def reading():
                reader, writer = await streams.open_connection(sock=end)
                local = Local()
                seen.append(weakref.ref(local))
                try:
                    await reader.read()
                finally:
                    writer.close()

            task = asyncio.create_task(reading())
            await until(lambda: seen)
            await turns(3)
            peer.close()
            await task
            del task
            await turns(3)
            gc.collect()
            assert seen[0]() is None
            assert errors == []

    run(main)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_closed_loop_keeps_nothing(loop_kind, streams, caplog):
    """A loop that is closed, and dropped, with a live connection and a waiting handler leaves no
    frame, no scheduler and no loop."""
    if loop_kind == "uvloop":
        pytest.skip("closing a uvloop with a live transport waits for it")
    end, peer = tcp_pair()

    class Local:
        pass

    def live():
        loop = new_loop(loop_kind)
        seen = []

        async def handling():
            reader, writer = await streams.open_connection(sock=end)
            local = Local()
            seen.extend(
                weakref.ref(each) for each in (local, reader, writer, scheduler_of(loop), loop)
            )
            while True:
                writer.write(await reader.readline())

        task = loop.create_task(handling())
        loop.call_later(0.002, peer.sendall, b"line\n")
        loop.run_until_complete(asyncio.sleep(0.01))
        assert not task.done()
        assert peer.recv(100) == b"line\n"
        loop.close()
        return seen

    seen = live()
    gc.collect()
    gc.collect()
    assert [each() for each in seen] == [None] * 5
    assert peer.recv(100) == b""
    peer.close()


def test_loops_one_after_another(loop_kind, ours):
    """Each loop has a scheduler of its own, which goes with it."""
    schedulers = []
    for _ in range(3):
        loop = new_loop(loop_kind)
        assert scheduler_of(loop) is scheduler_of(loop)
        schedulers.append(weakref.ref(scheduler_of(loop)))
        loop.close()
        del loop
        gc.collect()
    assert [each() for each in schedulers] == [None] * 3


def test_loops_in_two_threads(loop_kind, streams):
    """Two loops in two threads serve their connections without disturbing each other, each in its
    own thread."""
    results = {}

    async def main():
        threads = set()
        async with connected(streams) as (reader, writer, peer):

            async def answering():
                async for line in reader:
                    threads.add(threading.current_thread())
                    writer.write(line)
                writer.write_eof()

            def asking():
                for index in range(100):
                    peer.sendall(b"%d\n" % index)
                peer.shutdown(socket.SHUT_WR)

            task = asyncio.create_task(answering())
            await asyncio.get_running_loop().run_in_executor(None, asking)
            got = await received(peer)
            await task
            assert not stepping()
        return got, threads

    def run_one():
        with asyncio.Runner(loop_factory=lambda: new_loop(loop_kind)) as runner:
            results[threading.current_thread()] = runner.run(main())

    both = [threading.Thread(target=run_one) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(20)
    expected = b"".join(b"%d\n" % index for index in range(100))
    assert {thread: (expected, {thread}) for thread in both} == results


def test_never_awaited_operations_are_freed(run, ours):
    """A cancelled, a finished and a waiting operation are freed with their reader; nothing is kept
    by the loop."""

    async def main():
        loop = asyncio.get_running_loop()
        reader = ours.StreamReader(loop=loop)
        kept = weakref.ref(reader)
        finished, cancelled, waiting = reader.read(0), reader.read(1), reader.read(1)
        await finished
        cancelled.close()
        waiting.send(None)
        del reader, finished, cancelled, waiting
        gc.collect()
        assert kept() is None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main)
