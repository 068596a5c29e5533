"""Native: the way over sockets of ours, which one epoll set a loop watches: Linux, compiled.

It can be imported only where the modules of this folder are compiled.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import trsock
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from headrace._transport.acceptor import Acceptor
from headrace._transport.base import Backend, ByLoop
from headrace._transport.native.listener import Listener
from headrace._transport.native.tls_engine import TLS
from headrace._transport.native.transport import SocketTransport, adopt, adopt_secure
from headrace._transport.tls_options import TLSOptions


class Native(Backend):
    """Makes transports and servers of ours."""

    __slots__ = ()

    async def adopt(
        self, sock: socket.socket, protocol: Any, tls: TLSOptions | None, unix: bool
    ) -> Any:
        """See Backend. The socket is still the caller's where it cannot be watched (OSError)."""
        if tls is None:
            return adopt(self.loop, sock, protocol, self.receive_bytes)
        session = _session(tls, server_side=False)
        return await adopt_secure(
            self.loop, sock, protocol, self.receive_bytes, session, *tls.timeouts
        )

    async def connect(
        self,
        connected: Callable[[], Awaitable[socket.socket]],
        by_loop: ByLoop | None,
        protocol: Any,
        tls: TLSOptions | None,
        unix: bool,
    ) -> Any:
        """See Backend."""
        return await self.adopt_or_close(await connected(), protocol, tls, unix)

    async def listen(
        self,
        bound: Callable[[], Awaitable[list[socket.socket]]],
        by_loop: ByLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        tls: TLSOptions | None,
        backlog: int,
    ) -> Any:
        """See Backend."""
        secure = None if tls is None else (tls.context, *tls.timeouts)
        return NativeServer(
            Listener(self.loop, sock, factory, self.receive_bytes, secure) for sock in await bound()
        )

    async def start_serving(self, server: Any, backlog: int) -> None:
        """See Backend."""
        server.listen(backlog)

    def acceptor(self, sock: socket.socket, factory: Callable[..., Any]) -> Acceptor:
        """See Backend."""
        listener: Acceptor = Listener(self.loop, sock, factory, self.receive_bytes, None)
        return listener

    @staticmethod
    async def start_tls(
        loop: asyncio.AbstractEventLoop,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        tls: TLSOptions,
        early: bytes,
        server_side: bool,
    ) -> Any:
        """See Backend: *transport* goes on in TLS by itself."""
        await transport.start_tls(_session(tls, server_side), early, *tls.timeouts)
        return transport

    @staticmethod
    def linger(transport: Any) -> None:
        """See Backend."""
        transport.linger()

    @staticmethod
    def unsent_below(transport: Any) -> int:
        """See Backend: a transport of ours counts all."""
        return 0


class NativeServer:
    """What a Server drives in the place of a loop's own server: *listeners*, which belong to it."""

    def __init__(self, listeners: Iterable[Any]) -> None:
        self._listeners = list(listeners)

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:
        """The sockets, as asyncio shows them."""
        return tuple(trsock.TransportSocket(each.sock) for each in self._listeners)

    def listen(self, backlog: int) -> None:
        """Accept from now on. Raises: OSError where the system refuses to listen."""
        for each in self._listeners:
            each.listen(backlog)

    def close(self) -> None:
        """Stop accepting and close the sockets."""
        for each in self._listeners:
            each.close()


def is_ours(transport: asyncio.BaseTransport) -> bool:
    """Tell whether *transport* is one of ours, in plain text."""
    return type(transport) is SocketTransport and transport.get_extra_info("sslcontext") is None


def _session(tls: TLSOptions, server_side: bool) -> Any:
    """Return a new session of TLS, of one side of a connection."""
    return TLS(
        tls.context,
        server_side,
        None if server_side else tls.server_hostname or None,
        tls.session,
    )
