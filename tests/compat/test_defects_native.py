"""Faults in the transports and servers of asyncio's loop and of uvloop, which only the native way
fixes. See `defects.md`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import warnings

import pytest
from conftest import LOOP_KINDS
from support.connections import (
    LOOPBACK,
    client,
    finish,
    patience,
    read_out,
    receive,
    reset,
    until,
)
from support.exhaustion import CLIENTS, run_out
from support.wires import tcp_pair, turns

from headrace._streams import asyncio_server as headrace_server
from headrace._transport import backend

BIG = 6 << 20
SENT = bytes(range(250)) * 160


@pytest.fixture(autouse=True)
def _the_loops_own(streams):
    """Leave out the portable way, whose transports are those that are at fault."""
    if streams.name == "headrace" and os.environ[backend.VARIABLE] == "portable":
        pytest.skip("the transport is the loop's")


def time_of(call, count, repeats=1):
    """Return how long *count* calls take, in seconds: the least of *repeats* times."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(count):
            call()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.defect("gh-146507")
def test_the_count_costs_the_same_however_much_is_queued(run, streams):
    """get_write_buffer_size() takes as long with 10,000 chunks queued as with 100; to write and ask
    4,000 times is not quadratic."""

    async def main():
        async with client(streams) as (_, writer, _peer):
            transport = writer.transport

            def write_and_ask():
                transport.write(b"chunk")
                return transport.get_write_buffer_size()

            transport.write(bytes(BIG))
            time_of(write_and_ask, 100)
            few = time_of(transport.get_write_buffer_size, 20, repeats=20)
            # The least of several: the machine may be busy with others, but not all the time.
            parts = [time_of(write_and_ask, 200) for _ in range(20)]
            first, second = min(parts[:10]), min(parts[10:])
            for _ in range(6000):
                transport.write(b"chunk")
            many = time_of(transport.get_write_buffer_size, 20, repeats=5)
            assert many < 10 * few
            assert second < 2 * first + 0.001

    run(main)


@pytest.mark.defect("gh-155934")
def test_a_factory_that_fails(run, streams, monkeypatch):
    """Where the protocol of an accepted connection cannot be made, that is reported, its socket is
    closed, and the next one is served."""
    errors = run.expect_errors()
    heard = []

    def fail_once(module, name):
        real = getattr(module, name)

        def fail(*arguments, **options):
            monkeypatch.setattr(module, name, real)
            raise MemoryError

        monkeypatch.setattr(module, name, fail)

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def main():
        server = await streams.start_server(echo, LOOPBACK, 0)
        fail_once(
            *(
                (asyncio.streams, "StreamReader")
                if streams.name == "stock"
                else (headrace_server, "make")
            )
        )
        try:
            for expected in b"", b"line\n":
                with socket.create_connection(server.sockets[0].getsockname()) as peer:
                    peer.setblocking(False)
                    if expected:
                        peer.send(expected)
                    assert await asyncio.wait_for(receive(peer), patience(streams)) == expected
        finally:
            server.close()
            await asyncio.wait_for(server.wait_closed(), 2)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_: heard.append(category)
        run(main)
    assert heard == []
    assert [type(each["exception"]) for each in errors] == [MemoryError]


@pytest.mark.defect("gh-155934")
@pytest.mark.parametrize("kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def test_no_descriptor_for_another_connection(streams, kind):
    """A server that runs out of descriptors says so once a second, is idle meanwhile, and serves
    the waiting clients when there are some again."""
    outcome = run_out(kind, streams.name)
    assert outcome.worked < 0.05
    assert outcome.served == CLIENTS
    assert 1 <= len(outcome.reports) <= 3


@pytest.mark.defect("a paused transport does not see the peer's end")
def test_a_reset_while_reading_is_paused(run, streams):
    """A reader whose buffer is full, so that reading is paused, does not keep a reset from being
    seen; nothing is lost by that."""

    async def main():
        async with client(streams, limit=1000) as (reader, writer, peer):
            peer.send(SENT)
            await until(lambda: reader._paused)
            reset(peer)
            async with asyncio.timeout(patience(streams)):
                await until(writer.is_closing)
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            data, error = await read_out(reader)
            assert data == SENT
            assert type(error) is ConnectionResetError

    run(main)


@pytest.mark.defect("data in the kernel is lost after a failed send")
@pytest.mark.parametrize("limit", [1000, 65536])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_data_in_the_kernel_and_a_failed_send(run, streams, family, limit):
    """A send fails while the kernel has data for us: all of it can be read, then comes the
    error."""

    async def main():
        ours, peer = tcp_pair() if family == "tcp" else socket.socketpair()
        reader, writer = await streams.open_connection(sock=ours, limit=limit)
        try:
            await turns(2)
            # Without a turn of the loop in between.
            peer.sendall(SENT)
            peer.close()
            writer.write(b"answered by a reset")
            time.sleep(0.001)
            writer.write(b"fails")
            data, error = await read_out(reader)
            assert data == SENT
            assert isinstance(error, (BrokenPipeError, ConnectionResetError))
        finally:
            await finish(writer)

    run(main)
