"""bounded(): a time for what is more than one operation."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from headrace._transport import timing as timings
from headrace._transport.timing import Timing
from headrace.errors import DeadlineExceeded, StreamTimeout


@contextlib.asynccontextmanager
async def bounded(
    timing: Timing | None,
    operation: str,
    failure: Callable[[str, float, Any], StreamTimeout],
    seconds: float,
    stream: Any,
) -> AsyncIterator[None]:
    """End what is in the block after *seconds*, or when a deadline of the running task is over.

    Args:
        timing: knows the deadlines; None where there are none.
        operation: the method, for the error.
        failure: makes the error where it is not the deadline's.
        seconds: infinity for no bound.

    Raises: what failure() returns, or DeadlineExceeded, at once where the deadline was over before.
    Cancellation: as that of the block.
    """
    now = asyncio.get_running_loop().time if timing is None else timing.now
    deadline = None if timing is None else timing.current_deadline()
    timings.check_deadline(deadline, operation)
    if deadline is None and seconds == math.inf:
        yield
        return
    end = now() + seconds

    def due() -> tuple[float, float, bool]:
        """Return when it is over, of how many seconds that is the end, and whether the deadline's
        it is."""
        if deadline is not None:
            when, its = deadline.nearest()
            if when < end:
                return when, its, True
        return end, seconds, False

    def moved() -> None:
        """The deadline was rescheduled."""
        if not timeout.expired():
            timeout.reschedule(finite(due()[0]))

    timeout = asyncio.timeout_at(finite(due()[0]))
    if timing is not None:
        timing.watchers.append(moved)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        # One that comes from within is not ours.
        if not timeout.expired() or type(error) is not TimeoutError or error.errno is not None:
            raise
        _, took, by_deadline = due()
        make = DeadlineExceeded if by_deadline else failure
        raise make(operation, took, stream) from None
    finally:
        if timing is not None:
            timing.watchers.remove(moved)


def finite(when: float) -> float | None:
    """Return *when* as asyncio has it, which calls what never comes None."""
    return None if when == math.inf else when
