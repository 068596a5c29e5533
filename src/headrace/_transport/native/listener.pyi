"""What Python code may use of a Listener."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, final

RETRY_SECONDS: Final[float]

@final
class Listener:
    sock: socket.socket

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        receive_bytes: int,
        secure: tuple[ssl.SSLContext, float, float] | None,
    ) -> None: ...
    def listen(self, backlog: int) -> None: ...
    def close(self) -> None: ...
    async def connected(self) -> None: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...
    def accept_waiting(self) -> None: ...
    def adopt(self, sock: socket.socket, peername: Any) -> None: ...
