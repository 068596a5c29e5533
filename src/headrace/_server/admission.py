"""Admission: who may come in: so many connections, and so many of each peer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter

from headrace._server.config import Limits, RefuseReason
from headrace._server.listeners import Listeners
from headrace._server.log import Log
from headrace._server.networks import peer_key
from headrace._server.registry import Registry
from headrace._server.session import Session

# Why the listeners are held at max_connections.
FULL = "full"
# How long max_connections must not have been reached for the next time to be worth a warning, in
# seconds.
FULL_SECONDS = 60.0


class Admission:
    """Keeps max_connections and max_connections_per_peer. Where connections above the first
    *refuses* are refused, all are accepted; else the listeners wait."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        listeners: Listeners,
        limits: Limits,
        refuses: bool,
        log: Log,
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._listeners = listeners
        self._most = math.inf if limits.max_connections is None else limits.max_connections
        self._most_per_peer = limits.max_connections_per_peer
        self._refuses = refuses
        self._log = log
        self._per_peer: Counter[str] = Counter()
        # When max_connections was reached last, in the loop's seconds.
        self._full_at = -math.inf

    def accepted(self, session: Session) -> None:
        """*session* is in the registry: it may be the last that fits, or one too many, which is
        marked as refused."""
        self._listeners.count()
        there = len(self._registry.open)
        if there < self._most:
            return
        if not self._refuses:
            self._listeners.hold(FULL)
            self._say_full(there, "accepting none until one ends")
        elif there > self._most:
            session.refused = RefuseReason.FULL
            self._say_full(there, "refusing further ones until one ends")

    def admit_peer(self, session: Session) -> bool:
        """Count *session* for its peer; return False, and count nothing, where that has as many as
        it may have."""
        if self._most_per_peer is None:
            return True
        key = peer_key(session.peername)
        if key is None:
            return True
        if self._per_peer[key] >= self._most_per_peer:
            return False
        self._per_peer[key] += 1
        session.key = key
        return True

    def left(self, session: Session) -> None:
        """*session* is no longer in the registry: there is room for another."""
        if session.key is not None:
            self._per_peer[session.key] -= 1
            if not self._per_peer[session.key]:
                del self._per_peer[session.key]
        if len(self._registry.open) < self._most:
            self._listeners.release(FULL)

    def _say_full(self, there: int, consequence: str) -> None:
        """Warn that max_connections is reached: once, and again only where that was over for a
        while."""
        now = self._loop.time()
        if now - self._full_at >= FULL_SECONDS:
            self._log.say(logging.WARNING, "%d connections are open: %s", there, consequence)
        self._full_at = now
