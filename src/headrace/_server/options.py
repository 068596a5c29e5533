"""Options: what serve() was given, checked."""

from __future__ import annotations

import contextlib
import inspect
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from headrace._duplex.stream import Stream
from headrace._duplex.trace import Trace
from headrace._server.certificates import Certificates
from headrace._server.config import Limits
from headrace._server.connection import Connection
from headrace._server.networks import Networks
from headrace._streams.reader import StreamReader
from headrace._streams.socketfile import Path
from headrace._streams.writer import StreamWriter
from headrace._transport.base import Way

PairHandler = Callable[[StreamReader, StreamWriter], Awaitable[object]]
StreamHandler = Callable[[Stream], Awaitable[object]]
Handler = PairHandler | StreamHandler
OnError = Callable[[Connection, Exception], object]


class ServeOptions(TypedDict, total=False):
    """The keyword arguments of serve(), for its overloads: api.py has their defaults."""

    path: Path | None
    mode: int | None
    owner: str | int | None
    group: str | int | None
    sockets: Sequence[socket.socket]
    limit: int | None
    ssl: ssl_module.SSLContext | Certificates | None
    ssl_shutdown_timeout: float | None
    max_fds: int
    proxies: Iterable[str]
    max_connections: int | None
    max_connections_per_peer: int | None
    accept_rate: float | None
    max_buffered_bytes: int | None
    refusal: bytes | None
    handshake_timeout: float | None
    first_byte_timeout: float | None
    idle_timeout: float | None
    stall_timeout: float | None
    minimum_rate: float | None
    keep_alive: float | None
    grace: float
    on_error: OnError | None
    backlog: int
    reuse_port: bool
    workers: int | None
    name: str | None
    trace: Trace | None
    way: Way | None


def takes_stream(handler: Callable[..., object]) -> bool:
    """Tell whether *handler* takes one argument, which is a Stream then; what can take two gets the
    reader and the writer.

    Raises: TypeError where it takes neither.
    """
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # of some that are written in C nobody knows
        return False
    for count in (2, 1):
        with contextlib.suppress(TypeError):
            signature.bind(*[None] * count)
            return count == 1
    raise TypeError(
        "handler must take a Stream, or a reader and a writer, and nothing else that has no "
        f"default: its signature is {signature}"
    )


@dataclass(frozen=True)
class Options:
    """What serve() was given, but for the handler and where to listen."""

    # None: where it listens.
    name: str | None
    limit: int
    limits: Limits
    ssl: ssl_module.SSLContext | Certificates | None
    shutdown_timeout: float | None
    proxies: Networks
    refusal: bytes | None
    grace: float
    on_error: OnError | None
    backlog: int
    max_fds: int
    trace: Trace | None
    way: Way | None

    @property
    def context(self) -> ssl_module.SSLContext | None:
        """The context of a new connection: of Certificates the newest."""
        return self.ssl.context if isinstance(self.ssl, Certificates) else self.ssl
