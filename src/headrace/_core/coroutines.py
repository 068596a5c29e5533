"""Telling asyncio, inspect and mock that a method which returns an awaitable operation counts as a coroutine function."""

import inspect
from asyncio import coroutines


def mark_coroutine_functions(cls: type, names: tuple[str, ...]) -> None:
    """Mark the methods *names* of *cls*, so that ``Mock(spec=cls)`` makes AsyncMocks of them.

    Source: asyncio.iscoroutinefunction() looks for ``_is_coroutine``, inspect's (3.12 and later) for the mark of markcoroutinefunction().
    """
    for name in names:
        function = getattr(cls, name)
        function._is_coroutine = coroutines._is_coroutine
        if hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(function)
