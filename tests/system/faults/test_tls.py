"""start_tls() where much comes at once, as it does after a while in which nothing could be
received."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from support.certificates import HOST
from support.connections import receive, served


@pytest.mark.parametrize(("limit", "size"), [(1000, 20_000), (65_536, 300_000)])
def test_data_right_behind_the_handshake(run, streams, tls, limit, size):
    """More than twice the limit comes in one piece with the end of the handshake, and more later:
    all of it can be read."""

    async def talk(peer, greeted):
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        side = tls.client.wrap_bio(incoming, outgoing, server_hostname=HOST)
        await loop.sock_sendall(peer, b"STARTTLS\n")
        assert await receive(peer, 3) == b"ok\n"
        while True:
            try:
                side.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(peer, outgoing.read())
                incoming.write(await loop.sock_recv(peer, 65536))
        left = memoryview(bytes(size))
        while left:
            left = left[side.write(left) :]
        await loop.sock_sendall(peer, outgoing.read())
        await greeted
        side.write(b"more")
        await loop.sock_sendall(peer, outgoing.read())

    async def main():
        async with served(streams, limit=limit) as (reader, writer, peer):
            greeted = asyncio.get_running_loop().create_future()
            talking = asyncio.create_task(talk(peer, greeted))
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"ok\n")
            await writer.start_tls(tls.server)
            await asyncio.sleep(0.05)
            greeted.set_result(None)
            async with asyncio.timeout(5):
                assert await reader.readexactly(size + 4) == bytes(size) + b"more"
            await talking

    run(main)
