"""Listeners: the acceptors of a server, held as long as there is a reason to."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any

from headrace._server.log import logger
from headrace._transport.acceptor import BROKEN, SHORTAGES, Acceptor


class Listeners:
    """The listening sockets of a server: they accept together, and are held together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, accept_rate: float | None) -> None:
        self.acceptors: list[Acceptor] = []
        self.reasons: set[str] = set()
        # Whether what waits in the queues is lost when they are closed, because no other process
        # has the sockets.
        self.alone = True
        # What was taken out of the queues then, and may not come in yet: whose it is, the socket,
        # the peer.
        self.waiting: deque[tuple[Acceptor, socket.socket, Any]] = deque()
        # Those of the acceptors whose sockets belong to another process too.
        self._borrowed: set[Acceptor] = set()
        self._loop = loop
        # A bucket that holds a second's worth, so that a burst is as good as an even flow.
        self._rate = accept_rate
        self._tokens = max(1.0, accept_rate or 0.0)
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
        """Hold *acceptor*, and leave what waits in its queue to another process."""
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
        """Close the acceptors, and what waits in their queues: the server does not start."""
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
