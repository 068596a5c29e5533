"""Trace: what connections tell somebody who traces them: their phases and their end, no single
read.

The hooks are called where a connection is made, and once where it is lost, from what its protocol
tells whoever counts it. Reads and writes pass none of this.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from typing import Any, Literal

from headrace._duplex.facts import TLSInfo, tls_of
from headrace._transport.sender import counts_of

HOOKS = ("begins", "phase_begins", "connected", "failed", "closed")


class Traced:
    """One connection as a Trace knows it: each hook gets the same object."""

    # With what help() says of them.
    __slots__ = {
        "_clock": None,
        "_ended_at": None,
        "_phase_at": None,
        "began": "When it began, in seconds since the epoch (time.time()).",
        "bytes_received": "Bytes that have come, read or not; 0 before closed().",
        "bytes_written": "Bytes that were accepted, sent or not; 0 before closed().",
        "host": "The host, or the path of a Unix socket, that connect() was given; else None.",
        "peername": "The peer's address, as the socket module writes it; None before it is known. "
        "That of the client, where a proxy has told it.",
        "phase": "The phase that goes on, or in which it failed; else None.",
        "phases": "How long each phase took that is over, in seconds: a dict, in their order.",
        "port": "The port that connect() was given; else None.",
        "role": '"client" for connect(), "server" for serve().',
        "sockname": "The address of this side; None before it is known.",
        "span": "The user's own: None at first, and never touched.",
        "tls": "The TLSInfo of the handshake; None before connected(), and in plain text.",
    }

    def __init__(
        self, role: Literal["client", "server"], host: Any, port: int | str | None
    ) -> None:
        self.role: Literal["client", "server"] = role
        self.host: str | None = None if host is None else name_of(host)
        self.port: int | str | None = port
        self.peername: Any = None
        self.sockname: Any = None
        self.tls: TLSInfo | None = None
        self.phase: str | None = None
        self.phases: dict[str, float] = {}
        self.bytes_received: int = 0
        self.bytes_written: int = 0
        self.span: Any = None
        self.began: float = time.time()
        # Times on a clock that nobody sets.
        self._clock = self._phase_at = time.monotonic()
        self._ended_at: float | None = None

    def __repr__(self) -> str:
        where = self.host if self.peername is None else self.peername
        return f"<Traced {self.role} with {where!r} phase={self.phase!r}>"

    @property
    def seconds(self) -> float:
        """How long it has lasted, in seconds: until now, or until failed() or closed()."""
        now = time.monotonic() if self._ended_at is None else self._ended_at
        return now - self._clock

    def attributes(self) -> dict[str, str | int | bool]:
        """Return what is known of it by OpenTelemetry's names (network.peer.address, …), for a
        span."""
        found: dict[str, str | int | bool] = {}
        ends = [("network.peer", self.peername), ("network.local", self.sockname)]
        if self.role == "client":
            given = None if self.host is None else (self.host, self.port)
            ends.append(("server", self.peername if given is None else given))
        else:
            ends += [("client", self.peername), ("server", self.sockname)]
        for prefix, name in ends:
            add_end(found, prefix, name)
        names = [each for each in (self.peername, self.sockname) if each is not None]
        if names:
            internet = isinstance(names[0], tuple)
            found["network.transport"] = "tcp" if internet else "unix"
            if internet:
                found["network.type"] = "ipv4" if len(names[0]) == 2 else "ipv6"
        if self.tls is not None:
            found |= tls_attributes(self.tls)
        return found

    # ---- what Tracing calls

    def _enter(self, phase: str | None) -> None:
        now = time.monotonic()
        if self.phase is not None:
            self.phases[self.phase] = now - self._phase_at
        self.phase = phase
        self._phase_at = now

    def _end(self) -> None:
        phase = self.phase
        self._enter(phase)
        self._ended_at = self._phase_at


class Trace:
    """What connect() and serve() tell of their connections, given as ``trace=``. Subclass it and
    override what is of interest: these methods do nothing.

    Each connection calls begins(), then either failed(), or connected() and in the end closed(),
    once, however it ends. (One of a proxy that only looks whether the server is there is closed
    without connected(). Of one that is still open when its loop is closed nothing is told.) One
    Trace may be given to any number of connect() and serve(); with ``workers=`` each process has a
    copy of its own, by pickle.

    The methods are called in the loop's thread and have to be quick. What one raises goes to the
    loop's exception handler, and changes nothing. Those of connect(), but for closed(), run in the
    context of its task; those of serve(), but for closed(), in one of the connection's own, so that
    the handler sees the context variables that they set. In which closed() runs is not said: keep
    what it needs in ``traced.span``.

    Raises: TypeError where a subclass overrides one by a coroutine function: they are not awaited.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in HOOKS:
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name}() is called, not awaited: write 'def'")

    def begins(self, traced: Traced) -> None:
        """A connection begins: connect() is awaited, or the server has accepted.

        Args: *traced*, what is known of it, of which a client has no addresses yet.
        """

    def phase_begins(self, traced: Traced, phase: str) -> None:
        """The next phase begins. One that does not happen is not told of.

        Args: *traced*; *phase*, "resolving", "connecting" or "handshake"; on a server "proxy
        header" or "handshake".
        """

    def connected(self, traced: Traced) -> None:
        """The stream is there, TLS included; on a server the handler is about to start.

        Args: *traced*, which has its addresses now, and ``tls``.
        """

    def failed(self, traced: Traced, error: BaseException) -> None:
        """There will be no stream.

        Args: *traced*, whose ``phase`` is where that happened; *error*, what connect() raises,
        asyncio.CancelledError among it; or why the server turns the connection away.
        """

    def closed(self, traced: Traced, error: BaseException | None) -> None:
        """The connection is gone.

        Args: *traced*, with its counts of bytes; *error*, what broke it: the peer's reset, why the
        server has ended it, ConnectionAbortedError after an abort() on this side. None where it was
        closed.
        """


class Tracing:
    """One connection as *trace* is told of it: calls each hook when it is due, and none twice."""

    def __init__(
        self,
        trace: Trace,
        role: Literal["client", "server"],
        host: Any = None,
        port: int | str | None = None,
    ) -> None:
        self._trace = trace
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self.is_connected = False
        self.traced = Traced(role, host, port)

    def begins(self, peername: Any = None, sockname: Any = None) -> None:
        """It begins, with the addresses that are known."""
        self.traced.peername = peername
        self.traced.sockname = sockname
        self._tell("begins")

    def enter(self, phase: str) -> None:
        """*phase* begins."""
        self.traced._enter(phase)
        self._tell("phase_begins", phase)

    def connected(self, writer: Any, peername: Any) -> None:
        """There are streams; *writer* is one of them."""
        traced = self.traced
        traced._enter(None)
        traced.peername = peername
        traced.sockname = writer.get_extra_info("sockname")
        traced.tls = tls_of(writer)
        self.is_connected = True
        self._tell("connected")

    def failed(self, error: BaseException) -> None:
        """There will be no streams."""
        if self._ends():
            self._tell("failed", error)

    def closed(self, error: BaseException | None, received: int, written: int) -> None:
        """The connection is gone."""
        if self._ends():
            self.traced.bytes_received = received
            self.traced.bytes_written = written
            self._tell("closed", error)

    def watch(self, writer: Any) -> None:
        """Call closed() when the connection of *writer*, which connect() has made, is lost; that
        may be already."""
        watch = Watch(self, writer._protocol, writer._h_counting())
        if writer._protocol._connection_lost:
            watch.connection_lost(None)
        else:
            writer._protocol._h_server = watch

    def _ends(self) -> bool:
        """Be over; return whether it was not before."""
        was_over, self._is_over = self._is_over, True
        if not was_over:
            self.traced._end()
        return not was_over

    def _tell(self, hook: str, *arguments: Any) -> None:
        try:
            getattr(self._trace, hook)(self.traced, *arguments)
        except (Exception, asyncio.CancelledError) as error:
            # A cancellation, too: it is that of something that the hook has looked at.
            self._loop.call_exception_handler(
                {"message": f"{type(self._trace).__name__}.{hook}() failed", "exception": error}
            )


class Watch:
    """What the protocol of a client's connection tells, as it tells a server.

    It knows who counts, and not the writer: one that is dropped has to be noticed.
    """

    def __init__(self, tracing: Tracing, protocol: Any, sender: Any) -> None:
        self._tracing = tracing
        self._protocol = protocol
        self._sender: Any = sender

    def connection_made(self, transport: Any) -> None:
        """A handshake on an open connection is over."""

    def connection_lost(self, transport: Any) -> None:
        """The connection is lost."""
        protocol, self._protocol = self._protocol, None
        sender, self._sender = self._sender, None
        if protocol is not None:
            self._tracing.closed(protocol._h_failure(), *counts_of(sender))

    def handshake_began(self, transport: Any) -> None:
        """A handshake begins."""

    def handshake_failed(self, transport: Any, error: BaseException | None) -> None:
        """A handshake has failed: the connection is lost soon."""


def checked_trace(trace: Any) -> Trace | None:
    """Return *trace*, None for none. Raises: TypeError where it is something else."""
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace must be an object of a subclass of headrace.Trace, not {trace!r}")
    return trace


def name_of(name: Any) -> str:
    """Return *name*, of a host or a Unix socket, as text; "@" begins an abstract one, as in
    ss(8)."""
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text


def add_end(found: dict[str, str | int | bool], prefix: str, name: Any) -> None:
    """Put the address *name* under *prefix* into *found*, where it says something."""
    if isinstance(name, tuple):
        host, port = name[:2]
        found[f"{prefix}.address"] = str(host)
        if isinstance(port, int) or str(port).isdecimal():
            found[f"{prefix}.port"] = int(port)
    elif name:
        found[f"{prefix}.address"] = name_of(name)


def tls_attributes(tls: TLSInfo) -> dict[str, str | int | bool]:
    """Return what *tls* says by OpenTelemetry's names."""
    named = {
        "tls.protocol.version": None if tls.version is None else tls.version.removeprefix("TLSv"),
        "tls.cipher": tls.cipher,
        "tls.next_protocol": tls.alpn,
    }
    found: dict[str, str | int | bool] = {"tls.established": True, "tls.protocol.name": "tls"}
    found |= {name: value for name, value in named.items() if value is not None}
    return found | {"tls.resumed": tls.resumed}
