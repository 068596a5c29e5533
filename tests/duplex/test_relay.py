"""relay(): both ways, half-closes, resets, stalls and cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from typing import Any

import pytest
from support.relayed import peers

from headrace import ReadTimeout, relay
from headrace._duplex import splice
from headrace._transport import backend

BLOB = os.urandom(1 << 20)
# More than any relay reads before it splices.
LARGE = BLOB * 8


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


FAMILIES = [
    (socket.AF_INET, socket.AF_INET),
    (socket.AF_INET, socket.AF_UNIX),
    (socket.AF_UNIX, socket.AF_INET),
    (socket.AF_UNIX, socket.AF_UNIX),
]


@pytest.mark.parametrize("families", FAMILIES, ids=["tcp", "tcp-unix", "unix-tcp", "unix"])
def test_much_goes_both_ways_and_ends_are_carried(run: Any, ours: Any, families: Any) -> None:
    """Every byte arrives both ways at once, each end is passed on, and the result counts them."""

    async def main() -> None:
        async with peers(ours, *families) as p:
            task = asyncio.create_task(relay(p.a, p.b))

            async def side(sock: socket.socket, data: bytes) -> bytes:
                reading = asyncio.create_task(p.receive(sock))
                await p.send(sock, data)
                sock.shutdown(socket.SHUT_WR)
                return await reading

            got = await asyncio.gather(side(p.left, LARGE), side(p.right, LARGE[:-7]))
            assert got == [LARGE[:-7], LARGE]
            result = await task
            assert (result.a_to_b, result.b_to_a) == (len(LARGE), len(LARGE) - 7)
            assert result.reason == "both ended"
            assert result.ended_first in ("a", "b")
            assert p.a.bytes_read == p.b.bytes_written == len(LARGE)

    run(main())


def test_a_half_close_leaves_the_other_way_open(run: Any, ours: Any) -> None:
    """After the end of one way the other goes on, and its bytes arrive."""

    async def main() -> None:
        async with peers(ours) as p:
            task = asyncio.create_task(relay(p.a, p.b))
            p.left.shutdown(socket.SHUT_WR)
            assert await p.receive(p.right) == b""
            for _ in range(3):
                await p.send(p.right, b"answer")
                assert await p.receive(p.left, 6) == b"answer"
            p.right.shutdown(socket.SHUT_WR)
            result = await task
            assert (result.b_to_a, result.ended_first) == (18, "a")

    run(main())


def test_what_was_read_ahead_goes_first(run: Any, ours: Any) -> None:
    """Bytes that one has put back, or has not read, go before what comes."""

    async def main() -> None:
        async with peers(ours) as p:
            await p.send(p.left, b"world")
            await p.a.peek(5)
            p.a.unread(b"hello ")
            task = asyncio.create_task(relay(p.a, p.b))
            assert await p.receive(p.right, 11) == b"hello world"
            p.left.shutdown(socket.SHUT_WR)
            p.right.shutdown(socket.SHUT_WR)
            assert (await task).a_to_b == 11

    run(main())


@pytest.mark.parametrize("size", [0, len(LARGE)])
def test_a_reset_is_passed_on(run: Any, ours: Any, size: int) -> None:
    """Where one peer resets, the other sees a reset."""

    async def main() -> None:
        async with peers(ours) as p:
            task = asyncio.create_task(relay(p.a, p.b))
            await asyncio.gather(p.send(p.left, LARGE[:size]), p.receive(p.right, size))
            reset(p.left)
            result = await task
            assert (result.reason, result.ended_first) == ("reset", "a")
            assert result.a_to_b == size
            with pytest.raises(ConnectionResetError):
                await p.receive(p.right)

    run(main())


def test_who_sends_nothing_is_idle(run: Any, ours: Any) -> None:
    """The idle timeout ends a relay in which nothing moves, and both streams can be used."""

    async def main() -> None:
        async with peers(ours) as p:
            result = await relay(p.a, p.b, idle_timeout=0.05)
            assert (result.reason, result.ended_first) == ("idle", None)
            await p.a.write(b"late")
            assert await p.receive(p.left, 4) == b"late"

    run(main())


def test_who_never_ends_is_lingered_for(run: Any, ours: Any) -> None:
    """Once one way has ended the other has the linger, from the last byte on."""

    async def main() -> None:
        async with peers(ours) as p:
            p.left.shutdown(socket.SHUT_WR)
            result = await relay(p.a, p.b, linger=0.05)
            assert (result.reason, result.ended_first) == ("linger", "a")

    run(main())


@pytest.mark.parametrize("stalled", [True, False])
def test_after_a_cancellation_no_byte_is_lost(run: Any, ours: Any, stalled: bool) -> None:
    """What the relay had in hand is read from its stream next; the error says how far it came."""

    async def main() -> None:
        async with peers(ours) as p:
            p.right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            task = asyncio.create_task(relay(p.a, p.b))
            sending = asyncio.create_task(p.send(p.left, LARGE))
            got = b""
            if not stalled:
                got = await p.receive(p.right, len(LARGE) // 2)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            passed = caught.value.transferred.a_to_b
            receiving = asyncio.create_task(p.receive(p.right))
            rest = await p.a.readexactly(len(LARGE) - passed)
            await sending
            await p.b.flush()
            p.b.write_eof()
            got += await receiving
            assert len(got) == passed
            assert got + rest == LARGE

    run(main())


def test_a_timeout_of_a_stream_ends_it(run: Any, ours: Any) -> None:
    """A read_timeout and a deadline count for a relay."""

    async def main() -> None:
        async with peers(ours) as p:
            p.a.read_timeout = 0.05
            with pytest.raises(ReadTimeout) as caught:
                await relay(p.a, p.b)
            assert caught.value.transferred.a_to_b == 0
            p.a.read_timeout = None
            with pytest.raises(TimeoutError), p.b.deadline(0.05):
                await relay(p.a, p.b)

    run(main())


def test_who_closes_a_stream_ends_it(run: Any, native: Any) -> None:
    """A stream that somebody closes while a relay splices does not leave it waiting."""

    async def main() -> None:
        for name in ("a", "b"):
            async with peers(native) as p:
                task = asyncio.create_task(relay(p.a, p.b, linger=0.2))
                await asyncio.gather(p.send(p.left, LARGE), p.receive(p.right, len(LARGE)))
                getattr(p, name).abort()
                assert (await task).reason in ("reset", "linger")

    run(main())


@pytest.mark.skipif(backend.native is None, reason="it splices on the native way only")
def test_it_splices_what_is_much_and_buffers_what_is_little(
    run: Any, native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full receives are spliced, and small ones go back into buffers."""
    counts = []
    pump = splice.pump

    async def counted(*args: Any) -> None:
        counts.append(0)
        await pump(*args)
        counts.append(1)

    monkeypatch.setattr(splice, "pump", counted)

    async def main() -> None:
        async with peers(native) as p:
            task = asyncio.create_task(relay(p.a, p.b))
            for _ in range(50):
                await p.send(p.left, b"x" * 64)
                assert await p.receive(p.right, 64) == b"x" * 64
            assert counts == []
            await asyncio.gather(p.send(p.left, LARGE), p.receive(p.right, len(LARGE)))
            assert counts[0] == 0
            for _ in range(50):
                await p.send(p.left, b"x" * 64)
                assert await p.receive(p.right, 64) == b"x" * 64
            assert counts[-1] == 1
            task.cancel()
            await asyncio.wait([task])

    run(main())


def test_without_pipes_it_copies(run: Any, native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no pipe everything goes through buffers."""
    monkeypatch.setattr(splice, "open_pipe", lambda: None)

    async def main() -> None:
        async with peers(native) as p:
            task = asyncio.create_task(relay(p.a, p.b))
            _, got = await asyncio.gather(p.send(p.left, LARGE), p.receive(p.right, len(LARGE)))
            assert got == LARGE
            task.cancel()
            await asyncio.wait([task])

    run(main())


def test_arguments_are_checked(run: Any, ours: Any) -> None:
    """What is no Stream, the same one twice, and times that are none raise."""

    async def main() -> None:
        async with peers(ours) as p:
            with pytest.raises(TypeError):
                await relay(p.a, object())  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="different"):
                await relay(p.a, p.a)
            with pytest.raises(ValueError):
                await relay(p.a, p.b, linger=-1)

    run(main())


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules(run: Any, ours: Any, seed: int) -> None:
    """Whatever both peers do, the relay ends, and what arrives is the start of what was sent."""
    chance = random.Random(seed)

    async def main() -> None:
        async with peers(ours, *chance.choice(FAMILIES)) as p:
            task = asyncio.create_task(relay(p.a, p.b, idle_timeout=1.0, linger=0.2))
            sent = {p.left: bytearray(), p.right: bytearray()}
            got = {p.left: bytearray(), p.right: bytearray()}

            async def write(sock: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    for _ in range(chance.randrange(1, 12)):
                        size = chance.choice((1, 64, 5000, 70000, 1 << 20))
                        sent[sock] += BLOB[:size]
                        await p.send(sock, BLOB[:size])
                        if chance.random() < 0.3:
                            await asyncio.sleep(chance.random() * 0.02)
                    end = chance.random()
                    if end < 0.7:
                        sock.shutdown(socket.SHUT_WR)
                    elif end < 0.8:
                        task.cancel()

            async def read(sock: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while data := await p.loop.sock_recv(sock, 1 << 18):
                        got[sock] += data
                        if chance.random() < 0.1:
                            await asyncio.sleep(0.01)

            work = [
                asyncio.create_task(each(sock))
                for each in (write, read)
                for sock in (p.left, p.right)
            ]
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if task.cancelled():
                transferred = None
            else:
                transferred = task.result()
            with contextlib.suppress(OSError):
                await p.a.aclose(timeout=0.5)
                await p.b.aclose(timeout=0.5)
            p.a.abort()
            p.b.abort()
            await asyncio.wait(work, timeout=2)
            for each in work:
                each.cancel()
            await asyncio.wait(work)
            assert sent[p.left].startswith(got[p.right])
            assert sent[p.right].startswith(got[p.left])
            if transferred is not None and transferred.reason == "both ended":
                assert (got[p.left], got[p.right]) == (sent[p.right], sent[p.left])

    run(main())
