"""relay() between peers that end, reset and stall at random, in plain text and TLS: a clean end is
only ever seen behind every byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import struct
from typing import Any

import pytest
from support.certificates import TlsPeer

from headrace import Stream, relay
from headrace._duplex import relay as relays
from headrace._transport import backend

BLOB = os.urandom(1 << 20)
# Relays at once, in each test.
RELAYS = 6


class Peer:
    """The socket at one end of a relay, which may talk TLS, and what it does."""

    def __init__(self, sock: socket.socket, secure: TlsPeer | None, chance: random.Random) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.secure = secure
        self.chance = chance
        self.sent = bytearray()
        self.got = bytearray()
        # Whether it has ended its half, and whether it has seen the end of the other's.
        self.has_ended = False
        self.saw_end = False
        # The system tells a reset once, and then an end: writing may have been told of it.
        self.broken = False

    async def write(self) -> None:
        """Send something, then end, reset, or do nothing more."""
        chance = self.chance
        try:
            for _ in range(chance.randrange(0, 9)):
                size = chance.choice((1, 64, 5000, 70_000, 400_000))
                start = chance.randrange(1000)
                piece = BLOB[start : start + size]
                self.sent += piece
                if self.secure is None:
                    await self.loop.sock_sendall(self.sock, piece)
                else:
                    await self.secure.write(piece)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.03)
            how = chance.random()
            if how < 0.7:
                self.has_ended = True
                await self.end()
            elif how < 0.85:
                self.broken = True
                option = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                self.sock.close()
        except (OSError, ValueError):
            self.broken = True

    async def end(self) -> None:
        """End its half: over TLS by a close_notify, with or without an end of TCP behind it."""
        if self.secure is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.secure.tls.unwrap()
            await self.loop.sock_sendall(self.sock, self.secure.outgoing.read())
        if self.secure is None or self.chance.random() < 0.5:
            self.sock.shutdown(socket.SHUT_WR)

    async def read(self) -> None:
        """Receive up to the end, with pauses."""
        with contextlib.suppress(OSError, ValueError):  # uvloop's, of a socket that it has closed
            while True:
                if self.secure is None:
                    data = await self.loop.sock_recv(self.sock, 1 << 17)
                else:
                    data = await self.secure.read(1 << 17)
                if not data:
                    self.saw_end = not self.broken
                    return
                self.got += data
                if self.chance.random() < 0.1:
                    await asyncio.sleep(self.chance.random() * 0.02)


async def connection(ours: Any, tls: Any, chance: random.Random) -> tuple[Stream, Peer]:
    """Return a stream of ours, over TLS where *tls* says how, and its peer."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]
    theirs.setblocking(False)
    if chance.random() < 0.3:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    if tls is None:
        return Stream(*await ours.open_connection(sock=mine)), Peer(theirs, None, chance)
    secure = TlsPeer(theirs, tls.server)
    handshake = loop.create_task(secure.handshake())
    pair = await ours.open_connection(sock=mine, ssl=tls.client, server_hostname="localhost")
    await handshake
    return Stream(*pair), Peer(theirs, secure, chance)


async def relayed(ours: Any, near: Any, far: Any, chance: random.Random) -> None:
    """Relay between two peers that do anything, and compare what they saw."""
    a, left = await connection(ours, near, chance)
    b, right = await connection(ours, far, chance)
    work = [
        asyncio.create_task(each()) for each in (left.read, right.read, left.write, right.write)
    ]
    async with asyncio.timeout(8):
        result = await relay(a, b, idle_timeout=0.4, linger=0.25)
        for stream in (a, b):
            with contextlib.suppress(OSError):
                await stream.aclose(timeout=2)
    await asyncio.wait(work[:2], timeout=2 if result.reason == "both ended" else 0.3)
    for each in work:
        each.cancel()
    await asyncio.wait(work)
    for each in work:
        assert each.cancelled() or each.exception() is None
    directions = ((left, right, "a", result.a_to_b), (right, left, "b", result.b_to_a))
    for sender, receiver, name, count in directions:
        assert sender.sent.startswith(receiver.got)
        if result.reason == "both ended":
            assert receiver.saw_end
        if receiver.saw_end and result.reason in ("idle", "linger") and result.ended_first != name:
            # It was cut after a pause that was too long: what the relay has counted has come.
            assert len(receiver.got) == count
        elif receiver.saw_end:
            assert sender.has_ended
            assert len(receiver.got) == len(sender.sent)
    for each in (left, right):
        each.sock.close()
    a.abort()
    b.abort()
    await asyncio.sleep(0.01)  # the transports close their sockets in a turn of their own


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("secure", ["none", "near", "far", "both"])
def test_a_clean_end_is_behind_every_byte(
    run: Any, ours: Any, tls: Any, secure: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a peer sees a clean end, the other has sent one, and every byte before it has come; a
    relay of which both have ended has lost none, and each ends."""
    if secure != "none" and os.environ[backend.VARIABLE] == "portable":
        pytest.skip("the loop's TLS answers an end with its own, whatever is on its way")
    # A sender in the same loop is no fast one.
    monkeypatch.setattr(relays, "FULL_RECEIVES", 1)
    near = tls if secure in ("near", "both") else None
    far = tls if secure in ("far", "both") else None

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(RELAYS):
                chance = random.Random(f"{seed} {number}")
                group.create_task(relayed(ours, near, far, chance))

    run(main())
