"""The event loop that --loop names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop called *name*, "asyncio" (None, the default) or "uvloop". Raises:
    ValueError without uvloop."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        raise ValueError("uvloop is not installed: pip install 'headrace[uvloop]'") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
