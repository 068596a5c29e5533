"""The pure-Python twin of `future.pyx`: who waits for a future, by what asyncio's futures show of
it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

# Before Python 3.14 futures do not know who awaits them.
add_to_awaited_by: Any = getattr(asyncio, "future_add_to_awaited_by", None)
discard_from_awaited_by: Any = getattr(asyncio, "future_discard_from_awaited_by", None)


def begin_wait(future: Any) -> None:
    """Mark *future*, which is pending, as awaited: a task asks that of what it is yielded."""
    future._asyncio_future_blocking = True


def task_callback(future: Any) -> Callable[[object], object] | None:
    """Return the one callback of *future*; None where there is none, or more than one, or where it
    does not tell."""
    callbacks = getattr(future, "_callbacks", None)
    return callbacks[0][0] if callbacks and len(callbacks) == 1 else None


def task_context(future: Any) -> Context:
    """Return the context of the one callback of *future*, which there is."""
    context: Context = future._callbacks[0][1]
    return context


def forget_task(future: Any) -> bool:
    """Take back the one callback of *future*, a task's wake-up, and the task out of those that
    await it; return whether there was one."""
    callback: Any = task_callback(future)
    if callback is None or future.remove_done_callback(callback) != 1:
        return False
    if discard_from_awaited_by is not None:
        discard_from_awaited_by(future, callback.__self__)
    return True
