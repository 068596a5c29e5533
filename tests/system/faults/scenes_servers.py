"""Scenes of a server that cannot accept. See scene.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import Any

import child
from scene import (
    answered,
    descriptors,
    echo,
    echoing,
    fill_gaps,
    idle,
    play,
    raising,
    read_to_error,
    receive,
    reports,
    until,
)

import headrace
from headrace._transport.native import listener

# In place of the second for which a server leaves the system alone.
PAUSE_S = 0.2
OUT_OF_RESOURCE = "socket.accept() out of system resource"


async def accepting_fails(name: str, lone: str) -> None:
    """The system has nothing to accept with: reported as asyncio does, left alone for a while,
    tried again; nobody is turned away."""
    listener.RETRY_SECONDS = PAUSE_S
    async with echoing() as (_, address), contextlib.AsyncExitStack() as stack:
        if lone == "beside":
            _, writer = await headrace.open_connection(*address, way="native")
            stack.callback(writer.close)
        child.plan(f"accept4={name}@1x2")
        began = time.monotonic()
        with idle():
            await answered(address)
        assert time.monotonic() - began > 1.9 * PAUSE_S
        assert child.faults("accept4") == 2
        assert reports() == [(OUT_OF_RESOURCE, name)] * 2


async def accepting_stumbles(name: str) -> None:
    """A failure that is about one connection, or about none, is no reason to wait, nor to tell."""
    async with echoing() as (_, address):
        child.plan(f"accept4={name}@1x100")
        began = time.monotonic()
        await answered(address)
        assert time.monotonic() - began < 0.5
        assert child.faults("accept4") == 100


async def closed_while_accepting_is_paused(wait: str) -> None:
    """A server that is closed meanwhile stays closed, and keeps nothing."""
    listener.RETRY_SECONDS = PAUSE_S
    async with echoing() as (server, address):
        child.plan("accept4=EMFILE@1")
        with socket.create_connection(address) as peer:
            peer.setblocking(False)
            await until(lambda: child.faults("accept4"))
            server.close()
            with raising("ECONNRESET"):
                await receive(peer)
        await asyncio.sleep(float(wait))
        with raising("ECONNREFUSED"):
            socket.create_connection(address)
        assert child.faults("accept4") == 1
        assert reports() == [(OUT_OF_RESOURCE, "EMFILE")]


async def accepting_resumes_late(plan: str) -> None:
    """Where the system then has no descriptor or memory for the set either, it is tried a third
    time and a fourth."""
    listener.RETRY_SECONDS = PAUSE_S
    async with echoing() as (_, address):
        child.plan(f"accept4=EMFILE@1x1,{plan}@1x2")
        with idle():
            await answered(address)
        assert child.faults(plan.partition("=")[0]) == 2
        assert reports() == [(OUT_OF_RESOURCE, "EMFILE")]


async def one_server_pauses() -> None:
    """Another server of the same loop goes on, and so do the connections that there are."""
    listener.RETRY_SECONDS = PAUSE_S
    async with echoing() as (_, address), echoing() as (_, other):
        reader, writer = await headrace.open_connection(*other, way="native")
        child.plan("accept4=EMFILE@1x1")
        paused = asyncio.create_task(answered(address))
        await until(lambda: child.faults("accept4"))
        began = time.monotonic()
        await answered(other)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert time.monotonic() - began < 0.5 * PAUSE_S
        assert not paused.done()
        await paused
        writer.close()
        assert reports() == [(OUT_OF_RESOURCE, "EMFILE")]


async def an_accepted_connection_cannot_be_watched(name: str) -> None:
    """It is closed and reported, the handler sees its end, the next one is served, and the server
    can be closed."""
    seen: list[Any] = []

    async def handle(reader: Any, writer: Any) -> None:
        seen.append(await read_to_error(reader))
        await echo(reader, writer)

    async with echoing() as (_, address):
        await answered(address)
    async with echoing(handle) as (_, address):
        child.plan(f"epoll_ctl_add={name}@1x1")
        with socket.create_connection(address) as peer:
            peer.setblocking(False)
            assert await receive(peer) == b""
        assert child.faults("epoll_ctl_add") == 1
        assert reports() == [("Error on transport creation for incoming connection", name)]
        await until(lambda: seen)
        assert seen == [(b"", 0)]
        with socket.create_connection(address) as peer:
            peer.setblocking(False)
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert await receive(peer) == b""
        assert seen == [(b"", 0), (b"hello", 0)]


async def descriptors_run_out(kind: str) -> None:
    """A burst of connections for which there are no descriptors: some are served at once, the
    others in their turn, none is turned away."""
    start = asyncio.start_server if kind == "stock" else None
    if start is None:
        assert listener.RETRY_SECONDS == 1.0
    async with echoing(start=start) as (_, address), contextlib.AsyncExitStack() as stack:
        peers = [stack.enter_context(socket.socket()) for _ in range(12)]
        for number in fill_gaps():
            stack.callback(os.close, number)
        loop = asyncio.get_running_loop()
        with descriptors(spare=4):
            for peer in peers:
                peer.connect(address)
                peer.setblocking(False)
                peer.sendall(b"hello")
            # The four that were served stay.
            for peer in peers[:4]:
                assert await receive(peer, 5) == b"hello"
            with idle():
                await asyncio.sleep(0.5)
            told = reports()
            assert set(told) == {(OUT_OF_RESOURCE, "EMFILE")}
            assert (
                kind == "stock" or len(told) == 1
            )  # asyncio tries as often as the backlog is long, and tells each time
            for peer in peers[:4]:
                peer.close()
            began = loop.time()
            for peer in peers[4:]:
                assert await receive(peer, 5) == b"hello"
                peer.close()
            assert loop.time() - began < 3
            assert {message for message, _ in reports()} <= {OUT_OF_RESOURCE}


if __name__ == "__main__":
    play(globals())
