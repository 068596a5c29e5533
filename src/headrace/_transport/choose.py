"""Which way a connection takes, and why."""

from __future__ import annotations

import asyncio


def buffered(loop: asyncio.AbstractEventLoop, limit: int) -> bool:
    return isinstance(loop, asyncio.SelectorEventLoop) or limit < 2**16
