"""What a loop is, as far as its class tells: whose code it runs, and whether that was changed."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from headrace._transport.trial import watcher_of

# What of a loop makes its transports: whoever overrides one means to see every connection.
LOOP_CALLS = ("create_connection", "create_server", "create_unix_connection", "create_unix_server")


def is_libuv(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether *loop* is uvloop's, or of a class derived from it."""
    return any(_package(cls) == "uvloop" for cls in type(loop).__mro__)


def is_asyncio(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether *loop* connects and listens with asyncio's own code."""
    return isinstance(loop, asyncio.BaseEventLoop)


def replaced(loop: asyncio.AbstractEventLoop) -> str | None:
    """Return why *loop* may mean to see every connection, or None where it does not.

    It does where a method that the native way does without is overridden, on the object or in a
    class that is not from the package which made the loop, or is that of a loop in front of another
    one.
    """
    watcher = watcher_of(loop)
    attributes = loop.__dict__
    kind = type(watcher)
    theirs = _theirs(kind)
    for name in LOOP_CALLS:
        if (
            name in attributes
            or getattr(kind, name, None) is not getattr(theirs, name, None)
            or (
                watcher is not loop
                and getattr(getattr(loop, name, None), "__self__", watcher) is not watcher
            )
        ):
            return f"somebody has put a {name}() of his own into this loop"
    return None


def _theirs(kind: type) -> type:
    """Return the class that loops of *kind* had before some program derived another one from it."""
    try:
        return _made[kind]
    except KeyError:
        pass
    classes = [cls for cls in kind.__mro__ if cls is not asyncio.AbstractEventLoop]
    # Who first defined add_reader() has made the loop.
    maker = next((_package(cls) for cls in reversed(classes) if "add_reader" in cls.__dict__), "")
    theirs = _made[kind] = next(
        (cls for cls in classes if _package(cls) == maker), asyncio.AbstractEventLoop
    )
    return theirs


_made: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
