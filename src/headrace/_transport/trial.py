"""Whether a loop can watch an epoll set, which is what the native way asks of it: found out by
trying.

A set of our own is hung on the loop with something in it, as a Reactor's is, and what is in it is
left there. A loop that tells of it twice goes on telling while something is left (it is
level-triggered): one that told of it once would leave connections waiting for ever. What was found
holds for the class whose add_reader() it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from typing import Any
from weakref import WeakKeyDictionary

# A loop that has not told twice after so many times so many seconds never will. A time begins when
# the one before is over, so that a loop which something has kept busy has looked at its descriptors
# as often all the same. (rloop does not look at them in every turn.)
TICKS = 5
TICK_SECONDS = 0.02

# What the native way needs of a loop besides.
NEEDED = ("remove_reader", "sock_connect")

# What says that there is no room for a trial now.
WANT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)

# By class, why it cannot, or None where it can.
_found: WeakKeyDictionary[type, str | None] = WeakKeyDictionary()

_KEY = "_headrace_trial"


def watcher_of(loop: Any) -> Any:
    """Return whose add_reader() *loop* has: its own, or that of a loop which it stands in front
    of."""
    return getattr(getattr(loop, "add_reader", None), "__self__", loop)


async def epoll_obstacle(loop: asyncio.AbstractEventLoop) -> str | None:
    """Return why *loop*, the running one, cannot watch an epoll set; None where it can.

    It is tried once for a class, in a few turns; whoever asks meanwhile waits for the same trial.
    Cancellation: safe; the trial ends when nobody waits for it any more.
    """
    kind = type(watcher_of(loop))
    try:
        return _found[kind]
    except KeyError:
        pass
    trial = loop.__dict__.get(_KEY)
    if trial is None:
        lacking = _lacking(loop)
        if lacking is not None:
            found = _found[kind] = f"this loop has no {lacking}()"
            return found
        try:
            trial = Trial(loop)
        except Exception as error:
            why = f"its add_reader() takes no epoll set ({_words(error)})"
            if not (isinstance(error, OSError) and error.errno in WANT):
                _found[kind] = why
            return why
    return await trial.wait()


def _lacking(loop: asyncio.AbstractEventLoop) -> str | None:
    for name in NEEDED:
        method = getattr(loop, name, None)
        if method is None or getattr(method, "__func__", None) is getattr(
            asyncio.AbstractEventLoop, name
        ):
            return name
    return None


class Trial:
    """One trial of *loop*, which begins at once. Raises: what add_reader() does; OSError."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told = 0
        self._ticks_left = TICKS
        self._waiters: set[asyncio.Future[str | None]] = set()
        self._is_over = False
        self._set = select.epoll()
        try:
            self._ready = os.eventfd(1, os.EFD_CLOEXEC)
            try:
                # As a connection is: what is left of it stands in the set's own list.
                self._set.register(self._ready, select.EPOLLIN | select.EPOLLET)
                loop.add_reader(self._set.fileno(), self._tell)
            except BaseException:
                os.close(self._ready)
                raise
        except BaseException:
            self._set.close()
            raise
        loop.__dict__[_KEY] = self
        self._timer = loop.call_later(TICK_SECONDS, self._tick)

    async def wait(self) -> str | None:
        """Return what has been found, as epoll_obstacle() does."""
        waiter: asyncio.Future[str | None] = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and not self._is_over:
                self._end()

    def _tell(self) -> None:
        """The loop says that there is something in the set."""
        self._told += 1
        if self._told == 2:
            self._conclude(None)

    def _tick(self) -> None:
        self._ticks_left -= 1
        if self._ticks_left:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        elif self._told:
            self._conclude(
                "its add_reader() tells once of an epoll set, and not again of what was left"
            )
        else:
            self._conclude("its add_reader() tells nothing of an epoll set")

    def _conclude(self, found: str | None) -> None:
        found = self._end() or found
        _found[type(watcher_of(self._loop))] = found
        for waiter in self._waiters:
            if not waiter.done():  # else its task is being cancelled
                waiter.set_result(found)

    def _end(self) -> str | None:
        """Leave the loop as it was; return what is wrong where it does not let us."""
        self._is_over = True
        del self._loop.__dict__[_KEY]
        self._timer.cancel()
        os.close(self._ready)
        try:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._set.fileno())
        except Exception as error:
            # What the loop still knows must not become the number of somebody else's descriptor:
            # the set, which is empty and so never ready, stays as long as the loop's callback.
            return f"its remove_reader() fails ({_words(error)})"
        self._set.close()
        return None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
