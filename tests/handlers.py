"""Handlers for worker processes, which import them by name, and so as little as possible."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import headrace


async def who(reader: Any, writer: Any) -> None:
    """Answer each line with the number of this process, until the server drains."""
    server = headrace.current_connection().server
    while await reader.readline():
        writer.write(b"%d\n" % os.getpid())
        await writer.drain()
        if server.draining.is_set():
            return


async def loop(reader: Any, writer: Any) -> None:
    """Say which event loop this is."""
    writer.write(type(asyncio.get_running_loop()).__module__.encode())


async def fault(reader: Any, writer: Any) -> None:
    """Fail."""
    raise KeyError("a fault of mine")


class Unloadable:
    """A handler that can be sent, and not received: as one whose module has a fault by now."""

    def __reduce__(self) -> Any:
        return fail, ()

    async def __call__(self, reader: Any, writer: Any) -> None:
        """Do nothing."""


def fail() -> None:
    """Raise where it is called: in the new process."""
    if "HEADRACE_TEST_LOADS" in os.environ:
        return
    raise RuntimeError("this cannot be loaded")
