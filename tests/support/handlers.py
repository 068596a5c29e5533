"""Handlers for worker processes, which import them by name, and so as little as possible."""

from __future__ import annotations

import asyncio
import os
import time
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


async def forks(reader: Any, writer: Any) -> None:
    """Leave a process behind that has all that this one has, for as long as the peer wants; say
    both numbers."""
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    writer.write(b"%d %d\n" % (os.getpid(), child))
    await reader.read()


async def long_fault(reader: Any, writer: Any) -> None:
    """Fail with what the peer has sent."""
    raise ValueError((await reader.readline()).decode() * 100)


async def blocks(reader: Any, writer: Any) -> None:
    """Keep the loop for itself, for ever."""
    await reader.readline()
    time.sleep(1000)


class LoadedOnce:
    """A handler that only the first process to ask can load."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def __call__(self, reader: Any, writer: Any) -> None:
        """Do nothing."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        if os.getpid() != int(os.environ["HEADRACE_TEST_SUPERVISOR"]):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
            time.sleep(0.3)
