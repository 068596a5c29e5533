"""Handlers: runs a server's handler for each connection, and says what became of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from headrace._duplex.stream import Stream
from headrace._server.log import Log
from headrace._server.options import Handler, OnError, takes_stream
from headrace._server.registry import Registry
from headrace._server.session import Phase, Session
from headrace._transport.scheduler import scheduler_of
from headrace.errors import StreamTimeout


class Handlers:
    """Starts *handler* for connections of *registry*, and closes them when it is over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        handler: Handler,
        on_error: OnError | None,
        log: Log,
    ) -> None:
        self._loop = loop
        self._registry = registry
        call: Any = handler
        self._call: Callable[[Any, Any], Awaitable[object]] = (
            (lambda reader, writer: call(Stream(reader, writer))) if takes_stream(handler) else call
        )
        self._on_error = on_error
        self._log = log
        # The callback of a task needs none, and each task would keep a copy of the running one.
        self._context = contextvars.Context()

    def start(self, session: Session) -> None:
        """Start the handler of *session*, whose streams are there."""
        session.move(Phase.HANDLED)
        session.handled_at = self._loop.time()
        if session.tracing is not None:
            session.tracing.connected(session.writer, session.peername)
        try:
            result: Any = self._call(session.reader, session.writer)
            task: Any = (
                scheduler_of(self._loop).start(result)
                if asyncio.iscoroutine(result)
                else asyncio.ensure_future(result, loop=self._loop)
            )
        except Exception as error:
            self._failed(session, error)
            self._finish(session)
            return
        session.task = task
        task.add_done_callback(functools.partial(self._over, session), context=self._context)

    def _over(self, session: Session, task: asyncio.Task[object]) -> None:
        """The handler of *session* has come to its end."""
        session.task = None
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self._failed(session, error)
        self._finish(session)

    def _finish(self, session: Session) -> None:
        """Close the connection after what its handler has written."""
        self._registry.handled += 1
        session.move(Phase.FINISHING)
        # A peer that has not said all may still be sending.
        session.close(lingering=True)
        self._registry.settle(session)

    def _failed(self, session: Session, error: Exception) -> None:
        """Log what a handler raised, count it where that was its own fault, and tell who wants to
        know."""
        assert session.reader is not None
        peername = session.peername
        if session.ended is not None and error is session.reader.exception():
            # It was told so, and that was logged.
            self._log.say_of(
                session, logging.DEBUG, "the handler for %r ended: %s", peername, error
            )
        elif _is_the_peers(session, error):
            self._log.say_of(session, logging.INFO, "%r broke the connection: %r", peername, error)
        else:
            self._registry.errors[type(error).__name__] += 1
            self._log.say_of(
                session, logging.ERROR, "the handler for %r failed", peername, error=error
            )
        if self._on_error is not None:
            try:
                session.run(self._on_error, session, error)
            except Exception as failure:
                self._log.say_of(
                    session, logging.ERROR, "on_error() failed for %r", peername, error=failure
                )


def _is_the_peers(session: Session, error: Exception) -> bool:
    """Tell whether the peer has caused *error*, and not, say, a database that the handler has to do
    with."""
    assert session.reader is not None
    if isinstance(error, ExceptionGroup):
        return all(_is_the_peers(session, each) for each in error.exceptions)
    if isinstance(error, asyncio.IncompleteReadError):
        return session.reader.at_eof()
    if isinstance(error, StreamTimeout):
        return error.stream is not None and error.stream.reader is session.reader
    return error is session.reader.exception() or (
        session.lost and isinstance(error, (ConnectionError, ssl.SSLError))
    )
