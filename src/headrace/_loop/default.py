"""make_default(): which loop asyncio makes where a program does not say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def make_default(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Have asyncio make its loops by *factory* wherever a program does not say how: asyncio.run(),
    asyncio.Runner, asyncio.new_event_loop().

    They ask the policy, which is there on every Python, though from 3.14 on a program that sets one
    is warned. A policy that the program sets itself later is obeyed.
    """
    events: Any = asyncio.events
    ask = getattr(events, "_get_event_loop_policy", events.get_event_loop_policy)
    ask()._loop_factory = factory
