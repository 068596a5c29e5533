"""Servers with workers, for tests: on which loops they run, and who answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import headrace

SOURCE = str(Path(headrace.__file__).parent.parent)


def address(server):
    """Return where *server* listens."""
    return server.sockets[0].getsockname()


async def ask(where):
    """Return the process that answers on a connection of its own."""
    reader, writer = await headrace.open_connection(*where)
    writer.write(b"?\n")
    answer = int(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return answer


async def everybody(where, processes):
    """Ask until each of *processes* has answered; return all who did."""
    seen = set()
    async with asyncio.timeout(30):
        while not set(processes) <= seen:
            seen.add(await ask(where))
    return seen
