"""Log: the logger headrace.server, in the words of one server."""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace._server.connection import Connection

logger = logging.getLogger("headrace.server")


class Log:
    """Says of one server, whose name() it asks for each time, what happens to it and to its
    connections. Records have ``server``, ``connection`` and ``peer`` as attributes."""

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name

    def wants(self, level: int) -> bool:
        """Tell whether anybody is to hear of what has this *level*."""
        return logger.isEnabledFor(level)

    def say(
        self, level: int, message: str, *arguments: object, error: BaseException | None = None
    ) -> None:
        """Log something about the server."""
        self._emit(level, message, arguments, error, {})

    def say_of(
        self,
        connection: Connection,
        level: int,
        message: str,
        *arguments: object,
        error: BaseException | None = None,
    ) -> None:
        """Log something about *connection*."""
        about = {"connection": connection.id, "peer": connection.peername}
        words = (connection.id, *arguments)
        self._emit(level, "connection %d: " + message, words, error, about)

    def _emit(
        self,
        level: int,
        message: str,
        arguments: tuple[object, ...],
        error: BaseException | None,
        about: dict[str, object],
    ) -> None:
        name = self._name()
        logger.log(
            level,
            "%s: " + message,
            name,
            *arguments,
            exc_info=error,
            stacklevel=3,  # where it was said
            extra={"server": name, **about},
        )
