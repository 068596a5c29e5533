"""The public names as text: what each is, where it says that it is, and how it is called.

PYTHONPATH=src:tests python -m support.api > tests/meta/public_api.txt
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import headrace
from headrace import framing, metrics

# What headrace makes, and users do not: how is nobody's but ours.
MADE_BY_US = {"Connection", "Measured", "Server", "StreamServer", "Traced"}


def described() -> str:
    """Return a line for each public name, and an indented one for each attribute of a class that
    headrace defines."""
    lines = []
    for module in (headrace, framing, metrics):
        for name in module.__all__:
            value = getattr(module, name)
            lines.append(line(f"{value.__module__}.{name}", value))
            if inspect.isclass(value) and value.__module__ == module.__name__:
                lines += [f"    {line(each, member)}" for each, member in members(value)]
    return "\n".join(map(wrapped, lines)) + "\n"


def wrapped(text: str) -> str:
    """Return *text* in lines of at most 100 columns."""
    return textwrap.fill(
        text, 100, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public attributes of *cls*, those of asyncio's and Python's bases left out."""
    for name in sorted({name for base in cls.__mro__ for name in vars(base)}):
        owner = next(base for base in cls.__mro__ if name in vars(base))
        if not name.startswith("_") and owner.__module__.startswith("headrace"):
            yield name, vars(owner)[name]


def line(name: str, value: Any) -> str:
    """Return *name* with what *value* is."""
    if inspect.isclass(value):
        # How an enumeration is called, each Python says in its own way.
        ours = value.__name__ in MADE_BY_US or issubclass(value, enum.Enum)
        made = "" if ours else parameters(value)
        known = [base for base in value.__mro__[1:-1] if not is_private(base)]
        bases = [
            f"{base.__module__}.{base.__name__}"
            for index, base in enumerate(known)
            if not any(issubclass(each, base) for each in known[:index])
        ]
        return f"class {name}{made}" + (f", a {' and '.join(bases)}" if bases else "")
    if callable(value):
        return f"{'async ' if is_coroutine_function(value) else ''}{name}{parameters(value)}"
    return name


def is_private(base: type) -> bool:
    """Tell whether a user has no business with *base*."""
    return bool(re.match(r"headrace\.(.*\.)?_|typing", base.__module__))


def parameters(value: Any) -> str:
    """Return how *value* is called, without types; an ellipsis where Python cannot tell."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"
    plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(inspect.Signature([each for each in plain if each.name != "self"]))


def is_coroutine_function(value: Any) -> bool:
    """Tell whether a call of *value* is to be awaited."""
    with warnings.catch_warnings():
        # From Python 3.14 on; before 3.12 inspect does not know asyncio's mark.
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.iscoroutinefunction(value)


if __name__ == "__main__":
    print(described(), end="")
