"""Registry: the connections of a server that are open, and what has become of all others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace._server.config import EndReason, FailCause, RefuseReason
from headrace._server.log import Log
from headrace._server.session import Phase, Session
from headrace._server.statistics import Statistics

if TYPE_CHECKING:
    from headrace._server.stream_server import StreamServer

# A connection is over in one of these, once its transport is lost too.
_DONE = (Phase.ACCEPTED, Phase.TURNED_AWAY, Phase.FINISHING)


class Registry:
    """Owns the open set and every counter. *on_left* is called for each connection that is over."""

    def __init__(self, log: Log, on_left: Callable[[Session], None]) -> None:
        self.open: set[Session] = set()
        # Connections that were accepted; that are over; and handlers that have ended.
        self.accepted = self.left = self.handled = 0
        self.refused: Counter[RefuseReason] = Counter()
        self.ended: Counter[EndReason] = Counter()
        self.failed: Counter[FailCause] = Counter()
        # By the class of what handlers raised.
        self.errors: Counter[str] = Counter()
        # Of connections that are lost; the others count for themselves.
        self._received = self._sent = 0
        self._log = log
        self._on_left = on_left

    def add(self, server: StreamServer, peername: Any) -> Session:
        """Return a new Session, which is open from now on."""
        self.accepted += 1
        session = Session(server, self.accepted, peername, self._lost)
        self.open.add(session)
        return session

    def _lost(self, session: Session) -> None:
        """The transport of *session* is gone."""
        figures = session.figures()
        self._received += figures.received
        self._sent += figures.written - figures.unsent
        session.lost = True
        if session.tracing is not None and session.tracing.is_connected:
            session.tracing.closed(session.error(), figures.received, figures.written)
        self.settle(session)

    def settle(self, session: Session) -> None:
        """Forget *session* if it is over: neither its transport nor its handler is there any
        more."""
        if not session.lost or session.phase not in _DONE:
            return
        if self._log.wants(logging.DEBUG):
            figures = session.figures()
            self._log.say_of(
                session,
                logging.DEBUG,
                "from %r is over: %d bytes came, %d went",
                session.peername,
                figures.received,
                figures.written - figures.unsent,
            )
        session.move(Phase.OVER)
        self.open.remove(session)
        self.left += 1
        self._on_left(session)

    def end(self, session: Session, reason: EndReason, text: str) -> None:
        """End *session* at once, and have its handler told why."""
        if session.ended is None and session.refused is None:
            self.ended[reason] += 1
            self._log.say_of(session, logging.INFO, "with %r is ended: %s", session.peername, text)
        session.ended = reason
        session.abort(ConnectionAbortedError(f"the server has ended the connection: {text}"))

    def statistics(
        self,
        *,
        uptime: float,
        max_connections: int | None,
        accepting: bool,
        draining: bool,
        drain_seconds: float | None,
    ) -> Statistics:
        """Return all counts of now, with what the server adds to them."""
        negotiating, buffered, received, sent = 0, 0, self._received, self._sent
        for session in self.open:
            negotiating += session.phase is Phase.NEGOTIATING
            if session.lost:  # counted already
                continue
            figures = session.figures()
            buffered += figures.unread + figures.unsent
            received += figures.received
            sent += figures.written - figures.unsent
        return Statistics(
            uptime=uptime,
            open=len(self.open),
            max_connections=max_connections,
            accepting=accepting,
            negotiating=negotiating,
            buffered_bytes=buffered,
            draining=draining,
            accepted=self.accepted,
            refused={each.value: count for each, count in self.refused.items()},
            ended={each.value: count for each, count in self.ended.items()},
            failed={each.value: count for each, count in self.failed.items()},
            handled=self.handled,
            errors=dict(self.errors),
            received_bytes=received,
            sent_bytes=sent,
            drain_seconds=drain_seconds,
        )
