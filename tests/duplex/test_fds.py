"""send_fds() and receive_fds(): descriptors keep their place, and none is left open."""

from __future__ import annotations

import array
import asyncio
import os
import random
import socket
from typing import Any

import pytest

from headrace import Stream
from headrace._duplex.descriptors import receive_fds, send_fds, with_descriptors


def streams_of_a_pair(most: int = 10) -> tuple[Stream, Stream]:
    left, right = socket.socketpair()
    return with_descriptors(left, max_fds=most), with_descriptors(right, max_fds=most)


def same_file(first: int, second: int) -> bool:
    return os.path.sameopenfile(first, second)


def test_descriptors_keep_their_place_in_the_bytes(run: Any) -> None:
    """receive_fds() never goes past the next descriptors, and gives each with its first byte."""

    async def main() -> None:
        a, b = streams_of_a_pair()
        async with a, b:
            await a.write(b"plain")
            await b.peek(5)
            reading, writing = os.pipe()
            await send_fds(a, b"one", [reading])
            await send_fds(a, b"two", [writing, reading])
            await a.write(b"rest")
            assert await b.readexactly(2) == b"pl"
            assert await receive_fds(b, 100) == (b"ain", [])
            data, first = await receive_fds(b, 2)
            assert (data, len(first)) == (b"on", 1)
            assert same_file(first[0], reading)
            assert not os.get_inheritable(first[0])
            assert await receive_fds(b, 100) == (b"e", [])
            data, second = await receive_fds(b, 3)
            assert (data, len(second)) == (b"two", 2)
            assert same_file(second[0], writing)
            assert await b.readexactly(4) == b"rest"
            a.write_eof()
            assert await receive_fds(b, 5) == (b"", [])
            for each in (reading, writing, *first, *second):
                os.close(each)

    run(main())


async def received(stream: Stream, size: int, n: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Return *size* bytes of *stream*, at most *n* at once, and where how many descriptors came."""
    found = bytearray()
    places = []
    while len(found) < size:
        data, fds = await receive_fds(stream, n)
        if fds:
            places.append((len(found), len(fds)))
        for each in fds:
            os.close(each)
        found += data
    return bytes(found), places


def test_what_was_sent_before_does_not_come_with_them(run: Any) -> None:
    """Plain bytes that wait in front of a message with descriptors, or behind it, are not given
    with these, though the system would join them."""

    async def main() -> None:
        a, b = streams_of_a_pair()
        async with a, b:
            await a.write(b"plain")
            await a.write(b"more")
            await send_fds(a, b"one", [0])
            await a.write(b"between")
            await send_fds(a, b"two", [0, 0])
            await a.write(b"rest")
            found = []
            for _ in range(5):
                data, fds = await receive_fds(b, 100)
                found.append((data, len(fds)))
                for each in fds:
                    os.close(each)
            assert found == [
                (b"plainmore", 0),
                (b"one", 1),
                (b"between", 0),
                (b"two", 2),
                (b"rest", 0),
            ]

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_the_place_is_exact_whatever_waits(run: Any, seed: int) -> None:
    """Messages of any size, with and without descriptors, that wait together or come one by one:
    each descriptor has the place of the first byte it was sent with."""
    chance = random.Random(seed)

    async def main() -> None:
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        async with with_descriptors(mine, max_fds=253) as stream:
            sent = bytearray()
            places = []

            async def send() -> None:
                for _ in range(60):
                    data = os.urandom(chance.choice((1, 2, 7, 300, 5000, 20_000)))
                    count = chance.choice((0, 0, 0, 1, 3))
                    if count:
                        places.append((len(sent), count))
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * count))]
                    left = len(data)
                    while left:
                        try:
                            left -= theirs.sendmsg([data[-left:]], rights if count else [])
                            count = 0
                        except BlockingIOError:
                            await asyncio.sleep(0.001)
                    sent.extend(data)
                    if chance.random() < 0.3:
                        await asyncio.sleep(0)
                theirs.shutdown(socket.SHUT_WR)

            sending = asyncio.create_task(send())
            await asyncio.sleep(0.002)
            got = bytearray()
            found = []
            while True:
                data, fds = await receive_fds(stream, chance.choice((1, 100, 70_000)))
                if fds:
                    found.append((len(got), len(fds)))
                for each in fds:
                    os.close(each)
                if not data:
                    break
                got += data
            await sending
            assert got == sent
            assert found == places
        theirs.close()

    run(main())


def test_without_a_way_to_look_they_come_early_and_never_late(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives no memory to ask with, descriptors come with what was sent before, and
    nothing is lost."""

    def refuse(*args: Any) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)

    async def main() -> None:
        a, b = streams_of_a_pair()
        async with a, b:
            await a.write(b"plain")
            await send_fds(a, b"one", [0])
            await a.write(b"rest")
            assert await received(b, 12, 100) == (b"plainonerest", [(0, 1)])

    run(main())


def test_what_a_plain_read_has_passed_comes_next(run: Any) -> None:
    """Descriptors stay for receive_fds() where read() took their bytes."""

    async def main() -> None:
        a, b = streams_of_a_pair()
        async with a, b:
            await send_fds(a, b"one", [0])
            await a.write(b"two")
            assert await b.readexactly(3) == b"one"
            data, fds = await receive_fds(b, 3)
            assert (data, len(fds)) == (b"two", 1)
            os.close(fds[0])

    run(main())


def test_what_is_too_many_or_not_fetched_is_closed(run: Any) -> None:
    """Above max_fds descriptors are closed at once; those that nobody fetches with the stream."""

    async def main() -> None:
        a, b = streams_of_a_pair(2)
        before = len(os.listdir("/proc/self/fd"))
        async with a, b:
            await send_fds(a, b"x", [0, 0, 0])
            await send_fds(a, b"y", [0])
            await b.peek(2)
            await asyncio.sleep(0)
            assert len(os.listdir("/proc/self/fd")) == before + 2

    run(main())


def test_a_peer_of_plain_sockets(run: Any) -> None:
    """What recvmsg() and sendmsg() of a plain socket do fits."""

    async def main() -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            async with with_descriptors(mine, max_fds=4) as stream:
                await send_fds(stream, b"there", [0])
                data, fds, _, _ = socket.recv_fds(theirs, 100, 4)
                assert (data, len(fds)) == (b"there", 1)
                os.close(fds[0])
                rights = array.array("i", [0, 0])
                theirs.sendmsg([b"back"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                data, fds = await receive_fds(stream, 100)
                assert (data, len(fds)) == (b"back", 2)
                for each in fds:
                    os.close(each)

    run(main())


def test_much_goes_with_backpressure(run: Any) -> None:
    """Many messages with descriptors arrive whole and in order, whatever the sizes."""

    async def main() -> None:
        a, b = streams_of_a_pair()
        sizes = [1, 100, 65536, 300_000, 7]

        async def send() -> None:
            for size in sizes:
                await send_fds(a, bytes([size % 251]) * size, [0])
            await a.aclose()

        sending = asyncio.create_task(send())
        found = bytearray()
        count = 0
        async with b:
            while True:
                data, fds = await receive_fds(b, 50_000)
                for each in fds:
                    os.close(each)
                count += len(fds)
                if not data:
                    break
                found += data
        await sending
        assert count == len(sizes)
        assert found == b"".join(bytes([size % 251]) * size for size in sizes)

    run(main())


def test_arguments_are_checked(run: Any, ours: Any) -> None:
    """Only streams made for it pass descriptors; bad arguments send nothing and leak nothing."""

    async def main() -> None:
        left, right = socket.socketpair()
        with right:
            async with Stream(*await ours.open_connection(sock=left)) as plain:
                with pytest.raises(TypeError, match="max_fds"):
                    await send_fds(plain, b"x", [0])
                with pytest.raises(TypeError, match="max_fds"):
                    await receive_fds(plain, 1)
        a, b = streams_of_a_pair()
        async with a, b:
            with pytest.raises(ValueError, match="bytes"):
                await send_fds(a, b"", [0])
            with pytest.raises(OSError, match="descriptor"):
                await send_fds(a, b"x", [0, 999_999])
            with pytest.raises(ValueError, match="positive"):
                await receive_fds(b, 0)
        tcp = socket.socket()
        with tcp, pytest.raises(ValueError, match="Unix"):
            with_descriptors(tcp, max_fds=1)

    run(main())
