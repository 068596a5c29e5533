"""What the transports and servers of asyncio's loop and of uvloop get wrong, so that only the
native way mends it. See `defects.md`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import warnings

import pytest
from conftest import LOOP_KINDS
from support.connections import LOOPBACK, client, finish, patience, receive, reset, until
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


async def read_out(reader):
    """Return everything that can be read, and then what is raised, or None."""
    data = b""
    while True:
        try:
            piece = await asyncio.wait_for(reader.read(50_000), 5)
        except OSError as error:
            return data, error
        if not piece:
            return data, None
        data += piece


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
            first, second = time_of(write_and_ask, 2000), time_of(write_and_ask, 2000)
            for _ in range(6000):
                transport.write(b"chunk")
            many = time_of(transport.get_write_buffer_size, 20, repeats=5)
            assert many < 10 * few
            assert second < 2 * first + 0.01

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


EMFILE = """
import asyncio, json, os, resource, socket, sys, time
import headrace

async def main(streams):
    served, heard = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context["message"]))

    async def serve(reader, writer):
        served.append(await reader.readline())
        writer.close()
        await writer.wait_closed()

    server = await streams.start_server(serve, "127.0.0.1", 0)
    clients = [socket.socket() for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    for each in clients:
        each.connect(server.sockets[0].getsockname())
        each.sendall(b"line\\n")
    await asyncio.sleep(0.02)
    before = time.process_time()
    await asyncio.sleep(0.5)
    worked = (time.process_time() - before) / 0.5
    for each in taken:
        os.close(each)
    began = time.monotonic()
    while len(served) < 3 and time.monotonic() - began < 2:
        await asyncio.sleep(0.01)
    print(json.dumps([worked, len(served), len(heard)]), flush=True)
    os._exit(0)

if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = asyncio.SelectorEventLoop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(asyncio if sys.argv[2] == "stock" else headrace))
"""


@pytest.mark.defect("gh-155934")
@pytest.mark.parametrize("kind", [kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def test_no_descriptor_for_another_connection(streams, kind):
    """A server that runs out of descriptors says so once a second, is idle meanwhile, and serves
    who waited when there are some again."""
    arguments = [sys.executable, "-W", "ignore", "-c", EMFILE, kind, streams.name]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)
    worked, served, reports = json.loads(done.stdout)
    assert worked < 0.05
    assert served == 3
    assert 1 <= reports <= 3


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
