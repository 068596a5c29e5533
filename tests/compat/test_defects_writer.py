"""What asyncio's writer and its transports get wrong, and ours does not. `defects.md` has one row
for each."""

import asyncio
import socket

import pytest
from support.connections import client, finish, pair, patience, receive, reset, until

import headrace

BIG = 6 << 20


def own_sockets_small(writer):
    """Make the kernel take little, so that writes queue soon."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


@pytest.mark.defect("a cancelled wait_closed() cancels the future of all")
def test_wait_closed_is_private(run, streams):
    """A wait_closed() that times out or is cancelled disturbs no other and no later one."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(bytes(BIG))
            writer.close()
            other = asyncio.ensure_future(writer.wait_closed())
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 0.005)
            assert not other.done()
            assert len(await receive(peer)) == BIG
            await other
            await writer.wait_closed()

    run(main)


@pytest.mark.defect("drain() succeeds when abort() discards the data")
def test_a_drain_that_abort_ends_raises(run, streams):
    """drain() on a connection that is aborted, waiting before or called after, raises
    ConnectionResetError."""

    async def main():
        async with client(streams) as (_, writer, _peer):
            writer.write(bytes(BIG))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.002)
            assert not draining.done()
            writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await draining
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    run(main)


@pytest.mark.defect("gh-136234")
def test_drain_after_a_reset_raises(run, streams):
    """After the peer's reset, drain() raises and write() does not."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            reset(peer)
            await until(lambda: reader.exception() is not None)
            for _ in range(7):
                writer.write(b"into the void")
                writer.writelines([b"a", b"b"])
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            assert writer.is_closing()

    run(main)


@pytest.mark.defect("gh-74116")
def test_concurrent_drains(run, streams):
    """Any number of tasks may drain at once; cancelling one leaves the others waiting."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(bytes(BIG))
            drains = [asyncio.ensure_future(writer.drain()) for _ in range(5)]
            await asyncio.sleep(0.002)
            drains[2].cancel()
            await asyncio.sleep(0)
            assert [each.done() for each in drains] == [False, False, True, False, False]
            assert len(await receive(peer, BIG)) == BIG
            await asyncio.gather(*drains[:2], *drains[3:])

    run(main)


@pytest.mark.defect("gh-127655")
def test_writelines_pauses(run, streams):
    """Back-pressure counts what writelines() queues: drain() waits for it."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.writelines([bytes(65536)] * (BIG // 65536))
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.002)
            assert not draining.done()
            assert len(await receive(peer, BIG)) == BIG
            await draining

    run(main)


@pytest.mark.defect("gh-155888")
@pytest.mark.parametrize(
    "chunks",
    [
        [b"data", b""],
        [b"", b"data"],
        [b"", bytearray(b"data"), memoryview(b"")],
        [b"data", b"", b""],
    ],
)
def test_empty_chunks_then_close(run, streams, chunks):
    """Empty chunks in writelines() are nothing: what is there arrives, and close() ends, with a
    full queue before it or not."""

    async def main():
        for before in 0, BIG:
            async with client(streams) as (_, writer, peer):
                writer.write(bytes(before))
                writer.writelines(chunks)
                writer.writelines([])
                writer.writelines([b""])
                writer.write(b"")
                writer.close()
                async with asyncio.timeout(patience(streams)):
                    assert await receive(peer) == bytes(before) + b"data"
                    await writer.wait_closed()

    run(main)


@pytest.mark.defect("gh-136234")
def test_writes_after_close_and_loss(run, streams):
    """After close(), abort() and a loss, write() and writelines() neither raise nor send."""

    async def main():
        for end in "close", "abort", "lose":
            async with client(streams) as (reader, writer, peer):
                writer.write(b"before")
                if end == "close":
                    writer.close()
                elif end == "abort":
                    assert await receive(peer, 6) == b"before"
                    writer.transport.abort()
                else:
                    reset(peer)
                    await until(lambda: reader.exception() is not None)
                for _ in range(2):
                    for _ in range(3):
                        writer.write(b"after")
                        writer.writelines([b"after", bytearray(b"!")])
                    await asyncio.sleep(0.001)
                if end == "close":
                    assert await receive(peer) == b"before"

    run(main)


@pytest.mark.defect("gh-115514")
def test_nothing_written_after_close_is_sent(run, streams):
    """With writes still queued at close(), those arrive and later ones do not."""

    async def main():
        async with client(streams) as (_, writer, peer):
            writer.write(bytes(BIG))
            writer.close()
            writer.write(b"late")
            await asyncio.sleep(0.002)
            writer.writelines([b"later"])
            assert await receive(peer) == bytes(BIG)
            await writer.wait_closed()

    run(main)


@pytest.mark.defect("queued buffers are aliased")
@pytest.mark.parametrize("way", ["write", "writelines", "view"])
def test_mutable_buffers_are_copied(run, streams, way):
    """A bytearray may be changed, cleared and resized right after write(), however slow the peer
    is."""

    async def main():
        async with client(streams, receive_buffer=8192) as (_, writer, peer):
            own_sockets_small(writer)
            data = bytearray(b"a" * (1 << 20))
            if way == "write":
                writer.write(data)
            elif way == "view":
                writer.write(memoryview(data))
            else:
                writer.writelines([b"", data])
            data[:] = b"b" * len(data)
            data.clear()
            data += b"c"
            assert await receive(peer, 1 << 20) == b"a" * (1 << 20)

    run(main)


@pytest.mark.defect("gh-135862")
@pytest.mark.parametrize("way", ["write", "writelines"])
def test_wide_memoryviews_arrive_whole(run, streams, way):
    """A memoryview of 4-byte items is sent as all of its bytes, also when they must queue."""

    async def main():
        async with client(streams, receive_buffer=8192) as (_, writer, peer):
            own_sockets_small(writer)
            view = memoryview(bytes(range(256)) * 4096).cast("I")
            if way == "write":
                writer.write(view)
            else:
                writer.writelines([view, b"."])
            writer.write(b"end")
            expected = bytes(view) + (b"end" if way == "write" else b".end")
            writer.close()
            assert await receive(peer) == expected
            await writer.wait_closed()

    run(main)


@pytest.mark.defect("gh-135862")
@pytest.mark.parametrize("way", ["write", "writelines"])
def test_memoryviews_that_are_not_contiguous(run, streams, way):
    """A strided, a reversed and a two-dimensional memoryview are sent as tobytes() gives them."""

    async def main():
        views = [
            memoryview(bytes(range(200)))[::3],
            memoryview(b"0123456789")[::-1],
            memoryview(bytes(range(24))).cast("B", (4, 6)),
        ]
        expected = b"".join(view.tobytes() for view in views)
        async with client(streams) as (_, writer, peer):
            if way == "write":
                for view in views:
                    writer.write(view)
            else:
                writer.writelines(views)
            assert await receive(peer, len(expected)) == expected

    run(main)


@pytest.mark.defect("gh-75279")
def test_draining_never_starves_the_loop(run, streams):
    """A task that writes and drains to a fast peer without ever waiting lets a timer of 1 ms run
    now and then."""

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async with client(streams) as (_, writer, _peer):
            ticking = asyncio.ensure_future(tick())
            await asyncio.sleep(0)
            for _ in range(1000):
                writer.write(b"x")
                await writer.drain()
            assert ticks >= 3
            ticking.cancel()

    run(main)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.defect("a second close() of TLS breaks the transport")
def test_closing_twice(run, streams, tls, secure):
    """close() may be called again, before and after the end; what follows does not raise."""

    async def main():
        async with pair(streams, (tls.server, tls.client) if secure else (None, None)) as both:
            writer = both.writer
            writer.close()
            writer.close()
            assert writer.is_closing()
            writer.write(b"late")
            writer.get_extra_info("peername")
            both.server_writer.close()
            await writer.wait_closed()
            writer.close()
            writer.write(b"later")
            assert writer.is_closing()
            assert writer.get_extra_info("nothing", 5) == 5
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_wait_closed_after_a_reset(run, streams):
    """wait_closed() raises what broke the connection, to every caller, as documented; it does not
    hang."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            reset(peer)
            await until(lambda: reader.exception() is not None)
            writer.close()
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await writer.wait_closed()
            await finish(writer)

    run(main)


@pytest.mark.defect("gh-118950")
def test_a_dead_tls_connection_says_so(run, streams, tls):
    """When the socket under TLS is reset, is_closing() turns true and drain() raises."""

    async def main():
        async with pair(streams, (tls.server, tls.client)) as both:
            reset_under = both.server_writer.get_extra_info("socket")
            reset_under.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            both.server_writer.transport.abort()
            async with asyncio.timeout(patience(streams)):
                with pytest.raises(OSError):
                    while True:
                        both.writer.write(bytes(1000))
                        await both.writer.drain()
                        await asyncio.sleep(0.001)
            assert both.writer.is_closing()

    run(main)


@pytest.mark.parametrize("closed", [True, False])
def test_a_write_that_a_transport_refuses(run, closed):
    """uvloop's transports raise RuntimeError where asyncio's drop: it is dropped too, if the
    transport has closed itself, and only then."""

    class Refusing(asyncio.Transport):
        def write(self, data):
            raise RuntimeError("unable to perform operation")

        def is_closing(self):
            return closed

        def close(self):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        reader = headrace.StreamReader()
        writer = headrace.StreamWriter(
            Refusing(), headrace.StreamReaderProtocol(reader), reader, loop
        )
        if closed:
            writer.write(b"to nobody")
        else:
            with pytest.raises(RuntimeError, match="unable to perform"):
                writer.write(b"to somebody")
        writer.close()

    run(main)
