"""bounded(): a time for what is more than one operation."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

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

    Raises: what failure() returns, or DeadlineExceeded. Cancellation: as that of the block.
    """
    by_deadline = False
    if timing is not None:
        when, seconds, by_deadline = timing.soonest(seconds)
    else:
        when = asyncio.get_running_loop().time() + seconds
    if when == math.inf:
        yield
        return
    timeout = asyncio.timeout_at(when)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        # One that comes from within is not ours.
        if not timeout.expired() or type(error) is not TimeoutError or error.errno is not None:
            raise
        make = DeadlineExceeded if by_deadline else failure
        raise make(operation, seconds, stream) from None
