"""serve(max_fds=…): descriptors are passed, and the server sees such connections as all others."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from support.connections import LOOPBACK, receive, until
from support.serving import connected, ended

import headrace


async def write_into(stream):
    """A handler that writes what comes into the descriptor that comes with it, and says so."""
    while True:
        data, fds = await stream.receive_fds(100)
        if not data:
            return
        for each in fds:
            os.write(each, data)
            os.close(each)
        await stream.write(b"%d\n" % len(fds))


async def receive_nothing(stream):
    """A handler that leaves what comes where it is."""
    await stream.peek(1)


@contextlib.contextmanager
def pipe():
    """A pipe: where to read, and where to write."""
    ends = os.pipe()
    yield ends
    for each in ends:
        os.close(each)


@pytest.mark.parametrize("place", ["path", "sockets"])
def test_descriptors_reach_a_handler(run, way, tmp_path, place):
    """What a client sends reaches the handler, and what the handler sends reaches the client; the
    counts are exact."""
    path = str(tmp_path / "s")

    async def main():
        given = {"path": path}
        if place == "sockets":
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            given = {"sockets": [sock]}
        async with headrace.serve(write_into, max_fds=3, way=way, limit=5000, **given) as server:
            with pipe() as (reading, writing):
                async with headrace.connect(path=path, max_fds=3) as stream:
                    await stream.send_fds(b"hello", [writing, writing])
                    assert await stream.readline() == b"2\n"
                    assert os.read(reading, 100) == b"hellohello"
                    await stream.write(b"plain")
                    assert await stream.readline() == b"0\n"
                    figures = server.statistics()
                    assert (figures.open, figures.received_bytes, figures.sent_bytes) == (1, 10, 4)
            await until(lambda: not server.connections)
            figures = server.statistics()
            assert (figures.accepted, figures.received_bytes, figures.sent_bytes) == (1, 10, 4)
            assert figures.handled == 1

    run(main)


def test_more_than_may_wait(run, tmp_path):
    """What is more than max_fds is closed, and what no handler fetches, too: the fixture sees
    whether a descriptor is left."""
    path = str(tmp_path / "s")

    async def main():
        async with headrace.serve(receive_nothing, path=path, max_fds=1) as server:
            with pipe() as (reading, writing):
                async with headrace.connect(path=path, max_fds=3) as stream:
                    await stream.send_fds(b"hello", [reading, writing])
                    assert await stream.read() == b""
            await until(lambda: not server.connections)

    run(main)


def test_bounds(run, tmp_path):
    """A connection above max_connections is refused, and one that says nothing is ended."""
    path = str(tmp_path / "s")

    async def main():
        async with headrace.serve(
            write_into, path=path, max_fds=1, max_connections=1, refusal=b"full", idle_timeout=0.7
        ) as server:
            with await connected(path) as first:
                await until(lambda: server.connections)
                with await connected(path) as second:
                    assert await receive(second) == b"full"
                assert await ended(server) == {"idle": 1}
                assert await receive(first) == b""
            await until(lambda: not server.connections)
            assert server.statistics().refused == {"full": 1}

    run(main)


def test_shutdown(run, tmp_path):
    """A shutdown waits for such connections, and ends them."""
    path = str(tmp_path / "s")

    async def main():
        server = headrace.serve(write_into, path=path, max_fds=1)
        await server.start()
        with await connected(path) as peer:
            await until(lambda: server.connections)
            report = await server.shutdown(0.05)
            assert (report.cancelled, report.aborted) == (1, 0)
            assert await receive(peer) == b""

    run(main)


async def of_a_pair(reader, writer):
    """A handler that could not take any."""


@pytest.mark.parametrize(
    ("handler", "given", "error", "says"),
    [
        (write_into, {"host": LOOPBACK, "port": 0}, ValueError, "Unix sockets in plain text"),
        (write_into, {"path": "p", "port": 0}, ValueError, "Unix sockets in plain text"),
        (write_into, {"path": "p", "max_fds": 254}, ValueError, "max_fds is from 1 to 253"),
        (write_into, {"path": "p", "max_fds": -1}, ValueError, "max_fds is from 1 to 253"),
        (of_a_pair, {"path": "p"}, TypeError, "takes a Stream"),
    ],
)
def test_where_it_cannot_be(handler, given, error, says):
    """Where descriptors cannot be passed that is said at the call."""
    with pytest.raises(error, match=says):
        headrace.serve(handler, **{"max_fds": 1, **given})


def test_over_tls_or_tcp(tls):
    """Nor over TLS, or sockets of TCP."""
    with pytest.raises(ValueError, match="plain text"):
        headrace.serve(write_into, path="p", max_fds=1, ssl=tls.server)
    with socket.create_server((LOOPBACK, 0)) as sock, pytest.raises(ValueError, match="Unix"):
        headrace.serve(write_into, sockets=[sock], max_fds=1)
