"""The native way where a connection or a server ends: everything that came before is there, then
the error; waiting tasks get it at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time

import pytest
from support.connections import client, finish, read_out, reset, until
from support.transports import ended
from support.wires import tcp_pair

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)


def both_ends(family):
    if family == "tcp":
        return tcp_pair()
    ours, peer = socket.socketpair()
    peer.settimeout(5)
    return ours, peer


@contextlib.asynccontextmanager
async def ends_of(streams, family, **options):
    ours, peer = both_ends(family)
    reader, writer = await streams.open_connection(sock=ours, **options)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        await finish(writer)


SENT = bytes(range(250)) * 200


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("limit", [100, 65536])
def test_data_and_a_reset_in_one_go(run, native, family, limit):
    """Data with a reset right behind it: first all of the data, in whatever pieces, then the
    error."""

    async def main():
        async with ends_of(native, family, limit=limit) as (reader, writer, peer):
            if family == "unix":
                writer.write(
                    b"unread"
                )  # a Unix socket is reset by whoever closes it over something unread
            peer.sendall(SENT)
            reset(peer)
            data, error = await read_out(reader)
            assert data == SENT
            assert type(error) is ConnectionResetError

    run(main)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("limit", [100, 65536])
def test_data_and_a_failed_send(run, native, family, limit):
    """What came before a send failed can be read, all of it, and then the error comes; drain()
    raises at once."""

    async def main():
        async with ends_of(native, family, limit=limit) as (reader, writer, peer):
            writer.transport.pause_reading()
            peer.sendall(SENT)
            peer.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                async with asyncio.timeout(5):
                    while True:
                        writer.write(b"anybody there?")
                        await writer.drain()
                        await asyncio.sleep(0.001)
            data, error = await read_out(reader)
            assert data == SENT
            assert isinstance(error, (BrokenPipeError, ConnectionResetError))

    run(main)


def test_a_paused_reader_and_a_reset(run, native):
    """A reader that has paused its transport, and whose peer resets, loses nothing of what the
    kernel had; then the error comes."""

    async def main():
        async with client(native, limit=1000) as (reader, _, peer):
            peer.send(bytes(20_000))  # all of it has to fit into what the kernel keeps
            await until(lambda: reader._paused)
            peer.send(b"x" * 20_000)
            await asyncio.sleep(0.002)
            reset(peer)
            await asyncio.sleep(0.005)
            data, error = await read_out(reader)
            assert data == bytes(20_000) + b"x" * 20_000
            assert type(error) is ConnectionResetError

    run(main)


def test_a_blocked_drain_and_a_reset(run, native):
    """A waiting drain() raises after a reset at once, though reading is paused and nobody reads."""

    async def main():
        async with client(native, limit=1000) as (reader, writer, peer):
            peer.send(bytes(40_000))
            await until(lambda: reader._paused)
            writer.write(bytes(8 << 20))
            drains = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
            await asyncio.sleep(0.005)
            assert not any(each.done() for each in drains)
            reset(peer)
            done, _ = await asyncio.wait(drains, timeout=1)
            assert len(done) == 3
            assert {type(each.exception()) for each in drains} <= {
                ConnectionResetError,
                BrokenPipeError,
            }
            assert (await read_out(reader))[0] == bytes(40_000)

    run(main)


FLOODS = """
import os, socket, sys, time
sock = socket.socket(fileno=int(sys.argv[1]))
sock.shutdown(socket.SHUT_RD)
for _ in range(2):
    os.fork()
end = time.monotonic() + 1
try:
    while time.monotonic() < end:
        sock.send(bytes(100_000))
except OSError:
    pass
"""


def test_a_flood_behind_a_failed_send(run, native):
    """A peer that takes nothing more and goes on sending cannot keep us receiving: reading from it
    soon ends, and the loop goes on."""

    async def main():
        ours, peer = socket.socketpair()
        reader, writer = await native.open_connection(sock=ours)
        with peer:
            flooding = subprocess.Popen(
                [sys.executable, "-c", FLOODS, str(peer.fileno())], pass_fds=[peer.fileno()]
            )
        await until(lambda: reader._paused)
        writer.write(b"refused")
        began = time.perf_counter()
        data, error = await read_out(reader)
        assert type(error) is BrokenPipeError
        assert len(data) < 16 << 20
        assert time.perf_counter() - began < 5
        await finish(writer)
        await asyncio.get_running_loop().run_in_executor(None, flooding.wait)

    run(main)


def test_a_handler_that_closes_its_server(run, native):
    """A handler closes its server: those that were accepted go on, nobody else is accepted, and the
    server ends with the last of them."""

    async def main():
        served = []

        async def serve(reader, writer):
            line = await reader.readline()
            if line == b"0\n":
                server.close()
            served.append(line)
            writer.write(line)
            writer.close()
            await writer.wait_closed()

        server = await native.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        peers = [socket.create_connection(address) for _ in range(10)]
        for index, peer in enumerate(peers):
            peer.setblocking(False)
            peer.send(b"%d\n" % index)
        await asyncio.wait_for(server.wait_closed(), 5)
        assert sorted(served) == [b"%d\n" % index for index in range(10)]
        for index, peer in enumerate(peers):
            assert await ended(peer) == b"%d\n" % index
            peer.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(main)
