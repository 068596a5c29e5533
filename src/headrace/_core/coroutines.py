"""What inspect, asyncio and mock cannot see in compiled classes: which methods are awaited, and
what a constructor takes."""

import inspect
import sys
from asyncio import coroutines
from collections.abc import Callable


def mark_coroutine_functions(cls: type, names: tuple[str, ...]) -> None:
    """Mark the methods *names* of *cls*, so that ``Mock(spec=cls)`` makes AsyncMocks of them.

    Source: from Python 3.12 on inspect and asyncio look for the mark of markcoroutinefunction(),
    before that asyncio for ``_is_coroutine``.
    """
    for name in names:
        function = getattr(cls, name)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(function)
        else:
            # private, and looked for
            function._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]


class SignatureOf:
    """``__signature__`` of a class whose compiled ``__init__`` shows none: that of *like*; a
    subclass with its own is read as usual."""

    def __init__(self, like: Callable[..., object]) -> None:
        self.signature: inspect.Signature = inspect.signature(like)

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        for cls in owner.__mro__:
            if "__signature__" in vars(cls):
                return self.signature
            if "__init__" in vars(cls):
                break
        raise AttributeError("__signature__")
