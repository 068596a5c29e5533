"""Portable: the way over the transports that the loop itself makes, in one of two forms.

buffered       the transport receives into one buffer that all connections of the loop share
               (asyncio.BufferedProtocol)
data_received  the transport hands over a new bytes object for every receive (asyncio.Protocol)
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import base_events
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Awaitable, Callable
from typing import Any

from headrace._transport.acceptor import Acceptor, LoopAcceptor
from headrace._transport.base import Backend, ByLoop, Choice
from headrace._transport.loops import is_libuv
from headrace._transport.receive import is_small
from headrace._transport.start_tls import start_tls_of_loop
from headrace._transport.tls_options import TLSOptions

SELECTOR = Choice(
    "portable",
    "buffered",
    "asyncio's selector loop allocates 256 KiB for every receive unless the protocol brings a "
    "buffer",
)
LIBUV = Choice(
    "portable",
    "data_received",
    "uvloop receives into a buffer of its own, and handing over bytes is its fastest path",
)
LIBUV_SMALL = Choice(
    "portable",
    "buffered",
    "the limit is below 64 KiB: uvloop would receive 256,000 bytes at a time, and a buffer of ours "
    "keeps a receive small",
)
UNKNOWN = Choice(
    "portable",
    "data_received",
    "this loop may fill a buffer while others run, as a proactor does, so that connections cannot "
    "share one",
)


def form_for(loop: asyncio.AbstractEventLoop, limit: int) -> Choice:
    """Return the form that suits *loop* best, for readers with the buffer limit *limit*."""
    if isinstance(loop, BaseSelectorEventLoop):
        return SELECTOR
    if is_libuv(loop):
        return LIBUV_SMALL if is_small(limit) else LIBUV
    return UNKNOWN


def given(**options: Any) -> dict[str, Any]:
    """Return the *options* that are not None: a loop is asked only for what the caller asked
    for."""
    return {name: value for name, value in options.items() if value is not None}


class Portable(Backend):
    """Leaves the sockets to the loop."""

    __slots__ = ()

    async def adopt(
        self, sock: socket.socket, protocol: Any, tls: TLSOptions | None, unix: bool
    ) -> Any:
        """See Backend. Loops judge by themselves what becomes of a socket that they do not take."""
        create: Any = self.loop.create_unix_connection if unix else self.loop.create_connection
        transport, _ = await create(lambda: protocol, sock=sock, **_options(tls))
        return transport

    async def connect(
        self,
        connected: Callable[[], Awaitable[socket.socket]],
        by_loop: ByLoop | None,
        protocol: Any,
        tls: TLSOptions | None,
        unix: bool,
    ) -> Any:
        """See Backend."""
        if by_loop is None:
            return await self.adopt_or_close(await connected(), protocol, tls, unix)
        transport, _ = await by_loop(lambda: protocol, **_options(tls))
        return transport

    async def listen(
        self,
        bound: Callable[[], Awaitable[list[socket.socket]]],
        by_loop: ByLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        tls: TLSOptions | None,
        backlog: int,
    ) -> Any:
        """See Backend."""
        return await by_loop(factory, backlog=backlog, start_serving=False, **_options(tls))

    async def start_serving(self, server: Any, backlog: int) -> None:
        """See Backend."""
        if not isinstance(server, base_events.Server):
            # Raise what listen() raises: uvloop closes the socket and says nothing.
            for each in server.sockets:
                with socket.socket(fileno=os.dup(each.fileno())) as sock:
                    sock.listen(backlog)
        await server.start_serving()

    def acceptor(self, sock: socket.socket, factory: Callable[..., Any]) -> Acceptor:
        """See Backend."""
        return LoopAcceptor(self.loop, sock, factory)

    start_tls = staticmethod(start_tls_of_loop)

    @staticmethod
    def linger(transport: Any) -> None:
        """See Backend: a transport of a loop's cannot."""

    @staticmethod
    def unsent_below(transport: Any) -> int:
        """See Backend: below asyncio's TLS there is another transport, which has what is encrypted.
        (uvloop shows none.)"""
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        return 0 if below is None else int(below.get_write_buffer_size())


def _options(tls: TLSOptions | None) -> dict[str, Any]:
    """Return *tls* as the functions of a loop are given it."""
    if tls is None:
        return {}
    return given(
        ssl=tls.context,
        server_hostname=tls.server_hostname,
        ssl_handshake_timeout=tls.handshake_timeout,
        ssl_shutdown_timeout=tls.shutdown_timeout,
    )
