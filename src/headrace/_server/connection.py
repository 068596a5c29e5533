"""Connection: one connection of a server, as its handler sees it; and current_connection()."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace._duplex.facts import Credentials
    from headrace._server.proxy import ProxyHeader
    from headrace._server.stream_server import StreamServer

_current: contextvars.ContextVar[Connection] = contextvars.ContextVar("headrace.connection")


class Connection:
    """One connection of a StreamServer. Handlers get theirs from current_connection()."""

    # With what help() says of them.
    __slots__ = {
        "id": "The number of the connection, an int: those of a server are counted from 1. Logs "
        "name it.",
        "proxy": "The ProxyHeader that the connection began with, or None.",
        "server": "The StreamServer that the connection is one of.",
    }

    def __init__(self, server: StreamServer, number: int) -> None:
        self.server: StreamServer = server
        self.id: int = number
        self.proxy: ProxyHeader | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} of {self.server.name} with {self.peername!r}>"

    @property
    def peername(self) -> Any:
        """The peer's address as the socket module writes it: the client's own, where a proxy has
        told it in a PROXY header."""
        raise NotImplementedError

    @property
    def credentials(self) -> Credentials | None:
        """Who connected over a Unix socket; None for any other connection, and once it is
        closed."""
        raise NotImplementedError


def current_connection() -> Connection:
    """Return the Connection whose handler, or a task of its, this is.

    Raises: LookupError outside the handlers of a StreamServer.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "this is no handler of headrace.serve(), nor a task that one has started"
        ) from None


def set_current(connection: Connection) -> None:
    """Have current_connection() return *connection* in the running context and its copies."""
    _current.set(connection)
