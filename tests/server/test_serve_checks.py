"""What a server of serve() says when it is full, and of peers that are no clients: a proxy's
checks, and who speaks something else."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

import pytest
from support.certificates import TlsPeer
from support.connections import LOOPBACK, receive, reset, until
from support.serving import connected

import headrace

LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a") + bytes([0x20, 0]) + struct.pack("!H", 0)
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
TRUSTED = ["127.0.0.0/8"]


async def greet(reader, writer):
    """Speak first, then send back what comes."""
    writer.write(b"hello\n")
    while data := await reader.read(1000):
        writer.write(data)


def told(caplog, level):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name == "headrace.server"
    ]


@pytest.mark.parametrize("refusal", [None, b"enough\n"])
def test_a_full_server_says_so(run, ours, caplog, refusal):
    """One warning when max_connections is reached, and no more for a while; the figures say what
    the bound is, and whether it holds."""

    async def main():
        async with headrace.serve(greet, LOOPBACK, 0, max_connections=2, refusal=refusal) as server:
            assert (server.statistics().max_connections, server.statistics().accepting) == (2, True)
            for _ in range(3):
                with (
                    await connected(server) as first,
                    await connected(server) as second,
                    await connected(server) as third,
                ):
                    for sock in (first, second):
                        assert await receive(sock, 6, exact=True) == b"hello\n"
                    if refusal is None:
                        assert server.statistics().accepting is False
                    else:
                        assert await receive(third, 7, exact=True) == refusal
                await until(lambda: not server.connections)
                assert server.statistics().accepting is True
        consequence = "accepting none" if refusal is None else "refusing further ones"
        [warning] = told(caplog, logging.WARNING)
        assert f"connections are open: {consequence} until one ends" in warning

    run(main)


@pytest.mark.parametrize("secure", ["plain", "tls", "handshake"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_proxys_check_counts_as_nothing(run, ours, tls, caplog, secure, end):
    """A LOCAL header and an end, with or without a handshake before it, reach no handler, and are
    no failure."""
    caplog.set_level(logging.INFO, "headrace.server")

    async def main():
        context = None if secure == "plain" else tls.server
        async with headrace.serve(greet, LOOPBACK, 0, proxies=TRUSTED, ssl=context) as server:
            sock = await connected(server)
            sock.send(LOCAL)
            if secure == "handshake":
                await TlsPeer(sock, tls.client).handshake()
            if end == "close":
                sock.close()
            else:
                reset(sock)
            await until(lambda: server.statistics().accepted == 1 and not server.connections)
            figures = server.statistics()
            assert (figures.handled, figures.failed, figures.ended, figures.handler_errors) == (
                0,
                {},
                {},
                0,
            )
        assert [each for each in told(caplog, logging.INFO) if "connection 1" in each] == []

    run(main)


def test_a_proxy_that_wants_an_answer(run, ours, caplog):
    """A proxy's own connection that waits for the server's first words gets them."""

    async def main():
        async with headrace.serve(greet, LOOPBACK, 0, proxies=TRUSTED) as server:
            with await connected(server) as sock:
                sock.send(LOCAL)
                assert await receive(sock, 6, exact=True) == b"hello\n"

    run(main)


STRANGERS = {
    "proxy": (
        b"\r\n\r\n\0\r\nQUIT\n" + bytes(20),
        {"ssl"},
        "not TLS",
        "begins with a PROXY header: is proxies= missing?",
    ),
    "proxy v1": (V1, {"ssl"}, "not TLS", "begins with a PROXY header: is proxies= missing?"),
    "plain": (b"hi", {"ssl"}, "not TLS", "that is plain text: b'hi'"),
    "http": (b"GET / HTTP/1.1\r\n\r\n", {"ssl"}, "not TLS", "that is plain text: b'GET / HTTP/1.1"),
    "bytes": (bytes(range(128, 148)), {"ssl"}, "not TLS", "that is not TLS: b'"),
    "plain behind a header": (
        V1 + b"hi",
        {"ssl", "proxies"},
        "not TLS",
        "that is plain text: b'hi'",
    ),
    "two headers": (V1 + V1, {"ssl", "proxies"}, "not TLS", "there are two PROXY headers"),
    "tls": (
        b"\x16\x03\x01\x00\xf8\x01",
        {"proxies"},
        "proxy",
        "that is TLS, and a connection must begin with a PROXY header",
    ),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_speaks_something_else(run, ours, tls, caplog, stranger):
    """The log says what a client spoke instead of the expected protocol."""
    caplog.set_level(logging.INFO, "headrace.server")
    data, given, cause, message = STRANGERS[stranger]
    options = {"ssl": tls.server, "proxies": TRUSTED}

    async def main():
        async with headrace.serve(
            greet, LOOPBACK, 0, **{name: options[name] for name in given}
        ) as server:
            with await connected(server) as sock:
                sock.send(data)
                await asyncio.sleep(0.02)
                sock.shutdown(socket.SHUT_WR)
                await until(lambda: server.statistics().failed)
            assert server.statistics().failed == {cause: 1}
        [line] = [each for each in told(caplog, logging.INFO) if "negotiation" in each]
        assert message in line

    run(main)


def test_guests_are_sent_home(run, ours):
    """A task that waits for draining says goodbye to an idle client: the shutdown does not wait for
    the grace."""

    async def chat(reader, writer):
        server = headrace.current_connection().server

        async def goodbye():
            await server.draining.wait()
            writer.write(b"we are closing\n")
            writer.close()

        leaving = asyncio.create_task(goodbye())
        try:
            async for line in reader:
                writer.write(line)
                await writer.drain()
        finally:
            leaving.cancel()

    async def main():
        async with headrace.serve(chat, LOOPBACK, 0, grace=60) as server:
            with await connected(server) as sock:
                sock.send(b"hello\n")
                assert await receive(sock, 6, exact=True) == b"hello\n"
                report = await asyncio.wait_for(server.shutdown(), 5)
                assert (report.cancelled, report.aborted) == (0, 0)
                assert await receive(sock) == b"we are closing\n"

    run(main)
