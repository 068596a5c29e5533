"""Options: what serve() was given, checked."""

from __future__ import annotations

import contextlib
import inspect
import ssl as ssl_module
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headrace._duplex.stream import Stream
from headrace._duplex.trace import Trace
from headrace._server.certificates import Certificates
from headrace._server.config import Limits
from headrace._server.connection import Connection
from headrace._server.networks import Networks
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.base import Way

PairHandler = Callable[[StreamReader, StreamWriter], Awaitable[object]]
StreamHandler = Callable[[Stream], Awaitable[object]]
Handler = PairHandler | StreamHandler
OnError = Callable[[Connection, Exception], object]


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
    trace: Trace | None
    way: Way | None

    @property
    def context(self) -> ssl_module.SSLContext | None:
        """The context of a new connection: of Certificates the newest."""
        return self.ssl.context if isinstance(self.ssl, Certificates) else self.ssl
