"""What Python code may use of a ProtocolTransport."""

import asyncio
import socket
from contextvars import Context
from typing import Any

from headrace._transport.native.tls_engine import TLS
from headrace._transport.native.transport import SocketTransport

class ProtocolTransport(SocketTransport):
    async def upgrade(
        self,
        protocol: asyncio.BaseProtocol,
        tls: TLS,
        early: bytes,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None: ...

def attach(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: asyncio.AbstractServer | None,
    context: Context | None,
) -> ProtocolTransport: ...
def attach_secure(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: asyncio.AbstractServer | None,
    context: Context | None,
    tls: TLS,
    handshake_timeout: float,
    shutdown_timeout: float,
) -> ProtocolTransport: ...
