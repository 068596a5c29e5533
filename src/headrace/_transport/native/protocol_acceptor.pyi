"""What Python code may use of a ProtocolAcceptor."""

import asyncio
from contextvars import Context
from typing import Any, final

@final
class ProtocolAcceptor:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, arguments: tuple[Any, ...], context: Context | None
    ) -> None: ...
    def accept(self) -> None: ...
