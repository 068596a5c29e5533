"""What a Stream does not keep: the caller's buffer, what was written, and a peer that is slow."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.wires import tcp_pair

import headrace
from headrace._transport import backend


@pytest.fixture(params=["native", "portable"])
def way(request):
    if request.param == "native" and backend.native is None:
        pytest.skip("the pure-Python build has the portable way only")
    return request.param


async def stream_and_peer(way):
    ours, peer = tcp_pair()
    return headrace.Stream(*await headrace.open_connection(sock=ours, way=way)), peer


def test_a_buffer_is_the_callers_again(run, way):
    """Behind read_into() the buffer may be resized: nothing refers to it."""

    async def main():
        stream, peer = await stream_and_peer(way)
        with peer:
            async with stream:
                buffer = bytearray(10)
                peer.send(b"abc")
                assert await stream.read_into(buffer) == 3
                buffer += b"more"
                assert await stream.read_into(bytearray()) == 0
                with pytest.raises(headrace.ReadTimeout):
                    await stream.read_into(buffer, timeout=0.01)
                peer.shutdown(1)
                assert await stream.read_into(buffer) == 0
                del buffer[:]

    run(main)


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="counts references, as CPython does"
)
def test_what_was_written_is_dropped(run, way):
    """Behind write() nothing refers to what was written, once the system has it."""

    async def main():
        stream, peer = await stream_and_peer(way)
        with peer:
            async with stream:
                data = b"x" * 10_000
                before = sys.getrefcount(data)
                await stream.write(data)
                assert sys.getrefcount(data) == before

    run(main)


def test_a_slow_peer_gets_all(run, way):
    """An aclose() that waits no longer for a slow peer takes from it nothing that has left."""

    async def main():
        stream, peer = await stream_and_peer(way)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        with peer:
            sent = 0
            # As much as the system takes, and no more.
            while stream.unsent == 0:
                stream.write_nowait(bytes(65536))
                sent += 65536
            received = 0
            while stream.unsent:
                received += len(await loop.sock_recv(peer, 1 << 20))
                await asyncio.sleep(0)
            await stream.aclose(timeout=0.05)
            while data := await loop.sock_recv(peer, 1 << 20):
                received += len(data)
            assert received == sent
            await stream.writer.wait_closed()

    run(main)
