"""Backend: what differs between the ways to a socket, in one place. Nothing else asks which it is.

``native/backend.py`` has Native, ``portable.py`` has Portable, and ``backend.py`` chooses.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from headrace._transport.acceptor import Acceptor
from headrace._transport.receive import receive_bytes
from headrace._transport.tls_options import TLSOptions

Way = Literal["native", "portable"]

# The loop's own function for what is to be done, which takes a factory of protocols, then options.
ByLoop = Callable[..., Awaitable[Any]]


class Choice(NamedTuple):
    """How a connection is served: the *way* to the socket, the *form* of the protocol, and the
    *reason*, one sentence."""

    way: Way
    form: Literal["direct", "buffered", "data_received"]
    reason: str


class Backend(ABC):
    """How connections and servers of *loop* reach their sockets; their readers have the buffer
    limit *limit* (bytes)."""

    __slots__ = ("choice", "limit", "loop", "receive_bytes")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, choice: Choice) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.limit: int = limit
        self.choice: Choice = choice
        self.receive_bytes: int = receive_bytes(limit)

    @abstractmethod
    async def adopt(
        self, sock: socket.socket, protocol: Any, tls: TLSOptions | None, unix: bool
    ) -> Any:
        """Return a transport of the connected *sock*, after the handshake where there is *tls*;
        *unix* says which of a loop's functions the caller's stands for.

        Raises: OSError; with *tls* ssl.SSLError and ConnectionError. Cancellation: safe. After
        either the socket may be open still: see adopt_or_close().
        """

    @abstractmethod
    async def connect(
        self,
        connected: Callable[[], Awaitable[socket.socket]],
        by_loop: ByLoop | None,
        protocol: Any,
        tls: TLSOptions | None,
        unix: bool,
    ) -> Any:
        """Return a transport of a new connection: by *by_loop* where the loop connects, None where
        it cannot, else over the socket that connected() returns.

        Raises: what both do, and what adopt() does. Cancellation: safe; the socket is closed.
        """

    @abstractmethod
    async def listen(
        self,
        bound: Callable[[], Awaitable[list[socket.socket]]],
        by_loop: ByLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        tls: TLSOptions | None,
        backlog: int,
    ) -> Any:
        """Return a server which does not accept yet: by *by_loop* where the loop accepts, else one
        with the sockets that bound() returns.

        Args:
            factory: called for the protocol of each connection.
            backlog: how many connections the system keeps that are not yet accepted.

        Raises: what *bound* and *by_loop* do. Cancellation: safe; nothing is left bound by us.
        """

    @abstractmethod
    async def start_serving(self, server: Any, backlog: int) -> None:
        """Have *server*, which listen() returned, accept. Raises: OSError where the system refuses.
        Cancellation: safe."""

    @abstractmethod
    def acceptor(self, sock: socket.socket, factory: Callable[..., Any]) -> Acceptor:
        """Return what accepts from *sock*, a bound socket, and can be held.

        It calls factory() for the protocol of each connection, with the peer's address where it
        knows that.
        """

    @staticmethod
    @abstractmethod
    async def start_tls(
        loop: asyncio.AbstractEventLoop,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        tls: TLSOptions,
        early: bytes,
        server_side: bool,
    ) -> Any:
        """Return the TLS transport over *transport*, or that itself, after the handshake.

        Args:
            early: the first bytes that were received of it.

        Raises: what loop.start_tls() raises; *transport* is then closed or closing.
        Cancellation: *transport* is closed or closing.
        """

    @staticmethod
    @abstractmethod
    def linger(transport: Any) -> None:
        """Have close() of *transport* take nothing from a peer that still sends, where it can."""

    @staticmethod
    @abstractmethod
    def unsent_below(transport: Any) -> int:
        """Return how many bytes wait below *transport*, which it does not count: where that can be
        known."""

    async def adopt_or_close(
        self, sock: socket.socket, protocol: Any, tls: TLSOptions | None, unix: bool
    ) -> Any:
        """Return what adopt() does; *sock* is closed where that raises or is cancelled."""
        try:
            return await self.adopt(sock, protocol, tls, unix)
        except BaseException:
            # Where there is a transport it closes the socket in the loop's next turn, before us; a
            # second close does nothing.
            self.loop.call_soon(sock.close)
            raise
