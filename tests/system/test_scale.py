"""Ten thousand connections on one loop of ours: all are served, and nothing of them stays behind.
And what grows with the connections grows no faster than they do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import open_descriptors
from support.connections import LOOPBACK, until

import headrace
from headrace._server.registry import SLICE
from headrace._transport import backend
from headrace._transport.scheduler import scheduler_of

MANY = 10_000
SPARE_DESCRIPTORS = 200
BUSY_SHARE = 100
ROUNDS = 20
TIMEOUT_S = 150

# Opens connections, lets one in a hundred speak, and closes all: a step for each line on stdin.
CLIENTS = """
import resource, socket, sys
port, count, share, rounds = map(int, sys.argv[1:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
everybody = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
print("opened", flush=True)
sys.stdin.readline()
for number in range(rounds):
    for sock in everybody[::share]:
        sock.sendall(b"%08d" % number)
    for sock in everybody[::share]:
        assert sock.recv(8, socket.MSG_WAITALL) == b"%08d" % number
print("answered", flush=True)
sys.stdin.readline()
for sock in everybody:
    sock.close()
print("closed", flush=True)
"""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many descriptors as MANY connections take, or a reason to skip."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, and RLIMIT_NOFILE allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def clients(port: int, count: int) -> Any:
    """Start *count* clients of *port* in a process of their own; they are connected. What is
    yielded has them go on, to what they then say."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CLIENTS,
        *map(str, (port, count, BUSY_SHARE, ROUNDS)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def go_on(word: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        assert await process.stdout.readline() == word

    try:
        assert await process.stdout.readline() == b"opened\n"
        yield go_on
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Echo(asyncio.Protocol):
    """Sends back what comes, and knows how many others there are."""

    open = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        Echo.open += 1

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, error: BaseException | None) -> None:
        Echo.open -= 1


async def echo(reader: Any, writer: Any) -> None:
    """Send back what comes."""
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()


def objects() -> int:
    """Return how many objects there are that the collector knows."""
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("kind", ["protocol", "serve"])
@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_connections(kind):
    """All are accepted and one in a hundred is answered; when all have gone, no descriptor, task or
    object is left of them."""

    async def visit(port, count, is_open):
        async with clients(port, count) as go_on:
            await until(lambda: is_open() == count)
            await go_on(b"answered\n")
            await go_on(b"closed\n")
            await until(lambda: is_open() == 0)

    async def check(port, is_open):
        # What is loaded once, and never again, is loaded now.
        await visit(port, BUSY_SHARE, is_open)
        descriptors, before = open_descriptors(), objects()
        await visit(port, MANY, is_open)
        assert len(asyncio.all_tasks()) <= 2  # this one, and that of wait_for() on Python 3.11
        # What the loop closes, pipes of the clients' process among it, it closes a turn later.
        await until(lambda: open_descriptors() <= descriptors)
        while objects() - before > MANY // 100:
            await asyncio.sleep(0.1)

    async def main():
        if kind == "serve":
            limits = {"max_connections": MANY + 1, "first_byte_timeout": TIMEOUT_S}
            async with headrace.serve(echo, LOOPBACK, 0, backlog=1000, **limits) as server:
                port = server.sockets[0].getsockname()[1]
                await check(port, lambda: len(server.connections))
        else:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Echo, LOOPBACK, 0, backlog=1000)
            await check(server.sockets[0].getsockname()[1], lambda: Echo.open)
            server.close()
            await server.wait_closed()

    before = open_descriptors()
    headrace.run(asyncio.wait_for(main(), TIMEOUT_S - 10))
    assert open_descriptors() <= before


native_only = pytest.mark.skipif(
    backend.native is None, reason="the loop's own transports have what they have"
)


@native_only
def test_objects_of_a_connection_that_rests():
    """A connection of serve() that rests, the monitor's part included, is few objects: the
    collector looks at each of them, time and again while connections come."""
    count = 100
    most = 24  # 20 on Python 3.13; others have a task or a future that is made otherwise

    async def main():
        limits = {"max_connections": count, "idle_timeout": 60, "first_byte_timeout": 0.5}
        async with headrace.serve(echo, LOOPBACK, 0, **limits) as server:
            server._monitor.stop()
            address = server.sockets[0].getsockname()
            with contextlib.ExitStack() as stack:
                for _ in range(count):
                    stack.enter_context(socket.create_connection(address))
                before = objects()
                await until(lambda: len(server.connections) == count)
                server._monitor.start()
                await until(lambda: len(server._monitor._progress) == count)
                server._monitor.stop()
                assert (objects() - before) / count < most + 1

    headrace.run(main())


@native_only
def test_figures_are_counted_in_slices():
    """What a worker tells its supervisor leaves the loop its turns, and a connection that is lost
    meanwhile is counted once."""
    count = 300

    async def main():
        looked_at = []
        turns = []

        async def tick():
            while True:
                turns.append(len(looked_at))
                await asyncio.sleep(0)

        async with headrace.serve(echo, LOOPBACK, 0, backlog=count) as server:
            address = server.sockets[0].getsockname()
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.create_connection(address)) for _ in range(count)
                ]
                for client in clients:
                    client.sendall(b"12345")
                await until(lambda: server.statistics().sent_bytes == 5 * count)
                there = list(server.connections)
                figures = type(there[0]).figures

                def noted(session):
                    looked_at.append(session)
                    return figures(session)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(type(there[0]), "figures", noted)
                    ticking = asyncio.create_task(tick())
                    counting = asyncio.create_task(server.statistics_in_slices())
                    await until(lambda: looked_at)
                    for session in there:
                        session.writer.transport.abort()
                    found = await counting
                    ticking.cancel()
        assert (found.received_bytes, found.sent_bytes) == (5 * count, 5 * count)
        assert len(turns) > count // SLICE

    headrace.run(main())


@native_only
def test_the_table_of_what_is_watched_grows_by_itself_over_again():
    """It is moved a few times, and not once for each connection."""
    count = 300
    sizes = []

    async def main():
        loop = asyncio.get_running_loop()
        there = 0

        def made(reader, writer):
            nonlocal there
            there += 1
            (reactor,) = (
                each
                for each in gc.get_referents(scheduler_of(loop))
                if type(each).__name__ == "Reactor"
            )
            lists = (each for each in gc.get_referents(reactor) if isinstance(each, list))
            sizes.append(max(map(len, lists)))
            writers.append(writer)

        writers = []
        server = await headrace.start_server(made, LOOPBACK, 0, backlog=count)
        address = server.sockets[0].getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(socket.create_connection(address))
            await until(lambda: there == count)
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()

    headrace.run(main())
    assert sizes[-1] >= count - 1
    assert len(set(sizes)) < 10
