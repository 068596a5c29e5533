"""send_fds() and receive_fds(): descriptors keep their place, and none is left open."""

from __future__ import annotations

import array
import asyncio
import os
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
