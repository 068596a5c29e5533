"""Signals: what serve_forever() does for the process: stop at SIGTERM and SIGINT, renew at SIGHUP,
and tell the service manager.

SIGHUP renews from a server's start on, unless the program has taken it: by default it would end the
program, and the workers with it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

from headrace._server.log import Log
from headrace._server.process import systemd
from headrace._server.statistics import Statistics

STOPPING = (signal.SIGTERM, signal.SIGINT)

# Where the loops' own handlers of signals come from.
_LOOPS = ("asyncio.unix_events", "uvloop.loop")

# Those of servers that have started, in the main thread, and of them those that are installed:
# there is one handler of a signal.
_started: WeakSet[Signals] = WeakSet()
_installed: list[Signals] = []


class Served(Protocol):
    """What signals have to know of a server."""

    @property
    def draining(self) -> asyncio.Event:
        """Set when it begins to shut down."""
        ...

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return its loop."""
        ...

    def statistics(self) -> Statistics:
        """Return its figures."""
        ...

    async def renew(self) -> None:
        """What SIGHUP does."""


class Signals:
    """The signals of one server, and its service manager: *begin_shutdown* and *hurry* are what the
    first and the further signals to stop do."""

    def __init__(
        self,
        server: Served,
        begin_shutdown: Callable[[], object],
        hurry: Callable[[], None],
        log: Log,
    ) -> None:
        self._server = server
        self._begin_shutdown = begin_shutdown
        self._hurry = hurry
        self._log = log
        self._previous: dict[signal.Signals, Any] = {}
        self._ping: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._again = False
        self._said_stopping = False
        self._accepts = False

    def start(self) -> None:
        """Take SIGHUP, where this is the main thread and the program has not taken it; it has an
        effect once the server accepts()."""
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
            _started.add(self)
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                signal.signal(signal.SIGHUP, _on_hangup)

    def accepts(self) -> None:
        """The server has started."""
        self._accepts = True
        if self._again:
            self._again = False
            self._renew()

    def stop(self) -> None:
        """Give SIGHUP back: the server is shut down."""
        _started.discard(self)
        if self._renewal is not None:
            self._renewal.cancel()
        _give_hangups_back()

    def install(self) -> None:
        """Take the signals, where this is the main thread; say that the server is ready, and begin
        to ping a watchdog that wants it."""
        self._said_stopping = False
        if threading.current_thread() is threading.main_thread():
            _installed.append(self)
            if len(_installed) == 1:
                for number in (*STOPPING, signal.SIGHUP):
                    self._take(number)
        systemd.notify("READY=1")
        self._watchdog()

    def remove(self) -> None:
        """Give the signals back."""
        if self._ping is not None:
            self._ping.cancel()
        if self in _installed:
            _installed.remove(self)
        if self._previous and _installed:
            _installed[0]._previous = self._previous
            return
        for number, previous in self._previous.items():
            self._server.get_loop().remove_signal_handler(number)
            # None was not installed from Python, and what a loop puts there does nothing without
            # what it has to call.
            if previous is not None and getattr(previous, "__module__", None) not in _LOOPS:
                signal.signal(number, previous)
        _give_hangups_back()

    def _take(self, number: signal.Signals) -> None:
        # Before: the loop puts a handler of its own in its place.
        previous = signal.getsignal(number)
        self._server.get_loop().add_signal_handler(number, _on_signal, number)
        self._previous[number] = previous

    def _stop(self, number: signal.Signals) -> None:
        server = self._server
        if not server.draining.is_set():
            there = server.statistics().open
            self._log.say(logging.INFO, "%s: finishing %d connections", number.name, there)
            self.say_stopping()
            self._begin_shutdown()
        else:
            self._log.say(logging.INFO, "%s: hurrying", number.name)
            self._hurry()

    def _renew(self) -> None:
        if self._renewal is not None or not self._accepts:
            # What it has read already may have changed since.
            self._again = True
        elif not self._server.draining.is_set():
            if self in _installed:
                systemd.reloading()
            self._renewal = self._server.get_loop().create_task(self._server.renew())
            self._renewal.add_done_callback(self._renewed)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewal = None
        again, self._again = self._again, False
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.say(
                logging.ERROR, "what was not renewed yet stays as it was: %s", error, error=error
            )
        if again and self in _started and not self._server.draining.is_set():
            self._renew()
        elif self in _installed and not self._said_stopping:
            systemd.notify("READY=1")

    def say_stopping(self) -> None:
        """Tell the service manager that the server stops."""
        if not self._said_stopping:
            self._said_stopping = True
            systemd.notify("STOPPING=1")

    def _watchdog(self) -> None:
        seconds = systemd.watchdog_interval()
        if seconds is not None:
            systemd.notify("WATCHDOG=1")
            self._ping = self._server.get_loop().call_later(seconds, self._watchdog)


def _give_hangups_back() -> None:
    """Let SIGHUP do what it did, where no server is there any more and it is still ours."""
    if (
        _started
        or threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "SIGHUP")
    ):
        return
    if signal.getsignal(signal.SIGHUP) is _on_hangup:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _on_signal(number: signal.Signals) -> None:
    """Tell all servers."""
    if number not in STOPPING:
        _on_hangup(number)
        return
    for each in list(_installed):
        each._stop(number)


def _on_hangup(number: int, frame: object = None) -> None:
    """Have all servers renewed; it may be called between any two lines of the main thread."""
    there = [each for each in _started if not each._server.get_loop().is_closed()]
    for each in there:
        each._server.get_loop().call_soon_threadsafe(each._renew)
    if not there:
        # They were forgotten, and not shut down.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
