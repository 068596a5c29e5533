"""A connection that is made and ends, in whatever way, leaves nothing on either side: no object, no
reference, no descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from conftest import LOOP_KINDS
from support.certificates import HOST
from support.connections import LOOPBACK, serving
from support.leaks import DATA, grown
from support.wires import turns

# For each connection there are dozens of objects and blocks, and some chance: one block is none.
CONNECTIONS = 60
WARM_UP_CONNECTIONS = 10


# The loops that step tasks, in Python and in C: what leaks on another kind leaks on these.
@pytest.fixture(params=[kind for kind in LOOP_KINDS if kind in ("asyncio", "uvloop")])
def loop_kind(request):
    return request.param


async def echo(reader, writer):
    """What the servers of these tests do."""
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def talk(reader, writer):
    """Say something, hear it, and close."""
    writer.write(DATA)
    assert await reader.readline() == DATA
    writer.close()
    await writer.wait_closed()


async def grown_by_connections(step, blocks=1):
    async def and_its_end():
        await step()
        await turns(4)  # the server's side ends too

    return await grown(and_its_end, repeats=CONNECTIONS, warm_up=WARM_UP_CONNECTIONS, blocks=blocks)


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_connections(run, ours, tls, tmp_path, kind):
    """A connection that is made, used and closed leaves nothing, on either side, over TCP, a Unix
    socket or TLS."""

    async def main():
        if kind == "unix":
            path = str(tmp_path / "socket")
            server = await ours.start_unix_server(echo, path)

            async def step():
                await talk(*await ours.open_unix_connection(path))
        else:
            server = await ours.start_server(
                echo, LOOPBACK, 0, ssl=tls.server if kind == "tls" else None
            )
            address = server.sockets[0].getsockname()
            options = {"ssl": tls.client, "server_hostname": HOST} if kind == "tls" else {}

            async def step():
                await talk(*await ours.open_connection(*address, **options))

        async with server:
            assert await grown_by_connections(step) == {}

    run(main)


def test_servers(run, ours):
    """A server that is started, used and closed leaves nothing, whichever side closes a connection
    first."""

    async def main():
        async def step():
            async with serving(ours, echo) as address:
                await talk(*await ours.open_connection(*address))
                reader, writer = await ours.open_connection(*address)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()

        # uvloop remembers addresses, hundreds of them, and here each server has another: a few
        # blocks each.
        assert await grown_by_connections(step, blocks=20) == {}

    run(main)


def test_connections_that_fail(run, ours, closed_port):
    """A connection that is refused, cancelled while it is made, or aborted in use leaves
    nothing."""

    async def main():
        async with serving(ours, echo) as address:

            async def step():
                with contextlib.suppress(OSError):
                    await ours.open_connection(LOOPBACK, closed_port)
                connecting = asyncio.create_task(ours.open_connection(*address))
                await turns()
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    _, writer = await connecting
                    writer.close()
                reader, writer = await ours.open_connection(*address)
                waiting = asyncio.create_task(reader.readline())
                await turns()
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await waiting
                    await writer.wait_closed()

            assert await grown_by_connections(step) == {}

    run(main)


def test_start_tls(run, ours, tls):
    """A connection that is upgraded on both sides, used and closed leaves nothing."""

    async def upgrading(reader, writer):
        await reader.readline()
        await writer.start_tls(tls.server)
        await echo(reader, writer)

    async def main():
        async with serving(ours, upgrading) as address:

            async def step():
                reader, writer = await ours.open_connection(*address)
                writer.write(DATA)
                await writer.start_tls(tls.client, server_hostname=HOST)
                await talk(reader, writer)

            assert await grown_by_connections(step) == {}

    run(main)


@pytest.mark.parametrize("when", ["open_connection", "start_tls"])
def test_handshakes_that_fail(run, ours, tls, when):
    """A handshake that fails on a certificate leaves nothing, on either side, and the reader, the
    writer and their error are freed."""
    run.expect_errors()

    async def upgrading(reader, writer):
        await reader.readline()
        with contextlib.suppress(OSError):
            await writer.start_tls(tls.server)

    async def main():
        early = when == "open_connection"
        async with serving(
            ours, echo if early else upgrading, ssl=tls.server if early else None
        ) as address:

            async def step():
                with contextlib.suppress(ssl.SSLError, ConnectionError):
                    if early:
                        await ours.open_connection(*address, ssl=tls.stranger, server_hostname=HOST)
                    else:
                        _, writer = await ours.open_connection(*address)
                        writer.write(DATA)
                        await writer.start_tls(tls.stranger, server_hostname=HOST)
                    raise AssertionError
                run.errors.clear()

            assert await grown_by_connections(step) == {}

    run(main)
