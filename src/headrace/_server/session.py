"""Session: one connection as its server knows it: its phase, its streams, its task, its counts."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace._duplex.facts import Credentials, credentials_of
from headrace._duplex.trace import Trace, Tracing
from headrace._server.config import EndReason, RefuseReason
from headrace._server.connection import Connection, set_current
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.backend import linger

if TYPE_CHECKING:
    from headrace._server.stream_server import StreamServer


class Phase(enum.Enum):
    """How far a connection has come. What else may be true of it are facts beside that: whether its
    transport is lost, whether the server has ended it and why."""

    # There is a transport, or soon will be.
    ACCEPTED = "accepted"
    # The PROXY header, then TLS.
    NEGOTIATING = "negotiating"
    # It is closed without a handler: refused, failed, or a proxy's check.
    TURNED_AWAY = "turned away"
    # Its handler runs.
    HANDLED = "handled"
    # Its handler is over, and what that has written leaves.
    FINISHING = "finishing"
    # The transport is gone, and so is the task.
    OVER = "over"


# What may follow on what; docs/internals/server.md draws it.
MOVES = {
    Phase.ACCEPTED: {Phase.NEGOTIATING, Phase.TURNED_AWAY, Phase.HANDLED, Phase.OVER},
    Phase.NEGOTIATING: {Phase.TURNED_AWAY, Phase.HANDLED},
    Phase.TURNED_AWAY: {Phase.OVER},
    Phase.HANDLED: {Phase.FINISHING},
    Phase.FINISHING: {Phase.OVER},
    Phase.OVER: set[Phase](),
}


class Figures(NamedTuple):
    """What is known of a connection's bytes, as its handler sees them."""

    received: int = 0
    # Of these, what was not read yet; and whether the handler waits for more.
    unread: int = 0
    waits: bool = False
    written: int = 0
    # Of these, what the system has not taken.
    unsent: int = 0


NOTHING = Figures()


class Session(Connection):
    """A Connection with all that its server keeps of it. It calls *on_lost* with itself when its
    transport is lost."""

    __slots__ = (
        "__weakref__",
        "_on_lost",
        "_peername",
        "_seen",
        "base",
        "below",
        "dropped",
        "ended",
        "handled_at",
        "key",
        "lost",
        "phase",
        "reader",
        "refused",
        "task",
        "tracing",
        "writer",
    )

    def __init__(
        self,
        server: StreamServer,
        number: int,
        peername: Any,
        on_lost: Callable[[Session], None],
    ) -> None:
        super().__init__(server, number)
        self._on_lost = on_lost
        # None where the transport says it, and says it to the end.
        self._peername = peername
        self.phase = Phase.ACCEPTED
        # Facts: the transport is gone; why it is to be turned away; why the server has ended it.
        self.lost = False
        self.refused: RefuseReason | None = None
        self.ended: EndReason | None = None
        self.reader: StreamReader | None = None
        self.writer: StreamWriter | None = None
        # Where it is traced.
        self.tracing: Tracing | None = None
        # The negotiation, then the handler; None between them and afterwards.
        self.task: asyncio.Task[Any] | None = None
        # When the handler began, in the loop's seconds.
        self.handled_at: float | None = None
        # Whom it counts for, where peers are limited.
        self.key: str | None = None
        # What came before the handler's part, in bytes.
        self.base = 0
        # What is under TLS where the loop's own does it: most of what is unsent waits there.
        self.below: asyncio.WriteTransport | None = None
        # Bytes written and not sent when the server cut it off, which throws them away.
        self.dropped = 0
        # The figures of the last time, for when the transport does not say them any more.
        self._seen = NOTHING

    def move(self, phase: Phase) -> None:
        """Be in *phase* from now on: the only way that it changes."""
        assert phase in MOVES[self.phase], f"{self.phase} cannot be followed by {phase}"
        self.phase = phase

    def turn_away(self, error: BaseException | None) -> None:
        """Be one that is closed without a handler, for *error*; None where that is as it should
        be."""
        self.move(Phase.TURNED_AWAY)
        if self.tracing is None:
            return
        if error is None:
            self.tracing.closed(None, 0, 0)
        else:
            self.tracing.failed(error)

    def phase_begins(self, phase: str) -> None:
        """A phase of the negotiation begins, as a Trace calls it."""
        if self.tracing is not None:
            self.tracing.enter(phase)

    # ---- who it is

    @property
    def peername(self) -> Any:
        """See Connection."""
        if self._peername is None and self.writer is not None:
            return self.writer.get_extra_info("peername")
        return self._peername

    def know_peername(self, peername: Any) -> None:
        """Be from *peername*, whatever the transport says."""
        self._peername = peername

    @property
    def credentials(self) -> Credentials | None:
        """See Connection."""
        return credentials_of(self._socket())

    # ---- what its protocol calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The connection is made."""

    def connection_lost(self, transport: asyncio.Transport) -> None:
        """The connection is lost."""
        self._on_lost(self)

    # ---- what the server calls

    def begin(self, reader: StreamReader, writer: StreamWriter, trace: Trace | None) -> None:
        """The streams are there. It is called in the context of the connection, which that of its
        tasks is copied from."""
        self.reader = reader
        self.writer = writer
        set_current(self)
        if trace is not None:
            self.tracing = Tracing(trace, "server")
            self.tracing.begins(self.peername, writer.get_extra_info("sockname"))

    def run(self, call: Callable[..., object], *arguments: object) -> None:
        """Call *call* where current_connection() is this one."""
        context = contextvars.Context()
        context.run(set_current, self)
        context.run(call, *arguments)

    def close(self, lingering: bool = False) -> None:
        """Close it after what was written; a *lingering* close waits for a peer that still
        sends."""
        assert self.writer is not None
        if lingering and not self.lost:
            linger(self.writer.transport)
        self.writer.close()

    def abort(self, error: BaseException) -> None:
        """End it at once. A read or a drain() raises *error*, so that nobody takes it for the
        peer's doing."""
        if self.reader is not None and self.reader.exception() is None:
            self.reader.set_exception(error)
        if self.writer is not None and not self.lost:
            self.dropped = self.figures().unsent
            self.writer.transport.abort()

    def cancel(self) -> None:
        """Cancel the negotiation or the handler; what that has written is still sent."""
        if self.task is not None:
            self.task.cancel()

    def error(self) -> BaseException | None:
        """Return what its reads raise, or what its transport was lost by; None for neither."""
        assert self.writer is not None
        protocol: Any = self.writer._protocol
        error: BaseException | None = protocol._h_failure()
        return error

    # ---- how much

    def figures(self) -> Figures:
        """Return the figures of now; nothing before the handler's part, which is a PROXY header or
        TLS."""
        if self.writer is None or self.handled_at is None:
            return NOTHING
        try:
            received, unread, waits, written, unsent = self.writer._h_figures()
        except AttributeError:  # asyncio's TLS transport, once it was closed twice
            seen = self._seen
            return Figures(received=seen.received, written=seen.written - seen.unsent)
        if self.below is not None:
            unsent = min(written, unsent + self.below.get_write_buffer_size())
        self._seen = Figures(
            received - self.base, unread, waits, written, max(unsent, self.dropped)
        )
        return self._seen

    def unacknowledged(self) -> int:
        """Return how many bytes the system has that the peer has not acknowledged (SIOCOUTQ,
        tcp(7))."""
        sock = self._socket()
        if sock is None:
            return 0
        try:
            import fcntl
            import termios
        except ModuleNotFoundError:  # Windows does not say
            return 0
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def _socket(self) -> Any:
        """Return the socket as long as it is open."""
        sock = None if self.writer is None else self.writer.get_extra_info("socket")
        return None if sock is None or sock.fileno() < 0 else sock
