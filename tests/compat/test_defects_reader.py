"""What asyncio's reader gets wrong, and ours does not. `defects.md` has one row for each."""

import asyncio
import contextvars
import time

import pytest
from support.connections import client, finish, pair, patience, receive, reset, serving, until


async def lost(reader):
    """Wait until *reader* has been told that its connection broke."""
    await until(lambda: reader.exception() is not None)


@pytest.mark.defect("gh-75044")
@pytest.mark.parametrize("way", ["read", "readexactly", "readline", "readuntil", "iteration"])
def test_data_before_a_reset(run, streams, way):
    """What arrived before the connection was reset is delivered; the error comes when a read cannot
    be satisfied."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"one\ntwo\nrest")
            await until(lambda: len(reader._buffer) == 12)
            reset(peer)
            await lost(reader)
            if way == "read":
                assert await reader.read(100) == b"one\ntwo\nrest"
            elif way == "readexactly":
                assert await reader.readexactly(8) == b"one\ntwo\n"
            elif way == "readline":
                assert await reader.readline() == b"one\n"
                assert await reader.readline() == b"two\n"
            elif way == "readuntil":
                assert await reader.readuntil((b"o\n", b"\r")) == b"one\ntwo\n"
            else:
                got = []
                with pytest.raises(ConnectionResetError):
                    async for line in reader:
                        got.append(line)
                assert got == [b"one\n", b"two\n"]
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1000)

    run(main)


@pytest.mark.defect("gh-75044")
def test_what_a_failed_read_leaves_after_a_reset(run, streams):
    """A read that the reset made impossible takes nothing: the bytes are there for one that they
    satisfy."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.send(b"partial")
            await until(lambda: len(reader._buffer) == 7)
            reset(peer)
            await lost(reader)
            for call in (
                reader.readline,
                reader.read,
                lambda: reader.readexactly(8),
                lambda: reader.readuntil(b"x"),
            ):
                with pytest.raises(ConnectionResetError):
                    await call()
            assert await reader.read(3) == b"par"
            assert await reader.read(100) == b"tial"
            with pytest.raises(ConnectionResetError):
                await reader.read(1)

    run(main)


def test_set_exception_comes_before_data(run, streams):
    """An explicit set_exception() is raised at once, whatever is buffered, as in asyncio."""

    async def main():
        reader = streams.StreamReader()
        reader.feed_data(b"line\n")
        reader.set_exception(ValueError("explicit"))
        for call in (
            reader.readline,
            reader.read,
            lambda: reader.read(1),
            lambda: reader.readexactly(1),
        ):
            with pytest.raises(ValueError, match="explicit"):
                await call()

    run(main)


@pytest.mark.defect("cancelled read() loses data")
@pytest.mark.parametrize("size", [-1, None])
def test_a_cancelled_read_all_loses_nothing(run, streams, size):
    """read() to the end, cancelled or timed out after some blocks, leaves them for the next
    read."""

    async def main():
        async with client(streams) as (reader, _, peer):
            reading = asyncio.ensure_future(reader.read() if size is None else reader.read(size))
            await asyncio.sleep(0)
            for block in b"ABC", b"DEFGH":
                peer.send(block)
                await asyncio.sleep(0.005)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            peer.send(b"XYZ")
            peer.close()
            assert await reader.read() == b"ABCDEFGHXYZ"

    run(main)


@pytest.mark.parametrize("way", ["readexactly", "readline", "readuntil", "read"])
def test_other_cancelled_reads_lose_nothing(run, streams, way):
    """A read that is cancelled while half of what it wants is there takes none of it."""

    async def main():
        async with client(streams) as (reader, _, peer):
            call = {
                "readexactly": lambda: reader.readexactly(100_000),
                "readline": reader.readline,
                "readuntil": lambda: reader.readuntil(b"\r\n\r\n"),
                "read": lambda: reader.read(10),
            }[way]
            if way != "read":
                peer.send(b"half")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(), 0.01)
            peer.send(b"+rest")
            peer.close()
            assert await reader.read() == (b"+rest" if way == "read" else b"half+rest")

    run(main)


def test_a_read_right_after_a_timed_out_one(run, streams):
    """The read after a timed-out one may wait at once: the cancelled waiter is gone."""

    async def main():
        async with client(streams) as (reader, _, peer):
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await reader.readline()
            peer.send(b"ok\n")
            assert await reader.readline() == b"ok\n"

    run(main)


@pytest.mark.defect("limit does not bound memory")
@pytest.mark.parametrize("limit", [256, 1024, 16384])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_limit_bounds_memory(run, streams, tls, limit, secure):
    """An unread reader holds at most 2 * limit and one receive, which is itself sized by the limit
    (at least 1 KiB)."""

    async def main():
        async with pair(
            streams, (tls.server, tls.client) if secure else (None, None), limit=limit
        ) as both:
            for reader, writer in (
                (both.reader, both.server_writer),
                (both.server_reader, both.writer),
            ):
                writer.write(bytes(1 << 20))
                await until(lambda reader=reader: reader._paused)
                await asyncio.sleep(0.005)
                assert 2 * limit < len(reader._buffer) <= 2 * limit + max(limit, 1024)
                assert await reader.readexactly(1 << 20) == bytes(1 << 20)

    run(main)


def test_limit_at_both_ends_of_a_server(run, streams):
    """A paused reader goes on by itself once it is read below its limit, and no byte is lost on the
    way."""

    async def main():
        data = bytes(range(256)) * 4096
        async with client(streams, limit=100) as (reader, _, peer):
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(peer, data))
            got = bytearray()
            while len(got) < len(data):
                got += await reader.read(777)
            await sending
            assert got == data

    run(main)


def test_a_message_of_too_long_a_line(run, ours):
    """The error of a line that is too long names its size and the limit."""

    async def main():
        reader = ours.StreamReader(limit=16)
        reader.feed_data(b"x" * 40 + b"\nnext\n" + b"y" * 50)
        with pytest.raises(
            ValueError, match=r"Separator is found, but chunk is longer than limit .*40.*16"
        ):
            await reader.readline()
        assert await reader.readline() == b"next\n"
        with pytest.raises(
            ValueError, match=r"Separator is not found, and chunk exceed the limit .*50.*16"
        ):
            await reader.readline()
        reader.feed_data(b"z\n")
        assert await reader.readline() == b"z\n"

    run(main)


def cost(streams, separator, pieces, piece):
    """Return the seconds that it takes to search *pieces* arrivals, one by one."""

    async def main():
        reader = streams.StreamReader(limit=1 << 30)
        reading = asyncio.ensure_future(reader.readuntil(separator))
        await asyncio.sleep(0)
        began = time.process_time()
        for _ in range(pieces):
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_data(b"\r\n")
        await reading
        return time.process_time() - began

    return asyncio.run(main())


@pytest.mark.defect("absent tuple separators are searched for again and again")
def test_absent_tuple_separators_cost_nothing(streams):
    """With one separator of a tuple a long way behind the other, 100 short records in a 4 MiB
    buffer cost 100 short searches."""

    async def main():
        reader = streams.StreamReader(limit=1 << 30)
        record = b"x" * 40 + b"\r\n"
        count = 100_000
        reader.feed_data(record * count)
        began = time.process_time()
        for _ in range(200):
            assert await reader.readuntil((b"\r\n", b"absent")) == record
        spent = time.process_time() - began
        began = time.process_time()
        for _ in range(200):
            assert await reader.readuntil(b"\r\n") == record
        return spent, time.process_time() - began

    spent, single = asyncio.run(main())
    assert spent < 20 * single + 0.01


def test_a_separator_that_never_comes_is_searched_once(streams):
    """The search of a line that arrives in N pieces looks at each byte once: four times the pieces
    cost about four times."""
    cost(streams, b"\r\n", 100, b"x" * 1000)
    small = min(cost(streams, b"\r\n", 500, b"x" * 1000) for _ in range(3))
    large = min(cost(streams, b"\r\n", 2000, b"x" * 1000) for _ in range(3))
    assert large < 10 * small + 0.01


variable = contextvars.ContextVar("variable", default="none")


@pytest.mark.defect("gh-140947")
def test_context_variables_do_not_leak(run, streams):
    """A handler sees the context of start_server's caller, not of whoever resumed reading or
    connected last."""
    seen = []

    async def serve(reader, writer):
        while data := await reader.read(1 << 16):
            seen.append((variable.get(), len(data)))
            variable.set("handler")
        writer.close()
        await writer.wait_closed()

    async def main():
        async with serving(streams, serve, limit=1024) as address:
            variable.set("client")
            reader, writer = await streams.open_connection(*address)
            writer.write(bytes(200_000))
            writer.write_eof()
            assert await reader.read() == b""
            await finish(writer)
        assert {value for value, _ in seen} <= {"none", "handler"}
        assert variable.get() == "client"
        assert sum(size for _, size in seen) == 200_000

    run(main, patience(streams) * 2)


@pytest.mark.defect("gh-140947")
def test_resumed_receives_run_in_the_servers_context(run, streams):
    """feed_data() after a task resumed the transport does not see that task's context variables."""
    seen = []

    async def main():
        async with client(streams, limit=256) as (reader, _, peer):
            inner = reader.feed_data

            def feed(data):
                seen.append(variable.get())
                inner(data)

            reader.feed_data = feed

            async def read_all():
                variable.set("task")
                return await reader.readexactly(100_000)

            peer.send(bytes(50_000))
            await until(lambda reader=reader: reader._paused)
            reading = asyncio.ensure_future(read_all())
            await asyncio.sleep(0.002)
            peer.send(bytes(50_000))
            await reading
            assert len(seen) > 1
            assert set(seen) == {"none"}

    run(main, 2)


def test_receive_after_a_full_duplex_exchange(run, streams):
    """Both directions at once, far above the limits: every byte arrives in order."""

    async def main():
        async with client(streams, limit=512) as (reader, writer, peer):
            data = bytes(range(256)) * 2048
            writer.write(data)
            loop = asyncio.get_running_loop()
            got, arrived, _ = await asyncio.gather(
                reader.readexactly(len(data)),
                receive(peer, len(data)),
                loop.sock_sendall(peer, data),
            )
            assert got == data
            assert arrived == data

    run(main)
