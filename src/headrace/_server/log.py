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
        if logger.isEnabledFor(level):
            name = self._name()
            logger.log(
                level,
                "%s: " + message,
                name,
                *arguments,
                exc_info=error,
                stacklevel=2,
                extra={"server": name},
            )

    def say_of(
        self,
        connection: Connection,
        level: int,
        message: str,
        *arguments: object,
        error: BaseException | None = None,
    ) -> None:
        """Log something about *connection*."""
        if logger.isEnabledFor(level):
            name = self._name()
            logger.log(
                level,
                "%s: connection %d: " + message,
                name,
                connection.id,
                *arguments,
                exc_info=error,
                stacklevel=2,
                extra={"server": name, "connection": connection.id, "peer": connection.peername},
            )
