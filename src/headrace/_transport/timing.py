"""Timing: how long the waits of one stream may take, with one timer that is hardly ever set.

A wait notes until when it may last. The timer is set only where it would not go off before that
anyway: a wait that ends in time does not touch it. When it goes off it asks who waits, and fails
what is over; it is then set for what is over next, or left alone. Who is failed is woken, with the
error in its Bounds, and raises it in the task's own step if there is still nothing for it. So
nothing is lost, and no task is cancelled.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any
from weakref import ref

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._transport import scheduler as schedulers
from headrace._transport.loops import is_libuv
from headrace._transport.operation import Operation, Waitable
from headrace.errors import DeadlineExceeded, ReadTimeout, WriteTimeout

NEVER = math.inf
# How often to look whether a peer that takes nothing takes something again, as a part of the time
# that it may rest: nothing tells.
LOOKS_IN_TIMEOUT = 8.0


class Bounds:
    """What one operation may take: time, of its own and by its deadlines, and bytes. bounds_of()
    makes it."""


class Deadline:
    """The time of a ``with stream.deadline(…)`` block; made by that. It belongs to the task that
    enters the block."""

    def __init__(self, timing: Any, seconds: float | None, at: float | None) -> None:
        if (seconds is None) == (at is None):
            raise TypeError("deadline() needs either seconds or at=, a time of the loop")
        self._timing = timing
        self._seconds = NEVER if seconds is None else checked_seconds(seconds, "deadline()")
        self._when = NEVER if at is None else checked_time(at)
        self._expired = False
        self._task = None
        self._outer = None

    def __enter__(self) -> Deadline:
        if self._task is not None:
            raise RuntimeError("a deadline is entered once")
        self._task = self._timing.current_task()
        if self._task is None:
            raise RuntimeError("a deadline is for a task: there is none running")
        now = self._timing.now()
        if self._seconds != NEVER:
            self._when = now + self._seconds
        else:
            self._seconds = self._when - now
        self._outer = self._timing.innermost(self._task)
        self._timing.deadlines.append(self)
        self._timing.arm(self._when)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timing.deadlines.remove(self)
        # What was started in the block and goes on behind it is not bounded any more.
        self._when = NEVER

    def __repr__(self) -> str:
        return f"<Deadline at {self._when:.3f}{' expired' if self._expired else ''}>"

    @property
    def when(self) -> float:
        """When it is over, in the loop's seconds; infinity once the block was left."""
        return self._when

    @property
    def remaining(self) -> float:
        """How many seconds are left, 0 where none are."""
        return max(0.0, self._when - self._timing.now())

    @property
    def expired(self) -> bool:
        """Whether the time was over within the block."""
        return self._expired

    def reschedule(self, at: float) -> None:
        """Let it be over at *at*, a time of the loop, instead: an operation that waits is told.

        Raises: TypeError where that is no number, ValueError where it is not a number (nan).
        """
        self._when = checked_time(at)
        self._expired = self._when <= self._timing.now()
        self._timing.arm(self._when)
        for moved in list(self._timing.watchers):
            moved()

    def nearest(self) -> tuple[float, float]:
        """Return when it, or one around it, is over, and the seconds of that."""
        first = nearest_of(self)
        return first._when, first._seconds


class Timing:
    """The bounds of one stream's waits. *reader* and *writer* know who waits, *stream* is what its
    errors name."""

    def __init__(self, reader: Waitable, writer: Waitable, stream: Any) -> None:
        # Weakly: each of them has this.
        self._reader = ref(reader)
        self._writer = ref(writer)
        self._stream = ref(stream)
        self._loop = reader._loop
        self.scheduler = schedulers.scheduler_of(self._loop)
        self.read_seconds = NEVER
        self.write_seconds = NEVER
        self.deadlines: list = []
        self.watchers: list = []
        self._time = None if tells_monotonic(self._loop) else self._loop.time
        self._handle = None
        self._when = NEVER

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return cprims.seconds() if self._time is None else self._time()

    def current_task(self) -> object:
        """Return the task that runs, or None."""
        return self.scheduler.current_task()

    def innermost(self, task: object) -> Deadline | None:
        """Return the deadline that *task* entered last and did not leave, or None."""
        for deadline in reversed(self.deadlines):
            if deadline._task is task:
                return deadline
        return None

    def current_deadline(self) -> Deadline | None:
        """Return the deadline that the running task entered last and did not leave, or None."""
        return self.innermost(self.current_task()) if self.deadlines else None

    # ---- an operation

    def bound(self, operation: Operation, seconds: float) -> None:
        """Let *operation*, which was just made, wait for *seconds* in all, and as long as the
        deadlines of the running task allow."""
        bounds = bounds_of(operation)
        bounds.seconds = seconds
        if self.deadlines:
            bounds.deadline = self.innermost(self.current_task())

    def begin(self, operation: Operation, writing: bool) -> None:
        """*operation* begins to wait, or goes on. Raises: its StreamTimeout, where its time is
        over; the operation has ended then."""
        rest = self.write_seconds if writing else self.read_seconds
        bounds = operation.bounds
        if bounds is None:
            if rest == NEVER:
                return
            bounds = bounds_of(operation)
        if bounds.error is not None:
            error = bounds.error
            operation.end()
            operation.argument = None  # the traceback may live for long
            raise error
        now = self.now()
        if bounds.since < 0.0:
            bounds.since = now
            bounds.due = now + bounds.seconds
            if writing:
                bounds.mark = moved_by(self._writer())
        self.arm(self._next(bounds, rest, writing, now))

    def progressed(self, operation: Operation) -> None:
        """Something came for *operation*, a read that waits, though not all."""
        if operation.bounds is not None:
            bounds_of(operation).since = self.now()

    def _next(self, bounds: Bounds, rest: float, writing: bool, now: float) -> float:
        """Return when *bounds* are to be looked at again."""
        when = bounds.since + rest
        if writing and rest != NEVER:
            when = min(when, now + rest / LOOKS_IN_TIMEOUT)
        if bounds.due < when:
            when = bounds.due
        if bounds.deadline is not None:
            when = min(when, nearest_of(bounds.deadline)._when)
        return when

    def _failure(
        self, operation: Operation, bounds: Bounds, rest: float, writing: bool, now: float
    ) -> object:
        """Return what *operation* has to raise now, or None."""
        name = operation.kind.name
        if bounds.deadline is not None:
            deadline = nearest_of(bounds.deadline)
            if deadline._when <= now:
                return DeadlineExceeded(name, deadline._seconds, self._stream())
        kind = WriteTimeout if writing else ReadTimeout
        if bounds.due <= now:
            return kind(name, bounds.seconds, self._stream())
        if bounds.since + rest <= now:
            return kind(name, rest, self._stream())
        return None

    # ---- the timer

    def arm(self, when: float) -> None:
        """Have the timer go off at *when* at the latest."""
        if when >= self._when:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._when = when
        self._handle = self._loop.call_at(when, self._fire, context=self.scheduler.context)

    def look(self) -> None:
        """Look at all that wait in the loop's next turn: what bounds them has changed."""
        if waits(self._reader()) or waits(self._writer()):
            self.arm(self.now())

    def _fire(self) -> None:
        """Fail what has waited for too long, and set the timer for what is next."""
        self._handle = None
        self._when = NEVER
        # A clock that is coarse must not have us look again and again.
        now = self.now() + 1e-6
        when = NEVER
        for deadline in self.deadlines:
            if deadline._when <= now:
                deadline._expired = True
            else:
                when = min(when, deadline._when)
        when = min(when, self._look_at(self._reader(), self.read_seconds, False, now))
        when = min(when, self._look_at(self._writer(), self.write_seconds, True, now))
        if when != NEVER:
            self.arm(when)

    def _look_at(self, owner: Waitable | None, rest: float, writing: bool, now: float) -> float:
        """Fail those who wait at *owner* and whose time is over; return when to look again."""
        when = NEVER
        if owner is None:
            return when
        for operation in owner._h_waiting():
            bounds = bounds_of(operation)
            if bounds.since < 0.0:  # it waited before there was anything to bound it
                bounds.since = now
            if writing:
                moved = owner._h_moved()
                if moved != bounds.mark:
                    bounds.mark = moved
                    bounds.since = now
            bounds.error = self._failure(operation, bounds, rest, writing, now)
            if bounds.error is None:
                when = min(when, self._next(bounds, rest, writing, now))
            else:
                owner._h_give_up(operation)
        return when


def tells_monotonic(loop: Any) -> bool:
    """Tell whether the time of *loop* is that of the system's monotonic clock, which we can ask
    without a call through Python."""
    return is_libuv(loop) or getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time


# What stands in an untyped field is typed by a call.


def bounds_of(operation: Operation) -> Bounds:
    """Return the bounds of *operation*, new ones where there were none."""
    if operation.bounds is None:
        # (Without a constructor, which would be called through Python.)
        bounds = Bounds.__new__(Bounds)
        bounds.seconds = NEVER
        bounds.due = NEVER
        bounds.since = -1.0
        bounds.mark = 0
        bounds.limit = -1
        bounds.deadline = None
        bounds.error = None
        operation.bounds = bounds
        return bounds
    return operation.bounds


def moved_by(owner: Waitable) -> int:
    """Return how many bytes *owner* has moved."""
    return owner._h_moved()


def waits(owner: Waitable | None) -> bool:
    """Tell whether somebody waits at *owner*."""
    return owner is not None and len(owner._h_waiting()) > 0


def limit_of(operation: Operation, otherwise: int) -> int:
    """Return how many bytes *operation* may search, *otherwise* where it does not say."""
    limit = bounds_of(operation).limit
    return otherwise if limit < 0 else limit


def limit_to(operation: Operation, limit: int) -> None:
    """Let *operation* search *limit* bytes."""
    bounds_of(operation).limit = limit


def check(operation: Operation) -> None:
    """Raise DeadlineExceeded where *operation* was started within a deadline that is over: also one
    that would not have to wait."""
    check_deadline(bounds_of(operation).deadline, operation.kind.name)


def check_deadline(deadline: Deadline | None, name: str) -> None:
    """Raise DeadlineExceeded where *deadline*, or one around it, was over when the method *name*
    began."""
    while deadline is not None:
        if deadline._expired:
            raise DeadlineExceeded(name, deadline._seconds, deadline._timing._stream())
        deadline = deadline._outer


def nearest_of(deadline: Deadline) -> Deadline:
    """Return which of *deadline* and those around it is over first."""
    first = deadline
    while deadline._outer is not None:
        deadline = deadline._outer
        if deadline._when < first._when:
            first = deadline
    return first


def checked_time(at: float) -> float:
    """Return *at*, a time of the loop. Raises: TypeError where it is no number, ValueError where it
    is nan."""
    if isinstance(at, (str, bytes)):
        raise TypeError(f"a deadline is at a time of the loop, not at a {type(at).__name__!r}")
    value = float(at)
    if math.isnan(value):
        raise ValueError("a deadline is at a time of the loop, and nan is none")
    return value


def checked_seconds(seconds: float | None, what: str) -> float:
    """Return *seconds* as a time that *what* may take, None as no bound.

    Raises: TypeError where it is no number, ValueError where it is negative or not a number.
    """
    if seconds is None:
        return NEVER
    if isinstance(seconds, (str, bytes)):
        raise TypeError(f"{what} takes a number of seconds, not {type(seconds).__name__!r}")
    value = float(seconds)
    if not value >= 0:
        raise ValueError(f"{what} takes a number of seconds that is not negative, not {seconds!r}")
    return value
