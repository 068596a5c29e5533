"""The bounds of serve() on who comes in: none above one is, and none below it is kept out."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import pytest
from support.certificates import TlsPeer
from support.connections import receive, until
from support.serving import Clients, Handler, answers, echo_lines, serve
from support.wires import turns

import headrace
from headrace._server.config import Limits
from headrace._server.networks import peer_key


def test_connections_above_the_most_wait(run, ours):
    """Of a burst, no more than max_connections are accepted; one that leaves makes room for one."""

    async def main():
        handler = Handler()
        async with serve(handler, max_connections=3) as server:
            async with Clients(server) as clients:
                socks = [clients.dial() for _ in range(12)]
                await until(lambda: handler.started >= 3)
                await turns(50)
                for gone in range(1, 10):
                    socks.pop(0).close()
                    await until(lambda gone=gone: handler.started >= 3 + gone)
                    await turns(20)
                    assert server.statistics().open <= 3
            assert (handler.most, handler.started) == (3, 12)
            await until(lambda: not server.connections)
            assert server.statistics().refused == {}

    run(main)


@pytest.mark.parametrize("refusal", [b"", b"busy\n"])
def test_connections_above_the_most_are_refused(run, ours, refusal):
    """With a refusal each connection above max_connections gets that and its end, and no handler;
    below it they are served again."""

    async def main():
        handler = Handler(echo_lines)
        async with (
            serve(handler, max_connections=2, refusal=refusal) as server,
            Clients(server) as clients,
        ):
            served = [clients.dial() for _ in range(2)]
            for sock in served:
                assert await answers(sock)
            for _ in range(3):
                assert await receive(clients.dial()) == refusal
            assert (server.statistics().refused, handler.started) == ({"full": 3}, 2)
            served[0].close()
            await until(lambda: server.statistics().open == 1)
            assert await answers(clients.dial())
            assert await answers(served[1])

    run(main)


@pytest.mark.parametrize("bound", ["max_connections", "max_connections_per_peer"])
def test_no_refusal_before_tls(run, ours, tls, bound):
    """A TLS client is refused without any text: plain text would be an error to it."""

    async def main():
        async with (
            serve(echo_lines, ssl=tls.server, refusal=b"busy\n", **{bound: 1}) as server,
            Clients(server) as clients,
        ):
            peer = TlsPeer(clients.dial(), tls.client)
            await peer.handshake()
            assert await receive(clients.dial()) == b""
            await peer.write(b"line\n")
            assert await peer.read(5) == b"line\n"
            assert sum(server.statistics().refused.values()) == 1

    run(main)


def test_connections_of_one_peer(run, ours):
    """The connection above max_connections_per_peer is refused; other addresses come in, and the
    same one when another of its is gone."""

    async def main():
        async with (
            serve(echo_lines, max_connections_per_peer=2, refusal=b"enough\n") as server,
            Clients(server) as clients,
        ):
            first, second, other = clients.dial(), clients.dial(), clients.dial("127.0.0.2")
            for sock in (first, second, other):
                assert await answers(sock)
            assert await receive(clients.dial()) == b"enough\n"
            assert server.statistics().refused == {"peer": 1}
            first.close()
            await until(lambda: server.statistics().open == 2)
            assert await answers(clients.dial())
            assert await receive(clients.dial()) == b"enough\n"
            assert await answers(second) and await answers(other)

    run(main)


def test_peers_at_a_unix_socket(run, ours, tmp_path):
    """Clients of a Unix socket have no address, and no bound for one."""

    async def main():
        async with (
            headrace.serve(
                echo_lines, path=tmp_path / "socket", max_connections_per_peer=1
            ) as server,
            Clients(server) as clients,
        ):
            for sock in [clients.dial() for _ in range(3)]:
                assert await answers(sock)

    run(main)


@pytest.mark.parametrize(
    ("peername", "key"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2::1", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff:ffff:ffff:ffff", 9, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::1", 1, 0, 0), "2001:db8:1:3::/64"),
        (("fe80::1%lo", 1, 0, 1), "fe80::/64"),
        ("", None),
        (b"\0name", None),
        (None, None),
    ],
)
def test_whom_a_peer_counts_for(peername, key):
    """A peer is its IPv4 address, however written, or the /64 of its IPv6 address; without an
    address there is no peer."""
    assert peer_key(peername) == key


def test_accept_rate(run, ours):
    """Of a burst, a second's worth of connections is accepted at once, the others as the rate has
    it, and none is lost."""

    async def main():
        loop = asyncio.get_running_loop()
        handler = Handler()
        async with serve(handler, accept_rate=40) as server, Clients(server) as clients:
            began = loop.time()
            for _ in range(45):
                clients.dial()
            await until(lambda: handler.started >= 40)
            await turns(20)
            assert handler.started < 45 or loop.time() - began > 0.1
            await until(lambda: handler.started == 45)
            assert 0.1 < loop.time() - began < 5

    run(main)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_no_bound(name):
    """A bound that is no number above 0 is refused when the server is made, by its name."""
    for value in (0, -1, -0.5, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            serve(echo_lines, **{name: value})
