"""Limits: what a server bounds, and how it is when nothing is said."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields

# What a process needs besides its connections: standard streams, the loop's own, a few of the
# handlers.
RESERVED_DESCRIPTORS = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a server; None is no bound. Times are in seconds, sizes in bytes. serve()
    explains each, and its default."""

    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    accept_rate: float | None = None
    max_buffered_bytes: int | None = None
    handshake_timeout: float | None = None
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    stall_timeout: float | None = None
    minimum_rate: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            # Annotations are strings here: what counts something is whole.
            kinds = (int,) if "int" in str(each.type) else (int, float)
            if value is not None and not (isinstance(value, kinds) and 0 < value < math.inf):
                raise ValueError(
                    f"{each.name} must be a {'whole ' if kinds == (int,) else ''}number above 0, "
                    f"or None for no bound, not {value!r}"
                )


def most_connections() -> int:
    """Return how many connections this process has descriptors for: nine in ten of those allowed,
    the rest is for its handlers."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return sys.maxsize
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, (allowed - RESERVED_DESCRIPTORS) * 9 // 10)
