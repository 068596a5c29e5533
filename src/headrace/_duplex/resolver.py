"""Looking up names in threads of our own, which nobody waits for.

asyncio does it in the loop's executor, and asyncio.run() waits for that at its end: for minutes
where a name server does not answer, whatever timeout the program had (gh-112169). Here a look-up
that is given up is forgotten, and its thread dies with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from headrace._streams.resolve import AddressInfo

# How many look-ups go on at a time; others wait. A thread costs some 30 KiB. Not measured.
MOST_THREADS = 32
# How long a thread without work stays, in seconds.
IDLE_SECONDS = 10.0


class Threads:
    """Daemon threads that look up names, as many as there is work for, up to MOST_THREADS."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        # What waits for a thread, in the order in which it came. What is given up is taken out:
        # where every thread hangs, that is all that there would be.
        self._waiting: OrderedDict[asyncio.Future[Any], Callable[[], Any]] = OrderedDict()
        self._count = self._idle = 0

    def submit(
        self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]
    ) -> asyncio.Future[Any]:
        """Return a future of *loop*, the running one, for what call() returns in a thread.

        Raises: RuntimeError where there is no thread, and the system gives none.
        """
        future = loop.create_future()
        future.add_done_callback(self._forget)
        with self._ready:
            self._waiting[future] = call
            # An idle thread takes one: those that were told of others before are idle still.
            if self._idle >= len(self._waiting):
                self._ready.notify()
                return future
            if self._count >= MOST_THREADS:
                return future
            self._count += 1
        try:
            threading.Thread(target=self._run, name="headrace-resolver", daemon=True).start()
        except BaseException:
            with self._ready:
                self._count -= 1
                if self._count > 0:
                    return future
                self._waiting.pop(future, None)
            raise
        return future

    def _forget(self, future: asyncio.Future[Any]) -> None:
        with self._ready:
            self._waiting.pop(future, None)

    def _take(self) -> tuple[asyncio.Future[Any], Callable[[], Any]] | None:
        """Return what has waited longest, or None where a thread is not needed any more."""
        with self._ready:
            self._idle += 1
            self._ready.wait_for(lambda: self._waiting, IDLE_SECONDS)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popitem(last=False)
            self._count -= 1
            return None

    def _run(self) -> None:
        while (work := self._take()) is not None:
            future, call = work
            if future.done() or future.get_loop().is_closed():
                continue  # given up just now
            end: Callable[[], None]
            try:
                end = partial(settle, future, call(), None)
            except Exception as error:
                end = partial(settle, future, None, error)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                future.get_loop().call_soon_threadsafe(end)
            del work, future, call, end


def settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    """End *future*, where somebody still waits for it."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


_threads = Threads()


def _begin_again() -> None:
    """Have threads of our own: a child of fork() has none of its parent's, and whoever held their
    lock will never release it."""
    global _threads
    _threads = Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)


async def look_up(
    host: str | None, port: int | str | None, *, family: int, type: int
) -> Sequence[AddressInfo]:
    """Return the addresses of *host* and *port*, as socket.getaddrinfo() does.

    Raises: socket.gaierror. Cancellation: safe; a look-up that has begun goes on, and nobody hears
    of it.
    """
    with contextlib.suppress(socket.gaierror):
        # An address is no question for anybody.
        return socket.getaddrinfo(host, port, family, type, flags=socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    return await _threads.submit(  # type: ignore[no-any-return]
        loop, lambda: socket.getaddrinfo(host, port, family, type)
    )
