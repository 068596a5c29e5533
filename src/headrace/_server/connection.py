"""Connection: one connection of a server: who it is, the task that handles it, and what was last
seen of it."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter

if TYPE_CHECKING:
    from headrace._server.monitor import Slow
    from headrace._server.proxy import ProxyHeader
    from headrace._server.server import StreamServer

_current: contextvars.ContextVar[Connection] = contextvars.ContextVar("headrace.connection")
# struct ucred (unix(7)).
_CREDENTIALS = struct.Struct("iII")


class Credentials(NamedTuple):
    """Who is at the other end of a Unix socket, as the system knows it from when he connected
    (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


class Connection:
    """One connection of a StreamServer. Handlers get theirs from current_connection()."""

    # With what help() says of those that are for everybody.
    __slots__ = {
        **dict.fromkeys(
            (
                "__weakref__",
                "_base",
                "_below",
                "_cancelled",
                "_dropped",
                "_ended",
                "_handled",
                "_key",
                "_lost",
                "_peername",
                "_reader",
                "_received",
                "_sent",
                "_since",
                "_slow",
                "_stalled",
                "_task",
                "_writer",
            )
        ),
        "id": "The number of the connection, an int: those of a server are counted from 1. Logs "
        "name it.",
        "proxy": "The ProxyHeader that the connection began with, or None.",
        "server": "The StreamServer that the connection is one of.",
    }

    def __init__(self, server: StreamServer, number: int) -> None:
        self.server = server
        self.id = number
        self.proxy: ProxyHeader | None = None
        # Where the transport does not say it, or not in the end.
        self._peername: Any = None
        self._reader: StreamReader | None = None
        self._writer: StreamWriter | None = None
        # The negotiation, then, once it is _handled, the handler.
        self._task: asyncio.Task[Any] | None = None
        self._handled = False
        self._lost = False
        # Whom it counts for, where peers are limited; and why the server has ended it, if it has.
        self._key: str | None = None
        self._ended: str | None = None
        # What the monitor has seen: bytes that came and went, since when nothing has moved, since
        # when something is written and nothing leaves; the state of a message that comes or goes
        # slowly; and what came before the handler's part.
        self._received = 0
        self._sent = 0
        self._since = 0.0
        self._stalled: float | None = None
        self._slow: Slow | None = None
        self._base = 0
        # What is under TLS where the loop's own does it: most of what is unsent waits there.
        self._below: asyncio.WriteTransport | None = None
        # What was written and not sent when the server cut it off, which throws it away; and
        # whether the handler was cancelled then.
        self._dropped = 0
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Connection {self.id} of {self.server.name} with {self.peername!r}>"

    @property
    def peername(self) -> Any:
        """The peer's address as the socket module writes it: the client's own, where a proxy has
        told it in a PROXY header."""
        if self._peername is None and self._writer is not None:
            return self._writer.get_extra_info("peername")
        return self._peername

    @property
    def credentials(self) -> Credentials | None:
        """Who connected over a Unix socket; None for any other connection, and once it is
        closed."""
        sock = None if self._writer is None else self._writer.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX or sock.fileno() < 0:
            return None
        return Credentials(
            *_CREDENTIALS.unpack(
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
        )

    # ---- what the protocol of the connection calls

    def _h_attach(self, transport: asyncio.Transport) -> None:
        """The connection is made."""

    def _h_detach(self, transport: asyncio.Transport) -> None:
        """The connection is lost."""
        self.server._lost(self)

    def _h_handled(self, task: asyncio.Task[object]) -> None:
        """The handler has come to its end."""
        self.server._handler_done(self, task)

    # ---- what the server and its monitor call

    def _begin(self, reader: StreamReader, writer: StreamWriter) -> None:
        """The streams are there. It is called in the context of the connection, which that of its
        tasks is copied from."""
        self._reader = reader
        self._writer = writer
        _current.set(self)

    def _figures(self) -> tuple[int, int, bool, int, int]:
        """Return bytes received, of these unread; whether the handler waits for more; bytes
        written, of these unsent."""
        if self._writer is None:
            return 0, 0, False, 0, 0
        if not self._handled:
            return 0, 0, False, 0, 0  # a PROXY header, or TLS
        try:
            received, unread, waits, written, unsent = self._writer._h_figures()
        except AttributeError:  # asyncio's TLS transport, once it was closed twice
            return self._received, 0, False, self._sent, 0
        if self._below is not None:
            unsent = min(written, unsent + self._below.get_write_buffer_size())
        return received - self._base, unread, waits, written, max(unsent, self._dropped)

    def _queued(self) -> int:
        """Return how many bytes the system has that the peer has not acknowledged (SIOCOUTQ,
        tcp(7))."""
        sock = None if self._writer is None else self._writer.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return 0
        try:
            import fcntl
            import termios
        except ModuleNotFoundError:  # Windows does not say
            return 0
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def _run(self, call: Callable[..., object], *arguments: object) -> None:
        """Call *call* where current_connection() is this one."""
        context = contextvars.Context()
        context.run(_current.set, self)
        context.run(call, *arguments)

    def _abort(self, error: BaseException) -> None:
        """End the connection at once; whoever reads or drains is told by *error* that it was not
        the peer who did."""
        if self._reader is not None and self._reader.exception() is None:
            self._reader.set_exception(error)
        if self._writer is not None and not self._lost:
            self._dropped = self._figures()[4]
            self._writer.transport.abort()


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
