"""Receives that are short though more is there, as the system really makes them: at urgent data,
and at descriptors on a Unix socket."""

from __future__ import annotations

import asyncio
import os
import random
import socket

import pytest
from support.connections import client, served

SIZES = [1, 2, 60, 1000, 5000]


def pieces(seed: int, count: int) -> list[bytes]:
    """Return *count* pieces of many sizes."""
    chance = random.Random(seed)
    return [chance.randbytes(chance.choice(SIZES)) for _ in range(count)]


@pytest.mark.parametrize("side", [client, served])
def test_one_urgent_byte_at_a_time(run, streams, side):
    """What is before and behind an urgent byte arrives, the byte itself does not; no event but that
    of the whole is there to help."""

    async def main():
        async with side(streams) as (reader, _, peer):
            for before, behind in zip(pieces(1, 40), pieces(2, 40), strict=True):
                peer.sendall(before)
                peer.send(b"!", socket.MSG_OOB)
                peer.sendall(behind)
                assert await reader.readexactly(len(before + behind)) == before + behind

    run(main)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_urgent_bytes_in_between(run, streams, turns):
    """The loop turns between the parts, so that each is an event of its own."""

    async def main():
        async with client(streams) as (reader, _, peer):
            for before, behind in zip(pieces(3, 40), pieces(4, 40), strict=True):
                waiting = asyncio.create_task(reader.readexactly(len(before + behind)))
                for data, flags in ((before, 0), (b"!", socket.MSG_OOB), (behind, 0)):
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    peer.send(data, flags)
                assert await waiting == before + behind

    run(main)


def test_urgent_bytes_in_line(run, streams):
    """With SO_OOBINLINE they are data; a receive stops before each of them all the same."""

    async def main():
        async with client(streams) as (reader, writer, peer):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            chance = random.Random(5)
            for _ in range(30):
                burst = pieces(chance.randrange(1000), chance.randrange(1, 12))
                for piece in burst:
                    await asyncio.get_running_loop().sock_sendall(peer, piece)
                    if chance.random() < 0.5:
                        peer.send(b"!", socket.MSG_OOB)
                        burst[burst.index(piece)] = piece + b"!"
                whole = b"".join(burst)
                assert await reader.readexactly(len(whole)) == whole

    run(main)


@pytest.mark.parametrize("behind", [b"", b"behind"])
def test_an_urgent_byte_and_the_end(run, streams, behind):
    """The end behind an urgent byte is seen, also where it was all there when the connection was
    accepted."""

    async def main():
        async with client(streams) as (reader, _, peer):
            peer.sendall(b"before")
            peer.send(b"!", socket.MSG_OOB)
            peer.sendall(behind)
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read() == b"before" + behind
        seen = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            seen.set_result(await reader.read())
            writer.close()

        server = await streams.start_server(handle, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.sendall(b"before")
            peer.send(b"!", socket.MSG_OOB)
            peer.sendall(behind)
            peer.shutdown(socket.SHUT_WR)
            assert await seen == b"before" + behind
        server.close()
        await server.wait_closed()

    run(main)


def test_an_urgent_byte_while_reading_is_paused(run, streams):
    """What came while the transport was paused is all read afterwards."""

    async def main():
        async with client(streams, limit=100) as (reader, _, peer):
            peer.sendall(bytes(5000))
            while "paused" not in repr(reader):
                await asyncio.sleep(0.001)
            peer.send(b"!", socket.MSG_OOB)
            peer.sendall(b"behind")
            await asyncio.sleep(0.01)
            assert await reader.readexactly(5006) == bytes(5000) + b"behind"

    run(main)


def test_urgent_bytes_on_a_unix_socket(run, streams):
    """The same on a Unix socket, where Linux has them since 5.15."""

    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with peer:
            reader, writer = await streams.open_unix_connection(sock=ours)
            try:
                for before, behind in zip(pieces(6, 40), pieces(7, 40), strict=True):
                    peer.sendall(before)
                    try:
                        peer.send(b"!", socket.MSG_OOB)
                    except OSError:
                        pytest.skip("this system's Unix sockets have no urgent data")
                    peer.sendall(behind)
                    assert await reader.readexactly(len(before + behind)) == before + behind
            finally:
                writer.close()
                await writer.wait_closed()

    run(main)


@pytest.mark.parametrize("turns", [0, 1])
def test_descriptors_sent_along(run, streams, turns):
    """A Unix socket ends a receive where descriptors were sent; the data behind them arrives, and
    the descriptors are nobody's."""

    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            with peer:
                reader, writer = await streams.open_unix_connection(sock=ours)
                for seed in range(10):
                    burst = pieces(seed, 12)
                    waiting = asyncio.create_task(reader.readexactly(len(b"".join(burst))))
                    for piece in burst:
                        socket.send_fds(peer, [piece], [null])
                        for _ in range(turns):
                            await asyncio.sleep(0)
                    assert await waiting == b"".join(burst)
                writer.close()
                await writer.wait_closed()
        finally:
            os.close(null)

    run(main)
