"""What Python code may use of the native transport: all that asyncio.Transport has, and more."""

import asyncio
import socket

from headrace._transport.native.tls_engine import TLS

class SocketTransport(asyncio.Transport):
    def linger(self) -> None: ...
    async def start_tls(
        self,
        tls: TLS,
        early: bytes,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None: ...

def adopt(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    receive_bytes: int,
) -> SocketTransport: ...
async def adopt_secure(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    receive_bytes: int,
    tls: TLS,
    handshake_timeout: float,
    shutdown_timeout: float,
) -> SocketTransport: ...
