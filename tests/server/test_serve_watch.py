"""The bounds of serve() on what a connection does: who breaks one is ended, told and counted; who
keeps just inside it goes on."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.certificates import TlsPeer
from support.connections import receive, until
from support.serving import (
    LARGE,
    SHORT,
    Clients,
    Handler,
    answers,
    echo_lines,
    ended,
    repeated,
    send_much,
    serve,
    take,
)

from headrace._server import monitor, progress

# ---- how long


def test_first_byte(run, ours):
    """Where neither side says anything the connection is ended; a greeting of the server, or one
    byte of the client, is something."""

    async def work(reader, writer):
        if handler.started == 1:
            writer.write(b"220 hello\n")
        await echo_lines(reader, writer)

    handler = Handler(work)

    async def main():
        async with serve(handler, first_byte_timeout=SHORT) as server, Clients(server) as clients:
            greeted = clients.dial()
            assert await receive(greeted, 10) == b"220 hello\n"
            spoke = clients.dial()
            spoke.send(b"s")
            silent = clients.dial()
            assert await receive(silent) == b""
            assert await ended(server) == {"first byte": 1}
            assert await answers(greeted) and await receive(spoke, 0) == b""
            spoke.send(b"\n")
            assert await receive(spoke, 2) == b"s\n"
        assert handler.told == [
            f"the server has ended the connection: the peer has sent nothing for {SHORT} s"
        ]

    run(main)


def test_first_byte_after_a_handshake(run, ours, tls):
    """What TLS itself has sent is nothing that anybody said."""

    async def main():
        handler = Handler()
        async with (
            serve(handler, ssl=tls.server, first_byte_timeout=SHORT) as server,
            Clients(server) as clients,
        ):
            peer = TlsPeer(clients.dial(), tls.client)
            await peer.handshake()
            await receive(peer.sock)
            assert await ended(server) == {"first byte": 1}

    run(main)


def test_idle(run, ours):
    """A handler that waits for a silent peer is idle; one that works, or whose peer says a little
    now and then, is not."""

    async def work(reader, writer):
        works = handler.started == 1
        await reader.readline()
        if works:
            await worked.wait()
        await echo_lines(reader, writer)

    handler = Handler(work)
    worked = asyncio.Event()

    async def main():
        async with (
            serve(handler, first_byte_timeout=None, idle_timeout=SHORT) as server,
            Clients(server) as clients,
        ):
            working, talking, silent = (clients.dial() for _ in range(3))
            for sock in (working, talking, silent):
                sock.send(b"begin\n")
            async with repeated(lambda: talking.send(b".")):
                assert await receive(silent) == b""
                # Had they been idle, they would have been ended with it, or before.
                assert await ended(server) == {"idle": 1}
                worked.set()
                assert await answers(working)
        assert (
            handler.told[0]
            == f"the server has ended the connection: nothing was sent or received for {SHORT} s"
        )

    run(main)


def test_slow_download_is_not_idle(run, ours):
    """A peer that is slow to take its bytes is not idle, whether or not the handler has ended."""

    async def main():
        async with (
            serve(Handler(send_much), idle_timeout=SHORT, stall_timeout=None) as server,
            Clients(server) as clients,
        ):
            slow = clients.dial(receive_buffer=65536)
            await until(lambda: server.statistics().buffered_bytes)
            await asyncio.sleep(2 * SHORT)
            assert server.statistics().ended == {}
            assert len(await receive(slow)) == LARGE

    run(main)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_stall(run, ours, tls, secure):
    """A peer that takes nothing is ended, whatever its handler waits for; one that takes a little
    now and then is not."""

    async def work(reader, writer):
        await send_much(reader, writer)
        await reader.read()

    handler = Handler(work)

    async def main():
        async with serve(
            handler, ssl=tls.server if secure else None, stall_timeout=2 * SHORT
        ) as server:
            async with Clients(server) as clients:
                slow, stuck = clients.dial(receive_buffer=65536), clients.dial(receive_buffer=65536)
                if secure:
                    for sock in (slow, stuck):
                        await TlsPeer(sock, tls.client).handshake()

                async with repeated(take(slow)), asyncio.timeout(3):
                    assert await ended(server) == {"stalled": 1}
                    await until(lambda: len(server.connections) == 1)
            await until(lambda: not server.connections)
            # What was dropped was not sent.
            assert server.statistics().sent_bytes < 2 * LARGE
        assert f"the peer has taken nothing for {2 * SHORT} s of " in handler.told[0]

    run(main)


def test_minimum_rate_of_what_comes(run, ours, monkeypatch):
    """A message that comes too slowly ends its connection; one that comes fast enough does not, nor
    does the silence before one."""
    monkeypatch.setattr(progress, "RATE_SECONDS", 2 * SHORT)
    handler = Handler(echo_lines)

    async def main():
        async with serve(handler, minimum_rate=1000) as server, Clients(server) as clients:
            silent, good, bad = (clients.dial() for _ in range(3))
            assert await answers(silent)

            def trickle():
                good.send(b"." * 100)
                with contextlib.suppress(OSError):
                    bad.send(b".")

            async with repeated(trickle):
                assert await ended(server) == {"rate": 1}
                good.send(b"\n")
                assert (await receive(good, 200))[:200] == b"." * 200
            assert await answers(silent)
        assert handler.told == [
            "the server has ended the connection: a message comes at less than 1000 bytes/s"
        ]

    run(main)


def test_minimum_rate_of_what_goes(run, ours, monkeypatch):
    """A peer that takes too little of what is sent is ended; one that takes enough is not."""
    monkeypatch.setattr(progress, "RATE_SECONDS", 2 * SHORT)
    handler = Handler(send_much)

    async def main():
        async with (
            serve(handler, minimum_rate=1000, stall_timeout=None) as server,
            Clients(server) as clients,
        ):
            good, _ = clients.dial(receive_buffer=65536), clients.dial(receive_buffer=65536)

            async with repeated(take(good)):
                assert await ended(server) == {"rate": 1}
                await until(lambda: len(server.connections) == 1)
        assert (
            handler.told[0]
            == "the server has ended the connection: the peer takes what is sent at less than 1000 "
            "bytes/s"
        )

    run(main)


# ---- how much


def test_buffered_bytes(run, ours, monkeypatch):
    """Above max_buffered_bytes the connection with the most is ended, and no other; then
    connections are accepted as before."""
    monkeypatch.setattr(monitor, "MEMORY_PERIOD", 0.02)
    enough = asyncio.Event()

    async def work(reader, writer):
        await enough.wait()
        await echo_lines(reader, writer)

    async def main():
        async with (
            serve(work, max_buffered_bytes=100_000, limit=100_000) as server,
            Clients(server) as clients,
        ):
            small, large = clients.dial(), clients.dial()
            small.send(b"." * 40_000)
            large.send(b"." * 50_000)
            await until(lambda: server.statistics().buffered_bytes == 90_000)
            await asyncio.sleep(SHORT)
            assert server.statistics().ended == {}
            large.send(b"." * 20_000)
            assert await ended(server) == {"memory": 1}
            enough.set()
            small.send(b"\n")
            assert await receive(small, 40_001) == b"." * 40_000 + b"\n"
            assert await answers(clients.dial())

    run(main)


def test_buffers_that_stay_full(run, ours, monkeypatch):
    """Buffers just below their bound, which nobody empties, do not keep new connections out for
    ever."""
    monkeypatch.setattr(monitor, "MEMORY_PERIOD", 0.02)

    async def work(reader, writer):
        if handler.started > 12:
            await echo_lines(reader, writer)
        await asyncio.Event().wait()

    handler = Handler(work)

    async def main():
        async with serve(handler, max_buffered_bytes=110_000, limit=20_000, grace=0) as server:
            async with Clients(server) as clients:
                for sock in [clients.dial() for _ in range(12)]:
                    sock.send(bytes(10_000))
                await ended(server)
                async with asyncio.timeout(2):
                    assert await answers(clients.dial())
            assert server.statistics().ended["memory"] < 6

    run(main)


# ---- and then


def test_handler_that_goes_on(run, ours):
    """A handler that does not end when it is told is cancelled, once: its cleanup is its own."""
    cancelled = []

    async def work(reader, writer):
        with pytest.raises(ConnectionAbortedError, match="nothing was sent or received"):
            await reader.read()
        with pytest.raises(ConnectionAbortedError, match="nothing was sent or received"):
            await writer.drain()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(8):
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    cancelled.append("again")
            cancelled.append("cleaned up")

    async def main():
        async with serve(work, idle_timeout=SHORT, first_byte_timeout=None) as server:
            async with Clients(server) as clients:
                assert await receive(clients.dial()) == b""
                await until(lambda: not server.connections)
            assert cancelled == ["cleaned up"]
            assert (server.statistics().ended, server.statistics().handler_errors) == (
                {"idle": 1},
                0,
            )

    run(main)


def test_slices(run, ours):
    """Of 300 connections, which the monitor looks at in slices, each silent one is ended, once, and
    none of those that talk."""

    async def main():
        handler = Handler()
        async with (
            serve(handler, first_byte_timeout=2 * SHORT) as server,
            Clients(server) as clients,
        ):
            socks = [clients.dial() for _ in range(300)]
            for sock in socks[::10]:
                sock.send(b"x")
            assert await ended(server, 270) == {"first byte": 270}
            await until(lambda: handler.running == 30)
            assert len(handler.told) == 270
            await asyncio.sleep(0)
            assert server.statistics().open == 30
        assert handler.started == 300

    run(main)


def test_sum_of_slices(run, ours, monkeypatch):
    """max_buffered_bytes is about all connections together, however many slices they are looked at
    in."""
    monkeypatch.setattr(monitor, "MEMORY_PERIOD", 0.02)

    async def main():
        handler = Handler(lambda reader, writer: asyncio.Event().wait())
        async with (
            serve(handler, max_buffered_bytes=29_000, grace=0) as server,
            Clients(server) as clients,
        ):
            for sock in [clients.dial() for _ in range(300)]:
                sock.send(bytes(100))
            assert (await ended(server))["memory"] >= 10
            await until(lambda: server.statistics().buffered_bytes <= 29_000)
            assert server.statistics().ended["memory"] < 60

    run(main)


def test_transport_that_is_closed_twice(run, ours, tls):
    """A handler that closes its transport after its writer spoils nothing: its connection ends, and
    the bounds of others are kept."""

    async def work(reader, writer):
        if handler.started == 1:
            writer.close()
            writer.transport.close()
            await closed.wait()
        else:
            await reader.read()

    handler = Handler(work)
    closed = asyncio.Event()

    async def main():
        async with serve(
            handler, ssl=tls.server, idle_timeout=SHORT, first_byte_timeout=None, grace=0
        ) as server:
            async with Clients(server) as clients:
                for started in (1, 2):
                    await TlsPeer(clients.dial(), tls.client).handshake()
                    await until(lambda started=started: handler.started == started)
                async with asyncio.timeout(1):
                    assert await ended(server) == {"idle": 1}
                closed.set()
            async with asyncio.timeout(1):
                await until(lambda: not server.connections)

    run(main)
