"""relay(): a server's bound for idle connections, and what is left when a relay is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from typing import Any

import pytest
from conftest import open_descriptors
from support.relayed import Peers, pair, peers

import headrace
from headrace import Stream, relay
from headrace._duplex import relay as relays
from headrace._duplex import splice
from headrace._transport import backend

IDLE_S = 0.5
PIECE = os.urandom(1 << 19)
LARGE = os.urandom(1 << 20)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def counted_pumps(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Have relays splice after the first read that is not small, as a sender in the same loop is no
    fast one; return what grows by one with each time that splicing begins."""
    monkeypatch.setattr(relays, "FULL_BYTES", splice.SMALL_BYTES)
    monkeypatch.setattr(relays, "FULL_RECEIVES", 1)
    pumps: list[None] = []
    pump = splice.pump

    async def counted(*args: Any) -> None:
        pumps.append(None)
        await pump(*args)

    monkeypatch.setattr(splice, "pump", counted)
    return pumps


def test_traffic_keeps_a_server_from_ending_a_relay_as_idle(
    run: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under serve(idle_timeout=) relays in buffers and by splice, both ways and in one direction,
    outlast three times that bound while something moves, and are ended soon after."""
    pumps = counted_pumps(monkeypatch)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        slowest = 0.0

        async def handler(a: Stream) -> None:
            b, theirs = far.pop(a.peername)
            async with b:
                await relay(a, b)

        async def connection(port: int) -> Peers:
            near = socket.socket()
            near.setblocking(False)
            near.bind(("127.0.0.1", 0))
            b, theirs = await pair(ours, socket.AF_INET)
            far[near.getsockname()] = (b, theirs)
            await loop.sock_connect(near, ("127.0.0.1", port))
            return Peers(b, b, near, theirs)

        async def talk(p: Peers, piece: bytes, ways: str) -> None:
            nonlocal slowest
            until = loop.time() + 3.2 * IDLE_S
            before = loop.time()
            try:
                while loop.time() < until:
                    if ways != "back":
                        await exchange(p, p.left, p.right, piece)
                    if ways != "forth":
                        await exchange(p, p.right, p.left, piece)
                    await asyncio.sleep(IDLE_S / 8)
                    slowest = max(slowest, loop.time() - before)
                    before = loop.time()
            finally:
                slowest = max(slowest, loop.time() - before)

        far: dict[Any, Any] = {}
        server = headrace.serve(handler, "127.0.0.1", 0, idle_timeout=IDLE_S)
        async with server:
            port = server.sockets[0].getsockname()[1]
            connections = [await connection(port) for _ in range(6)]
            kinds = [(piece, w) for piece in (PIECE, b"x" * 64) for w in ("both", "forth", "back")]
            try:
                async with asyncio.TaskGroup() as group:
                    for p, (piece, ways) in zip(connections, kinds, strict=True):
                        group.create_task(talk(p, piece, ways))
            except* OSError:
                if slowest > IDLE_S / 2:
                    pytest.skip("this machine pauses for longer than the bound")
                raise
            assert server.statistics().ended.get("idle", 0) == 0
            while server.statistics().ended.get("idle", 0) < 6:
                await asyncio.sleep(0.02)
            for p in connections:
                p.left.close()
                p.right.close()
        if backend.native is not None and os.environ[backend.VARIABLE] == "native":
            assert len(pumps) >= 4

    run(main)


async def exchange(p: Peers, one: socket.socket, other: socket.socket, data: bytes) -> None:
    """Have *data* go from *one* to the *other*."""
    _, got = await asyncio.gather(p.send(one, data), p.receive(other, len(data)))
    assert got == data


async def settled() -> None:
    """Let the transports close their sockets."""
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["ended", "reset", "idle", "linger", "closed"])
def test_no_descriptor_is_left_by_a_relay(
    run: Any, ours: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a relay that has spliced both ways is over, the descriptors are those from before
    it, while its streams are still there."""
    counted_pumps(monkeypatch)

    async def main() -> None:
        async with peers(ours) as p:
            before = open_descriptors()
            task = asyncio.create_task(relay(p.a, p.b, idle_timeout=0.3, linger=0.05))
            await asyncio.gather(
                p.send(p.left, LARGE),
                p.send(p.right, LARGE),
                p.receive(p.left, len(LARGE)),
                p.receive(p.right, len(LARGE)),
            )
            expected = {"ended": "both ended", "closed": "reset"}.get(way, way)
            if way == "ended":
                p.left.shutdown(socket.SHUT_WR)
                p.right.shutdown(socket.SHUT_WR)
            elif way == "reset":
                reset(p.left)
            elif way == "linger":
                p.left.shutdown(socket.SHUT_WR)
            elif way == "closed":
                p.a.abort()
            assert (await task).reason == expected
            await settled()
            gone = {each for each in before if each not in open_descriptors()}
            assert not open_descriptors() - before
            if way in ("ended", "idle", "linger"):
                assert not gone

    run(main())


@pytest.mark.skipif(backend.native is None, reason="it splices on the native way only")
@pytest.mark.parametrize("then", ["end", "reset", "more"])
def test_no_descriptor_is_left_by_a_cancellation_at_any_turn(
    run: Any, native: Any, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that splices is cancelled at each turn of the loop, from before it sees what its
    peers do up to when it is over: descriptors are those from before, and no byte is lost."""
    pumps = counted_pumps(monkeypatch)

    async def cancelled_at(turn: int) -> bool:
        """Cancel one after *turn* turns; return whether it was over, or waits for more."""
        async with peers(native) as p:
            before = open_descriptors()
            task = asyncio.create_task(relay(p.a, p.b))
            got = bytearray()
            reading = asyncio.create_task(receive(p, got))
            await p.send(p.left, LARGE)
            while len(got) < len(LARGE):
                await asyncio.sleep(0)
            sent = LARGE
            if then == "end":
                p.left.shutdown(socket.SHUT_WR)
                p.right.shutdown(socket.SHUT_WR)
            elif then == "reset":
                reset(p.left)
            else:
                await p.send(p.left, b"more")
                sent += b"more"
            for _ in range(turn):
                await asyncio.sleep(0)
            over = task.done() if then != "more" else turn == 12
            task.cancel()
            try:
                passed = (await task).a_to_b
            except asyncio.CancelledError as error:
                passed = error.transferred.a_to_b  # type: ignore[attr-defined]
            assert not open_descriptors() - before
            if then != "reset":
                rest = await p.a.readexactly(len(sent) - passed)
                await p.b.flush()
                with contextlib.suppress(RuntimeError):  # it has passed the end on
                    p.b.write_eof()
                await reading
                assert bytes(got) + rest == sent
            reading.cancel()
            await asyncio.wait([reading])
            return over

    async def main() -> None:
        turn = 0
        while not await cancelled_at(turn):
            turn += 1
            assert turn < 60
        assert turn >= 3
        assert len(pumps) >= turn

    run(main())


@pytest.mark.skipif(backend.native is None, reason="it splices on the native way only")
@pytest.mark.parametrize("who", ["source", "target"])
def test_a_reset_that_splicing_is_told_of_is_no_end(
    run: Any, native: Any, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells a reset once, and then an end. Where splice() is told, on either side, the
    other peer sees a reset nevertheless, and no end in front of it."""
    counted_pumps(monkeypatch)
    number = -1
    victim: list[socket.socket] = []
    call = os.splice

    def after_a_reset(source: int, target: int, *args: Any, **options: Any) -> int:
        if victim and number == (source if who == "source" else target):
            reset(victim.pop())
            time.sleep(0.02)
        return call(source, target, *args, **options)

    monkeypatch.setattr(splice.os, "splice", after_a_reset)

    async def main() -> None:
        nonlocal number
        async with peers(native) as p:
            stream = p.a if who == "source" else p.b
            number = stream.writer.get_extra_info("socket").fileno()
            task = asyncio.create_task(relay(p.a, p.b))
            await asyncio.gather(p.send(p.left, LARGE), p.receive(p.right, len(LARGE)))
            victim.append(p.left if who == "source" else p.right)
            await p.send(p.left, b"more")
            result = await task
            assert not victim
            assert result.reason == "reset"
            assert result.ended_first == ("a" if who == "source" else "b")
            with pytest.raises(ConnectionResetError):
                await p.receive(p.right if who == "source" else p.left)

    run(main())


@pytest.mark.skipif(backend.native is None, reason="it splices on the native way only")
def test_a_reset_while_splicing_begins_is_of_the_source(
    run: Any, native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is lost while what was read ahead of splicing is still passed on is not taken
    for the loss of the target."""
    pumps = counted_pumps(monkeypatch)

    async def main() -> None:
        async with peers(native) as p:

            class Late(Stream):
                """Waits for the reset where it is to be written to."""

                async def write(self, *pieces: Any, **options: Any) -> None:
                    await super().write(*pieces)
                    if len(pieces[0]) >= splice.SMALL_BYTES and p.left.fileno() >= 0:
                        reset(p.left)
                        while p.a.reader.exception() is None:
                            await asyncio.sleep(0)

            b = Late(p.b.reader, p.b.writer)
            task = asyncio.create_task(relay(p.a, b, linger=0.3))
            await p.send(p.left, LARGE[:50_000])
            result = await task
            assert pumps == []
            assert (result.reason, result.ended_first) == ("reset", "a")
            with pytest.raises(ConnectionResetError):
                await p.receive(p.right)

    run(main())


async def receive(p: Peers, got: bytearray) -> None:
    """Add what comes on the right to *got*, up to the end."""
    with contextlib.suppress(ConnectionResetError):
        while data := await p.loop.sock_recv(p.right, 1 << 18):
            got += data
