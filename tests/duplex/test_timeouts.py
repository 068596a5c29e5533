"""Timeouts and deadlines: what they bound, what they raise, and that nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import socket
import weakref

import pytest
from support.duplex import stream_to

import headrace

SHORT = 0.02
# Longer than any test may take.
LONG = 30.0


async def fill(stream):
    """Write until a write would wait."""
    while stream.unsent == 0:
        stream.write_nowait(bytes(1 << 20))
    stream.write_nowait(bytes(1 << 20))


READS = {
    "read": lambda stream, **given: stream.read(10, **given),
    "readexactly": lambda stream, **given: stream.readexactly(10, **given),
    "readuntil": lambda stream, **given: stream.readuntil(b";", **given),
    "readline": lambda stream, **given: stream.readline(**given),
    "read_all": lambda stream, **given: stream.read_all(**given),
    "peek": lambda stream, **given: stream.peek(10, **given),
    "read_into": lambda stream, **given: stream.read_into(bytearray(10), **given),
    "skip": lambda stream, **given: stream.skip(10, **given),
}


@pytest.mark.parametrize("name", READS)
def test_each_read(run, way, name):
    """timeout=, read_timeout and a deadline each end each read, by an error that says which read
    and what it waited for; the stream goes on at once, and every byte is there."""

    async def main():
        async with stream_to(way) as (stream, peer):
            if name not in ("read", "read_into", "skip"):
                peer.send(b"abc")
            read = READS[name]
            with pytest.raises(headrace.ReadTimeout) as caught:
                await read(stream, timeout=SHORT)
            error = caught.value
            assert (error.operation, error.seconds) == (f"Stream.{name}", SHORT)
            assert error.stream is stream
            assert error.errno is None
            assert "peer" in str(error)
            stream.read_timeout = SHORT
            with pytest.raises(headrace.ReadTimeout) as caught:
                await read(stream)
            assert caught.value.seconds == SHORT
            stream.read_timeout = None
            with stream.deadline(SHORT) as deadline, pytest.raises(headrace.DeadlineExceeded):
                await read(stream)
            assert deadline.expired
            if name not in ("read", "read_into", "skip"):
                assert await stream.readexactly(3) == b"abc"
            peer.send(b"more")
            assert await stream.readexactly(4) == b"more"

    run(main)


@pytest.mark.parametrize("name", ["write", "flush"])
def test_each_write(run, way, name):
    """The same of writes, where the peer takes nothing; what timed out was not accepted."""

    async def main():
        async with stream_to(way) as (stream, _):
            await fill(stream)
            before = stream.bytes_written

            def call(**given):
                return getattr(stream, name)(*([b"x"] if name == "write" else []), **given)

            with pytest.raises(headrace.WriteTimeout) as caught:
                await call(timeout=SHORT)
            assert (caught.value.operation, caught.value.seconds) == (f"Stream.{name}", SHORT)
            stream.write_timeout = SHORT
            with pytest.raises(headrace.WriteTimeout):
                await call()
            stream.write_timeout = None
            with stream.deadline(SHORT), pytest.raises(headrace.DeadlineExceeded):
                await call()
            assert stream.bytes_written == before

    run(main)


def test_progress_restarts_a_read_timeout(run, way):
    """read_timeout is for a wait in which nothing comes; timeout= is for the whole call."""

    async def main():
        async with stream_to(way) as (stream, peer):

            async def trickle(count):
                for _ in range(count):
                    peer.send(b"x")
                    await asyncio.sleep(0.05)

            stream.read_timeout = 1.0
            trickling = asyncio.ensure_future(trickle(30))
            assert await stream.readexactly(30) == b"x" * 30
            await trickling
            stream.read_timeout = None
            trickling = asyncio.ensure_future(trickle(30))
            with pytest.raises(headrace.ReadTimeout):
                await stream.readexactly(30, timeout=0.3)
            await trickling
            assert await stream.readexactly(30) == b"x" * 30

    run(main)


def test_progress_restarts_a_write_timeout(run, way):
    """write_timeout is for a wait in which the peer takes nothing."""

    async def main():
        async with stream_to(way) as (stream, peer):
            await fill(stream)
            stream.write_timeout = 1.0
            loop = asyncio.get_running_loop()
            peer.setblocking(False)

            async def take():
                while not flushing.done():
                    await loop.sock_recv(peer, 1 << 16)
                    await asyncio.sleep(0.01)

            flushing = asyncio.ensure_future(stream.flush())
            taking = asyncio.ensure_future(take())
            await flushing
            assert stream.unsent == 0
            taking.cancel()

    run(main)


def test_the_nearest_deadline_counts(run, way):
    """Deadlines stand within one another, and the one that is over first ends the operation; the
    outer one then still bounds what follows."""

    async def main():
        async with stream_to(way) as (stream, peer):
            with stream.deadline(LONG) as outer, stream.deadline(SHORT) as inner:
                with pytest.raises(headrace.DeadlineExceeded) as caught:
                    await stream.read()
                assert caught.value.seconds == SHORT
            assert (inner.expired, outer.expired) == (True, False)
            with stream.deadline(SHORT) as outer:
                with stream.deadline(LONG) as inner, pytest.raises(headrace.DeadlineExceeded):
                    await stream.read()
                assert (inner.expired, outer.expired) == (False, True)
                peer.send(b"x")
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.read()
            assert await stream.read() == b"x"

    run(main)


def test_a_deadline_is_rescheduled(run, way):
    """A wait is told when its deadline comes nearer, and goes on when it is put off."""

    async def main():
        loop = asyncio.get_running_loop()
        async with stream_to(way) as (stream, peer):
            with stream.deadline(LONG) as deadline:
                assert LONG - 5 < deadline.remaining <= LONG
                loop.call_later(SHORT, lambda: deadline.reschedule(loop.time()))
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.read()
                deadline.reschedule(loop.time() + LONG)
                assert not deadline.expired
                peer.send(b"x")
                assert await stream.read() == b"x"
            assert deadline.when == math.inf
            with stream.deadline(at=loop.time() + SHORT), pytest.raises(headrace.DeadlineExceeded):
                await stream.read()

    run(main)


def test_a_reschedule_is_seen_by_what_waits_in_coroutines(run, way):
    """What is more than one operation, as the wait for the peer's end, is told as well."""

    async def main():
        loop = asyncio.get_running_loop()
        async with stream_to(way) as (stream, peer):
            with stream.deadline(LONG) as deadline:
                loop.call_later(SHORT, lambda: deadline.reschedule(loop.time()))
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.wait_peer_gone()
                # It is over: what begins now is refused at once.
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.wait_peer_gone()
            with stream.deadline(SHORT) as deadline:
                loop.call_soon(lambda: deadline.reschedule(math.inf))
                with pytest.raises(headrace.ReadTimeout):
                    await stream.wait_peer_gone(timeout=4 * SHORT)

    run(main)


def test_an_expired_deadline_and_the_pair_of_others(run, way):
    """A write over asyncio's own pair is refused when its deadline was over, also with room."""

    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            stream = headrace.Stream(reader, writer)
            with stream.deadline(SHORT):
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.read()
                with pytest.raises(headrace.DeadlineExceeded):
                    await stream.write(b"late")
            await stream.write(b"now")
            assert theirs.recv(10) == b"now"
            await stream.aclose()

    run(main)


def test_what_other_tasks_do_is_not_bounded(run, way):
    """A deadline is for the operations that its own task starts, whoever awaits them."""

    async def main():
        async with stream_to(way) as (stream, peer):

            async def read():
                return await stream.read()

            with stream.deadline(SHORT):
                other = asyncio.ensure_future(read())
                await asyncio.sleep(3 * SHORT)
                assert not other.done()
                await asyncio.gather(stream.write(b"y"), return_exceptions=True)
            peer.send(b"x")
            assert await other == b"x"
            with stream.deadline(SHORT):
                mine = asyncio.ensure_future(stream.read())
                with pytest.raises(headrace.DeadlineExceeded):
                    await mine

    run(main)


def test_a_peer_that_keeps_the_buffer_full(run, way):
    """A deadline also ends a task whose reads never wait: the loop has a turn now and then."""

    async def main():
        async with stream_to(way) as (stream, _):
            with stream.deadline(SHORT), pytest.raises(headrace.DeadlineExceeded):
                while True:
                    stream.unread(b"x" * 100)
                    await stream.readexactly(100)
            with stream.deadline(SHORT), pytest.raises(headrace.DeadlineExceeded):
                while True:
                    await stream.write()

    run(main)


def test_a_timeout_that_comes_with_the_bytes(run, way):
    """Where there is something for a read when it is woken by its timeout, it is returned."""

    async def main():
        async with stream_to(way) as (stream, _):
            reading = asyncio.ensure_future(stream.read(timeout=0))
            await asyncio.sleep(0)
            stream.unread(b"x")
            assert await reading == b"x"
            with pytest.raises(headrace.ReadTimeout):
                await stream.read(timeout=0)

    run(main)


def test_a_timeout_is_set_while_something_waits(run, way):
    """read_timeout and write_timeout count for what waits already, and can be taken back."""

    async def main():
        async with stream_to(way) as (stream, _):
            waiting = asyncio.ensure_future(stream.read())
            await asyncio.sleep(SHORT)
            stream.read_timeout = SHORT
            with pytest.raises(headrace.ReadTimeout):
                await waiting
            waiting = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            stream.read_timeout = None
            await asyncio.sleep(3 * SHORT)
            assert not waiting.done()
            waiting.cancel()
            await fill(stream)
            waiting = asyncio.ensure_future(stream.flush())
            await asyncio.sleep(SHORT)
            stream.write_timeout = SHORT
            with pytest.raises(headrace.WriteTimeout):
                await waiting
            assert (stream.read_timeout, stream.write_timeout) == (None, SHORT)

    run(main)


def test_closing_and_the_handshake(run, way, tls):
    """aclose() of what the peer does not take, and a handshake that it does not answer, end in
    time, and the connection is closed."""

    async def main():
        async with stream_to(way) as (stream, _):
            await fill(stream)
            with pytest.raises(headrace.WriteTimeout, match="aclose"):
                await stream.aclose(timeout=SHORT)
            assert stream.closing
        async with stream_to(way) as (stream, _):
            await fill(stream)
            with stream.deadline(SHORT), pytest.raises(headrace.DeadlineExceeded):
                await stream.aclose()
            assert stream.closing
        async with stream_to(way) as (stream, _):
            with pytest.raises(headrace.ConnectTimeout) as caught:
                await stream.start_tls(tls.client, server_hostname="localhost", timeout=SHORT)
            assert caught.value.phase == "TLS handshake"
            assert stream.closing
        async with stream_to(way) as (stream, _):
            with stream.deadline(SHORT), pytest.raises(headrace.DeadlineExceeded):
                await stream.start_tls(tls.client, server_hostname="localhost")

    run(main)


@pytest.mark.parametrize("wrong", [-1, math.nan, "5"])
def test_no_times(run, way, wrong):
    """What is no time is refused, and changes nothing."""

    async def main():
        async with stream_to(way) as (stream, peer):
            for call in (
                lambda: setattr(stream, "read_timeout", wrong),
                lambda: setattr(stream, "write_timeout", wrong),
                lambda: stream.deadline(wrong),
                lambda: stream.read(timeout=wrong),
                lambda: stream.write(b"x", timeout=wrong),
            ):
                with pytest.raises((TypeError, ValueError), match="number of seconds"):
                    call()
            assert stream.read_timeout is None
            with pytest.raises(TypeError):
                stream.deadline()
            with pytest.raises(TypeError):
                stream.deadline(1, at=1)
            with stream.deadline(LONG) as deadline:
                with pytest.raises(RuntimeError):
                    deadline.__enter__()
                if wrong != -1:  # a time that was
                    with pytest.raises((TypeError, ValueError), match="time of the loop"):
                        deadline.reschedule(wrong)
                    with pytest.raises((TypeError, ValueError), match="time of the loop"):
                        stream.deadline(at=wrong)
            peer.send(b"x")
            assert await stream.read() == b"x"

    run(main)


def test_the_kernels_timeout_is_another(run, way):
    """A connection that the system gave up raises TimeoutError with a number, and none of ours."""

    async def main():
        async with stream_to(way) as (stream, _):
            stream.reader.set_exception(TimeoutError(110, "Connection timed out"))
            with pytest.raises(TimeoutError) as caught:
                await stream.read(timeout=LONG)
            assert not isinstance(caught.value, headrace.StreamTimeout)
            assert caught.value.errno == 110

    run(main)


def test_errors_are_sent_to_other_processes(run, way):
    """An error can be pickled, without its stream."""
    for error in (
        headrace.ReadTimeout("Stream.read", 1.5, object()),
        headrace.DeadlineExceeded("Stream.write", 2.0),
        headrace.ConnectTimeout("connect", 3.0, "resolving x"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.stream) == (type(error), str(error), None)


def test_nothing_is_left(run, way):
    """A stream with timeouts is freed without the collector, once it is closed."""

    async def main():
        async with stream_to(way) as (stream, peer):
            stream.read_timeout = stream.write_timeout = LONG
            with stream.deadline(LONG):
                peer.send(b"x")
                await stream.read()
            await stream.write(b"y", timeout=LONG)
            await stream.aclose()
        gone = weakref.ref(stream)
        gc.collect()
        gc.disable()
        try:
            del stream
            assert gone() is None
        finally:
            gc.enable()

    run(main)
