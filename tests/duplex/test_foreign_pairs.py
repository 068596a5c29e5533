"""A Stream over a pair that is not ours: asyncio's own, in plain text and over TLS, and the pipes
of a subprocess, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys

import pytest
from conftest import LOOP_KINDS, Run, open_descriptors
from support.certificates import HOST
from support.connections import LOOPBACK, until
from support.wires import tcp_pair, turns

import headrace
from headrace import framing

SHORT = 0.02
LONG = 30.0

# Sends back what comes, as it comes, up to the end.
ECHO = """
import os
while data := os.read(0, 65536):
    while data:
        data = data[os.write(1, data):]
"""


@pytest.fixture(params=[each for each in ("asyncio", "uvloop") if each in LOOP_KINDS])
def run(request):
    """Run a coroutine on asyncio's loop and on uvloop; no descriptor is left open by it."""
    before = open_descriptors()
    runner = Run(request.param)
    yield runner
    gc.collect()
    # (libuv opens /dev/null once for each loop.)
    assert not {each for each in open_descriptors() - before if "/dev/null" not in each}
    assert runner.errors == []


async def echo(reader, writer):
    """A handler of asyncio's own server: sends back what comes, up to the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def of_asyncio(tls=None, **options):
    """Give a Stream over asyncio's own pair, whose peer sends back what comes."""
    handlers = []

    async def handler(reader, writer):
        handlers.append(asyncio.current_task())
        await echo(reader, writer)

    secure = {} if tls is None else {"ssl": tls.client, "server_hostname": HOST}
    server = await asyncio.start_server(
        handler, LOOPBACK, 0, ssl=None if tls is None else tls.server
    )
    try:
        port = server.sockets[0].getsockname()[1]
        yield headrace.Stream(*await asyncio.open_connection(LOOPBACK, port, **secure, **options))
    finally:
        server.close()
        if handlers:
            await asyncio.wait(handlers)
        await turns(3)


@contextlib.asynccontextmanager
async def of_subprocess():
    """Give a Stream over the pipes of a subprocess that sends back what comes."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-E", "-c", ECHO, stdin=pipe, stdout=pipe
    )
    try:
        yield headrace.Stream(process.stdout, process.stdin)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # First: asyncio waits for the end of a pipe too, and does not see it in one that is full.
        process._transport.close()
        await process.wait()
        await turns(3)


@pytest.fixture(params=["plain", "tls", "subprocess"])
def echoing(request, tls):
    """What gives a Stream over a foreign pair, whose peer sends back what comes."""
    return {
        "plain": of_asyncio,
        "tls": lambda: of_asyncio(tls),
        "subprocess": of_subprocess,
    }[request.param]


async def end(stream):
    """Let the peer see the end, and so end too. (TLS of the loop cannot, and is closed.)"""
    if stream.can_write_eof():
        stream.write_eof()
        assert await stream.read_all() == b""
    await stream.aclose()


# ---- reads


def test_reads(run, echoing):
    """Each read returns what it does over a pair of ours, and takes no more."""

    async def main():
        async with echoing() as stream:
            await stream.write(b"one\ntwo;three!four five", bytearray(b" six seven"))
            assert await stream.readline() == b"one\n"
            assert await stream.readuntil((b";", b"|"), limit=10) == b"two;"
            assert await stream.peek(3) == b"thr"
            assert await stream.readexactly(6) == b"three!"
            assert await stream.skip(5) == 5
            buffer = bytearray(4)
            assert await stream.read_into(buffer) == 4
            assert buffer == b"five"
            assert await stream.readexactly(1) == b" "
            assert await stream.read(3) == b"six"
            stream.unread(b"again")
            assert await stream.readexactly(11) == b"again seven"
            assert stream.bytes_read == stream.bytes_written
            assert stream.read_nowait() == b""
            await stream.write(b"line\nlast")
            assert await anext(stream) == b"line\n"
            assert await stream.readexactly(4) == b"last"
            await end(stream)

    run(main)


def test_limits_and_the_end(run, echoing):
    """What is too long stays, and what is too short at the end is an error."""

    async def main():
        async with echoing() as stream:
            await stream.write(b"x" * 20)
            await stream.peek(20)
            for call in (
                lambda: stream.readline(limit=10),
                lambda: stream.readuntil(b"y", limit=10),
                lambda: stream.read_all(limit=10),
            ):
                with pytest.raises(asyncio.LimitOverrunError):
                    await call()
            assert stream.buffered == 20
            if stream.can_write_eof():
                stream.write_eof()
                with pytest.raises(asyncio.IncompleteReadError) as caught:
                    await stream.readexactly(21)
                assert caught.value.partial == b"x" * 20
                assert stream.at_eof()
            await stream.aclose()

    run(main)


def test_frames(run, echoing):
    """Frames go out and come back, one at a time and many, and nothing is kept between."""

    async def main():
        async with echoing() as stream:
            frames = stream.framed(framing.LengthPrefixed(2, limit=30_000))
            given = [b"one", b"", os.urandom(20_000), b"four"]
            await frames.write(*given)
            assert [await frames.read() for _ in range(3)] == given[:3]
            assert await frames.read_many() == given[3:]
            waiting = asyncio.ensure_future(frames.read())
            await stream.write(b"\0")
            await asyncio.sleep(SHORT)
            waiting.cancel()
            await asyncio.wait([waiting])
            with pytest.raises(headrace.ReadTimeout):
                await frames.read(timeout=SHORT)
            await stream.write(b"\3abc{}\n")
            assert await frames.read() == b"abc"
            assert await stream.framed(framing.JSONLines()).read() == {}
            await end(stream)

    run(main)


def test_much_with_backpressure(run, echoing):
    """What is more than all buffers arrives whole, also where several write."""

    async def main():
        data = [bytes([each]) * 150_000 for each in range(20)]
        async with echoing() as stream:

            async def write(piece):
                await stream.write(piece[:100_000], piece[100_000:])

            writing = [asyncio.ensure_future(write(piece)) for piece in data]
            assert await stream.readexactly(3_000_000) == b"".join(data)
            await asyncio.gather(*writing)
            await stream.flush()
            assert stream.unsent == 0
            await end(stream)

    run(main)


# ---- time


def test_times_of_reads(run, echoing):
    """A read whose time is over has taken nothing, whatever bounds it."""

    async def main():
        async with echoing() as stream:
            await stream.write(b"abc")
            await stream.peek(3)
            for timeout in (0, SHORT):
                with pytest.raises(headrace.ReadTimeout, match="readexactly"):
                    await stream.readexactly(4, timeout=timeout)
            with pytest.raises(headrace.DeadlineExceeded):
                with stream.deadline(SHORT):
                    await stream.readline()
            stream.read_timeout = SHORT
            with pytest.raises(headrace.ReadTimeout):
                await stream.readexactly(4)
            stream.read_timeout = None
            assert await stream.read(timeout=0) == b"abc"
            with pytest.raises(headrace.ReadTimeout) as caught:
                await stream.skip(5, timeout=0)
            assert caught.value.transferred == 0
            with pytest.raises(headrace.ReadTimeout):
                await stream.wait_peer_gone(timeout=SHORT)
            assert not asyncio.current_task().cancelling()
            await end(stream)

    run(main)


def test_slow_but_moving(run, echoing):
    """A read_timeout is for one wait, and each byte begins a new one; timeout= is for all."""

    async def main():
        async with echoing() as stream:
            stream.read_timeout = LONG

            async def drip(count):
                for _ in range(count):
                    await stream.write(b"x")
                    await asyncio.sleep(0.08)

            dripping = asyncio.ensure_future(drip(8))
            stream.read_timeout = 0.5
            assert await stream.readexactly(8) == b"x" * 8
            await dripping
            dripping = asyncio.ensure_future(drip(8))
            with pytest.raises(headrace.ReadTimeout):
                await stream.readexactly(9, timeout=0.1)
            await dripping
            assert await stream.readexactly(8) == b"x" * 8
            await end(stream)

    run(main)


async def stuck(**options):
    """Return a Stream over asyncio's own pair that has written more than fits, and its peer."""
    mine, peer = tcp_pair()
    peer.setblocking(False)
    stream = headrace.Stream(*await asyncio.open_connection(sock=mine, **options))
    while stream.unsent < 1 << 20:
        stream.write_nowait(bytes(1 << 20))
    return stream, peer


async def take(peer, size):
    """Return *size* bytes of what comes to *peer*."""
    received = bytearray()
    while len(received) < size:
        received += await asyncio.get_running_loop().sock_recv(peer, size - len(received))
    return bytes(received)


def test_times_of_writes(run):
    """A write whose time is over was not accepted: it arrives once it is tried again."""

    async def main():
        stream, peer = await stuck()
        with peer:
            before = stream.bytes_written
            with pytest.raises(headrace.WriteTimeout):
                await stream.write(b"once", timeout=SHORT)
            with pytest.raises(headrace.WriteTimeout):
                await stream.flush(timeout=SHORT)
            with pytest.raises(headrace.DeadlineExceeded):
                with stream.deadline(SHORT):
                    await stream.write(b"once")
            stream.write_timeout = SHORT
            with pytest.raises(headrace.WriteTimeout):
                await stream.write(b"once")
            stream.write_timeout = None
            assert stream.bytes_written == before
            waiting = [asyncio.ensure_future(stream.write(b"%d" % each)) for each in range(3)]
            await turns(3)
            waiting[1].cancel()
            assert len(await take(peer, before)) == before
            await asyncio.wait(waiting)
            await stream.write(b"end")
            assert await take(peer, 5) == b"02end"
            await stream.aclose()
            assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""

    run(main)


# ---- cancellation, and who waits


def test_cancellation(run, echoing):
    """A read that is cancelled has taken nothing, also when something comes at that moment."""

    async def main():
        async with echoing() as stream:
            for each in range(8):
                waiting = asyncio.ensure_future(stream.readexactly(6))
                await turns(2)
                await stream.write(b"abc")
                await turns(each)
                waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                await stream.write(b"def")
                assert await stream.readexactly(6) == b"abcdef"
            await end(stream)

    run(main)


def test_one_reads_at_a_time(run, echoing):
    """A second read that has to wait is refused, and the first goes on."""

    async def main():
        async with echoing() as stream:
            first = asyncio.ensure_future(stream.readexactly(3))
            await turns(2)
            with pytest.raises(RuntimeError, match="already waiting"):
                await stream.read(1)
            await stream.write(b"abc")
            assert await first == b"abc"
            await end(stream)

    run(main)


def test_unread_beside_a_read(run, echoing):
    """What is put back while a read waits is read before what comes then."""

    async def main():
        async with echoing() as stream:
            waiting = asyncio.ensure_future(stream.readexactly(3))
            await asyncio.sleep(SHORT)
            stream.unread(b"abcd")
            await stream.write(b"ef")
            assert await waiting == b"abc"
            assert await stream.readexactly(3) == b"def"
            await end(stream)

    run(main)


# ---- the end


def test_abort(run, echoing):
    """A read that waits, and what is called later, raises that this side has aborted."""

    async def main():
        async with echoing() as stream:
            waiting = asyncio.ensure_future(stream.read())
            await turns(2)
            stream.abort()
            with pytest.raises(ConnectionAbortedError):
                await waiting
            with pytest.raises(OSError):
                await stream.write(b"x")
            with pytest.raises(ConnectionResetError):
                stream.write_nowait(b"x")
            assert stream.closing
            assert "closing" in repr(stream)
            stream.abort()
            await stream.aclose()

    run(main)


def test_aclose(run, echoing):
    """It sends what was gathered, and can be called again, also after it was cancelled."""

    async def main():
        async with echoing() as stream:
            with stream.corked():
                await stream.write(b"abc")
                await stream.flush()
                assert await stream.readexactly(3) == b"abc"
                await stream.write(b"def")
                closing = asyncio.ensure_future(stream.aclose())
                await turns(1)
                closing.cancel()
                await asyncio.wait([closing])
            await stream.aclose()
            assert stream.closing
            for call in (lambda: stream.write(b"x"), stream.flush):
                with contextlib.suppress(OSError):
                    await call()

    run(main)


def test_a_block_sends_everything(run):
    """A block that ends sends everything and an end; one that ends by an exception resets."""

    async def main():
        for error in (None, ZeroDivisionError):
            mine, peer = tcp_pair()
            peer.setblocking(False)
            with peer, contextlib.suppress(ZeroDivisionError):
                async with headrace.Stream(*await asyncio.open_connection(sock=mine)) as stream:
                    await stream.write(b"all of it")
                    assert await take(peer, 9) == b"all of it"
                    if error is not None:
                        raise error
                assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
            if error is not None:
                assert stream.closing
            await turns(3)

    run(main)


def test_what_was_fetched_is_given_back(run):
    """stream.reader has what was fetched and not read, in front of what comes."""

    async def main():
        async with of_asyncio() as stream:
            await stream.write(b"one two")
            assert await stream.peek(4) == b"one "
            assert await stream.reader.readexactly(4) == b"one "
            assert await stream.readexactly(3) == b"two"
            await end(stream)

    run(main)


# ---- TLS, and relays


def test_start_tls(run, tls):
    """asyncio's own pair is upgraded, and what is put back before is not lost."""

    async def main():
        async def handler(reader, writer):
            assert await reader.readline() == b"start\n"
            writer.write(b"go\n")
            await writer.start_tls(tls.server)
            await echo(reader, writer)

        server = await asyncio.start_server(handler, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        stream = headrace.Stream(*await asyncio.open_connection(LOOPBACK, port))
        await stream.write(b"start\n")
        assert await stream.readline() == b"go\n"
        await stream.start_tls(tls.client, server_hostname=HOST, timeout=5)
        assert stream.tls is not None
        await stream.write(b"secret")
        assert await stream.readexactly(6) == b"secret"
        await stream.aclose()
        server.close()
        await asyncio.sleep(0.05)  # the handler and its transport end in turns of their own

    run(main)


@pytest.mark.parametrize("other", ["plain", "tls", "subprocess"])
def test_relay(run, tls, way, other):
    """A relay between a pair of ours and another passes everything on, both ways."""
    echoing = {"plain": of_asyncio, "tls": lambda: of_asyncio(tls), "subprocess": of_subprocess}

    async def main():
        data = os.urandom(700_000)
        mine, peer = tcp_pair()
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        with peer:
            ours = await headrace.connect(sock=mine, way=way)
            async with echoing[other]() as theirs:
                theirs.unread(b"first ")
                relaying = asyncio.ensure_future(headrace.relay(ours, theirs, linger=0.2))
                sending = asyncio.ensure_future(loop.sock_sendall(peer, data))
                assert await take(peer, 6 + len(data)) == b"first " + data
                await sending
                peer.shutdown(socket.SHUT_WR)
                result = await relaying
                assert (result.a_to_b, result.b_to_a) == (len(data), 6 + len(data))
                assert result.ended_first == "a"
                # TLS of a loop has no end of one half: the other way goes on until nothing comes.
                assert result.reason == ("linger" if other == "tls" else "both ended")
                await theirs.aclose()
            await ours.aclose()

    run(main)


def test_a_relay_is_cancelled(run, echoing):
    """What was received and not passed on is read from its stream next."""

    async def main():
        data = os.urandom(1_000_000)
        async with echoing() as source, of_asyncio() as target:
            writing = asyncio.ensure_future(source.write(data))
            relaying = asyncio.ensure_future(headrace.relay(source, target))
            await until(lambda: target.bytes_written > 0)
            relaying.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await relaying
            passed = caught.value.transferred.a_to_b
            back = caught.value.transferred.b_to_a
            # What has come back was written to the source, behind the rest. (Read before the write
            # has ended: what lies between the two may have no room for all of it.)
            rest = await source.readexactly(len(data) - passed)
            await writing
            again = await target.readexactly(passed - back)
            assert len(rest) + passed == len(data)
            assert rest == data[passed:]
            assert again == data[back:passed]
            source.abort()
            target.abort()

    run(main)
