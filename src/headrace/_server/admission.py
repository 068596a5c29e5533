"""Admission: who may come in, and whether the server accepts at all just now."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from headrace._server.config import Limits
from headrace._transport.acceptor import BROKEN, SHORTAGES, Acceptor

logger = logging.getLogger("headrace.server")

# What one customer of a provider is given of IPv6 (RFC 6177): he can come from any address in it.
PEER_PREFIX = 64


def ip_of(peername: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address of *peername*, of IPv4 also where the socket is one of IPv6; None for
    those that have none."""
    if not isinstance(peername, tuple):
        return None
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def peer_key(peername: Any) -> str | None:
    """Return whom a connection from *peername* counts for: the address, of IPv6 its network; None
    for those that have none."""
    address = ip_of(peername)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, PEER_PREFIX), strict=False))
    return None if address is None else str(address)


class Networks:
    """A set of networks; Unix sockets are in it by the name "unix"."""

    def __init__(self, networks: Iterable[str]) -> None:
        if isinstance(networks, str):
            raise TypeError(f"proxies must be a list of networks, not the string {networks!r}")
        names = list(networks)
        self._unix = "unix" in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names if name != "unix"]
        except ValueError as error:
            raise ValueError(
                f"proxies must be networks, such as '10.0.0.0/8', '::1' and 'unix': {error}"
            ) from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peername: Any) -> bool:
        address = ip_of(peername)
        if address is None:
            return self._unix
        return any(
            address in network for network in self._networks if network.version == address.version
        )


class Gate:
    """Holds the acceptors of a server as long as there is a reason to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.acceptors: list[Acceptor] = []
        self.reasons: set[str] = set()
        # Whether what waits in the queues is lost when they are closed: nobody else has the sockets
        # of this server.
        self.alone = True
        # What was taken out of the queues then, and may not come in yet: whose it is, the socket,
        # the peer.
        self.waiting: deque[tuple[Acceptor, socket.socket, Any]] = deque()
        # Those of the acceptors whose sockets are somebody else's too.
        self._borrowed: set[Acceptor] = set()
        self._loop = loop
        # A bucket that holds a second's worth, so that a burst is as good as an even flow.
        self._rate = limits.accept_rate
        self._tokens = max(1.0, self._rate or 0.0)
        self._filled_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, acceptor: Acceptor) -> None:
        """Let *acceptor*, which listens and is held, accept like the others, if it does not yet."""
        if acceptor not in self.acceptors:
            self.acceptors.append(acceptor)
            self._borrowed.add(acceptor)
            if not self.reasons:
                acceptor.resume()

    def remove(self, acceptor: Acceptor) -> None:
        """Hold *acceptor*, and leave what waits in its queue to somebody else."""
        if acceptor in self.acceptors:
            self.acceptors.remove(acceptor)
            acceptor.hold()

    def hold(self, reason: str) -> None:
        """Accept nothing while there is this *reason*."""
        if not self.reasons:
            for each in self.acceptors:
                each.hold()
        self.reasons.add(reason)

    def release(self, reason: str) -> None:
        """The *reason* is gone."""
        if reason in self.reasons:
            self.reasons.remove(reason)
            if not self.reasons:
                for each in self.acceptors:
                    each.resume()
            while self.waiting and not self.reasons:
                acceptor, sock, peername = self.waiting.popleft()
                acceptor.adopt(sock, peername)

    def count(self) -> None:
        """A connection was accepted: wait with the next where they come too fast."""
        if self._rate is None:
            return
        now = self._loop.time()
        self._tokens = (
            min(max(1.0, self._rate), self._tokens + (now - self._filled_at) * self._rate) - 1
        )
        self._filled_at = now
        if self._tokens < 1 and self._timer is None:
            self.hold("rate")
            self._timer = self._loop.call_later((1 - self._tokens) / self._rate, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.release("rate")

    def abandon(self) -> None:
        """Close the acceptors, and accept nobody who waits: the server does not start."""
        acceptors, self.acceptors = self.acceptors, []
        for each in acceptors:
            each.close()

    async def close(self) -> None:
        """Close the acceptors, after what waits in their queues, which becomes connections: at
        once, or when there is room."""
        # They are still those that hold() is about.
        for each in self.acceptors:
            each.accept_waiting()
            if self.reasons and self.alone and each not in self._borrowed:
                self.waiting += [(each, sock, peername) for sock, peername in take_waiting(each)]
            each.close()
        acceptors, self.acceptors = self.acceptors, []
        for each in acceptors:
            await each.connected()

    def give_up(self) -> int:
        """Close what still waits to come in; return how many connections that are."""
        if self._timer is not None:
            self._timer.cancel()
        count = len(self.waiting)
        while self.waiting:
            self.waiting.popleft()[1].close()
        return count


def take_waiting(acceptor: Acceptor) -> list[tuple[socket.socket, Any]]:
    """Return all connections that wait in the queue of *acceptor*, which is held, and who they are
    from."""
    taken: list[tuple[socket.socket, Any]] = []
    while True:
        try:
            taken.append(acceptor.sock.accept())
        except BlockingIOError:
            return taken
        except OSError as error:
            if error.errno in SHORTAGES:
                logger.warning(
                    "%d connections were taken out of a queue, and for the others there is no "
                    "descriptor: %s",
                    len(taken),
                    error,
                )
            if error.errno in (*SHORTAGES, *BROKEN):
                return taken


class Peers:
    """How many connections each peer has, and may have."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()

    def admit(self, peername: Any) -> tuple[bool, str | None]:
        """Return whether one more of *peername* may come in, and what to give back at its end."""
        key = peer_key(peername)
        if key is None:
            return True, None
        if self._counts[key] >= self._most:
            return False, None
        self._counts[key] += 1
        return True, key

    def leave(self, key: str | None) -> None:
        """A connection that was admitted is gone."""
        if key is not None:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
