"""The pure-Python twin of `future.pyx`: who waits for a future, by what asyncio's futures show of
it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace._core import cprims_py as cprims

# Before Python 3.14 futures do not know who awaits them.
add_to_awaited_by: Any = getattr(asyncio, "future_add_to_awaited_by", None)
discard_from_awaited_by: Any = getattr(asyncio, "future_discard_from_awaited_by", None)


def begin_wait(future: Any) -> None:
    """Mark *future*, which is pending, as awaited: a task asks that of what it is yielded."""
    future._asyncio_future_blocking = True


def is_awaited_by(future: Any, cls: Any) -> bool:
    """Tell whether the one callback of *future* is the wake-up of a task of *cls*: it enters the
    task at once and does nothing else, which is true of C tasks.

    There is no callback where somebody drives the operation by hand, and where the task was
    cancelled; there is more than one where others watch the future.
    """
    callback = the_callback(future)
    return callback is not None and isinstance(cprims.bound_to(callback), cls)


def wake_up(future: Any, argument: object) -> object:
    """Call the one callback of *future*, a task's wake-up, with *argument*, in its context; then
    take it back, and the task out of those that await the future.

    Returns: None; False where the context is entered already, and nothing was called; True where
    there is nothing to take back any more; the exception, where that is what the call ended with.
    """
    callback: Any = the_callback(future)
    try:
        if not cprims.enter(future._callbacks[0][1], callback, argument):
            return False
    except BaseException as error:
        return error
    return forget(future)


def forget(future: Any) -> bool | None:
    """Do the second part of wake_up(): return None, or True where there is nothing to take back."""
    callback: Any = the_callback(future)
    if callback is None or future.remove_done_callback(callback) != 1:
        return True
    if discard_from_awaited_by is not None:
        discard_from_awaited_by(future, callback.__self__)
    return None


def the_callback(future: Any) -> Callable[[object], object] | None:
    """Return the one callback of *future*; None where there is none, or more than one, or where it
    does not tell."""
    callbacks = getattr(future, "_callbacks", None)
    return callbacks[0][0] if callbacks and len(callbacks) == 1 else None
