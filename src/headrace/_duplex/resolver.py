"""Looking up names in threads of our own, which nobody waits for.

asyncio does it in the loop's executor, and asyncio.run() waits for that at its end: for minutes
where a name server does not answer, whatever timeout the program had (gh-112169). Here a look-up
that is given up is forgotten, and its thread dies with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Sequence
from typing import Any

from headrace._streams.resolve import AddressInfo

# How many look-ups go on at a time; others wait. A thread costs some 30 KiB. Not measured.
MOST_THREADS = 32
# How long a thread without work stays, in seconds.
IDLE_SECONDS = 10.0


class Threads:
    """Daemon threads that look up names, as many as there is work for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count = self._idle = 0

    def submit(self, loop: asyncio.AbstractEventLoop, call: Any) -> asyncio.Future[Any]:
        """Return a future of what call() returns in a thread."""
        future = loop.create_future()
        with self._lock:
            self._work.put((loop, future, call))
            if self._idle > 0 or self._count >= MOST_THREADS:
                return future
            self._count += 1
        threading.Thread(target=self._run, name="headrace-resolver", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                loop, future, call = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    self._idle -= 1
                    if self._work.empty():
                        self._count -= 1
                        return
                continue
            with self._lock:
                self._idle -= 1
            if future.cancelled():
                continue
            try:
                result, error = call(), None
            except Exception as failure:
                result, error = None, failure
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, future, result, error)
            del loop, future, call, result, error


def settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    """End *future*, where somebody still waits for it."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


_threads = Threads()


async def look_up(
    host: str | None, port: int | str | None, *, family: int, type: int
) -> Sequence[AddressInfo]:
    """Return the addresses of *host* and *port*, as socket.getaddrinfo() does.

    Raises: socket.gaierror. Cancellation: safe; the look-up goes on, and nobody hears of it.
    """
    with contextlib.suppress(socket.gaierror):
        # An address is no question for anybody.
        return socket.getaddrinfo(host, port, family, type, flags=socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    return await _threads.submit(  # type: ignore[no-any-return]
        loop, lambda: socket.getaddrinfo(host, port, family, type)
    )
