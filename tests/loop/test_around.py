"""What happens around a loop of ours: it is dropped, forked, nested, given another clock, and left
alone with connections that have nothing to say."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conftest import open_descriptors
from support.certificates import HOST
from support.connections import LOOPBACK, reset, until

import headrace
from headrace._transport import backend

TIMEOUT_S = 20


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Holding(asyncio.Protocol):
    """Keeps what comes, and its connection after the peer's end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def output(program: str) -> str:
    """Return what *program* prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ---- the end of a loop


def test_a_loop_dropped_without_close():
    """Its collection leaves no descriptor and no connection, and warns as asyncio's does."""
    before = open_descriptors()
    held = []

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        transport, protocol = await loop.create_connection(Holding, sock=ours)
        held.append(weakref.ref(protocol))
        transport.write(b"words")
        assert peer.recv(10) == b"words"
        peer.close()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loop = headrace.new_event_loop()
        loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT_S))
        held.append(weakref.ref(loop))
        del loop
        gc.collect()
        words = [str(each.message) for each in said]
        said.clear()
    assert any(each.startswith("unclosed event loop") for each in words)
    gc.collect()
    assert [each() for each in held] == [None, None]
    assert open_descriptors() - before == set()


@pytest.mark.parametrize("secure", [False, True])
def test_many_connections_leave_nothing(tls, secure):
    """Hundreds of connections that end in every way leave no transport, task or descriptor."""
    before = open_descriptors()

    async def one(loop, address, options, end):
        transport, protocol = await loop.create_connection(Holding, *address, **options)
        transport.write(b"words")
        await until(lambda: protocol.data == b"words")
        if end == "reset":
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        transport.abort() if end == "abort" else transport.close()
        await protocol.lost

    async def main():
        loop = asyncio.get_running_loop()
        running = asyncio.all_tasks()
        server = await loop.create_server(
            Echo, LOOPBACK, 0, **({"ssl": tls.server} if secure else {})
        )
        address = server.sockets[0].getsockname()
        options = {"ssl": tls.client, "server_hostname": HOST} if secure else {}
        for end in ("close", "abort", "reset"):
            await asyncio.gather(*(one(loop, address, options, end) for _ in range(40)))
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)
        gc.collect()
        assert not list(loop._transports.values())
        assert asyncio.all_tasks() == running

    headrace.run(asyncio.wait_for(bounded(main), TIMEOUT_S))
    gc.collect()
    assert open_descriptors() - before == set()


async def bounded(main: Callable[[], Any]) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    await asyncio.create_task(main())
    assert errors == []


# ---- other processes, other loops, other clocks

FORKED = """
import asyncio, gc, os, socket
import headrace

class Keeping(asyncio.Protocol):
    def __init__(self):
        self.data = b""
    def data_received(self, data):
        self.data += data

async def main():
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport, protocol = await loop.create_connection(Keeping, sock=ours)
    transport.write(b"before ")
    child = os.fork()
    if child == 0:
        try:
            for act in (lambda: transport.write(b"child"), transport.close, transport.abort):
                try:
                    act()
                except RuntimeError:
                    pass
            del transport, protocol
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    transport.write(b"after")
    peer.send(b"answer")
    while not protocol.data:
        await asyncio.sleep(0.001)
    print(peer.recv(100), protocol.data)
    transport.close()
    await asyncio.sleep(0.01)
    print(peer.recv(1))
    peer.close()

headrace.run(asyncio.wait_for(main(), 10))
"""

NESTED = """
import asyncio, signal, socket
import nest_asyncio
import headrace
signal.alarm(5)

async def asked(loop):
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    loop.call_later(0.01, peer.send, b"inner")
    data = await reader.readexactly(5)
    writer.close()
    peer.close()
    return data

async def main():
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    over = loop.create_future()

    class Nesting(asyncio.Protocol):
        def data_received(self, data):
            over.set_result((data, loop.run_until_complete(asked(loop))))

    transport, _ = await loop.create_connection(Nesting, sock=ours)
    peer.send(b"outer")
    print(await over)
    transport.close()
    peer.close()
    await asyncio.sleep(0.01)

loop = headrace.new_event_loop()
asyncio.set_event_loop(loop)
nest_asyncio.apply(loop)
loop.run_until_complete(asyncio.wait_for(main(), 10))
loop.close()
"""


@pytest.mark.skipif(backend.native is None, reason="asyncio's transports let a child write")
def test_a_forked_child_does_no_harm():
    """What a child does with the connections that it has inherited reaches nobody."""
    assert output(FORKED) == "b'before after' b'answer'\nb''\n"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nest_asyncio does not know this Python")
def test_nest_asyncio():
    """A run of the loop nested in data_received() serves other connections."""
    pytest.importorskip("nest_asyncio")
    assert output(NESTED) == "(b'outer', b'inner')\n"


def test_a_clock_of_the_tests():
    """A select() that is replaced on the instance, as time-travelling test kits do it, is asked by
    the loop: hours pass at once, and connections work meanwhile."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, LOOPBACK, 0)
        transport, protocol = await loop.create_connection(
            Holding, *server.sockets[0].getsockname()
        )
        began = loop.time()
        for _ in range(3):
            await asyncio.sleep(3600)
            transport.write(b"x")
            await asyncio.sleep(3600)
        assert loop.time() - began >= 6 * 3600
        assert protocol.data == b"xxx"
        transport.close()
        await protocol.lost
        server.close()

    loop = headrace.new_event_loop()
    real_select, real_time, skipped = loop._selector.select, loop.time, [0.0]

    def select(timeout: float | None = None) -> list[Any]:
        found = real_select(0 if timeout is not None and timeout <= 0 else 0.02)
        if not found and timeout is not None and timeout > 0:
            skipped[0] += timeout
        return found

    loop._selector.select = select
    loop.time = lambda: real_time() + skipped[0]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        began = time.monotonic()
        runner.run(asyncio.wait_for(main(), 8 * 3600))
        assert time.monotonic() - began < TIMEOUT_S


# ---- connections that have nothing to say


@pytest.mark.parametrize("state", ["paused", "half closed", "closed", "reset", "paused and reset"])
def test_nothing_spins(state):
    """A peer's end or reset on a paused or half-closed connection costs no processor."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server((LOOPBACK, 0)) as listener:
            transport, protocol = await loop.create_connection(Holding, *listener.getsockname())
            peer, _ = listener.accept()
        if "paused" in state:
            transport.pause_reading()
            peer.send(b"data")
        if state == "half closed":
            transport.write_eof()
        if state in ("paused", "half closed"):
            peer.shutdown(socket.SHUT_WR)
        elif state == "closed":
            peer.close()
        else:
            reset(peer)
        await asyncio.sleep(0.05)
        turns = 0
        real_select = loop._selector.select

        def select(timeout=None):
            nonlocal turns
            turns += 1
            return real_select(timeout)

        loop._selector.select = select
        await asyncio.sleep(0.2)
        del loop._selector.select
        assert turns < 20
        transport.abort()
        await protocol.lost
        peer.close()

    headrace.run(asyncio.wait_for(main(), TIMEOUT_S))


# ---- for long


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
def test_soak(tls, secure):
    """For ten seconds connections come, send what chance says, pause, and end: every byte comes
    back, and nothing is left."""
    before = open_descriptors()
    chance = random.Random(1)

    async def one(loop, address, options, until_s):
        while loop.time() < until_s:
            transport, protocol = await loop.create_connection(Holding, *address, **options)
            sent = bytearray()
            for _ in range(chance.randrange(1, 6)):
                piece = chance.randbytes(chance.choice((1, 100, 5000, 300_000)))
                sent += piece
                transport.write(piece)
                if chance.random() < 0.3:
                    transport.pause_reading()
                    await asyncio.sleep(0.001)
                    transport.resume_reading()
            await until(lambda: len(protocol.data) >= len(sent))  # noqa: B023
            assert protocol.data == sent
            transport.close() if chance.random() < 0.8 else transport.abort()
            with contextlib.suppress(OSError):
                await protocol.lost

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            Echo, LOOPBACK, 0, **({"ssl": tls.server} if secure else {})
        )
        address = server.sockets[0].getsockname()
        options = {"ssl": tls.client, "server_hostname": HOST} if secure else {}
        await asyncio.gather(*(one(loop, address, options, loop.time() + 10) for _ in range(20)))
        server.close()
        await server.wait_closed()

    headrace.run(asyncio.wait_for(main(), 60))
    gc.collect()
    assert open_descriptors() - before == set()
