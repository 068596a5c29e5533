"""What a server is bounded by, how it is when nothing is said, and why it turns away or ends a
connection."""

from __future__ import annotations

import enum
import math
import sys
from dataclasses import Field, dataclass, field, fields
from typing import Any

# What a process needs besides its connections: standard streams, the loop's own, a few of the
# handlers.
RESERVED_DESCRIPTORS = 50


class RefuseReason(enum.StrEnum):
    """Why a connection is turned away, as Statistics.refused names it."""

    FULL = "full"
    PEER = "peer"


class EndReason(enum.StrEnum):
    """Why the server ends a connection, as Statistics.ended names it."""

    FIRST_BYTE = "first byte"
    IDLE = "idle"
    MEMORY = "memory"
    RATE = "rate"
    SHUTDOWN = "shutdown"
    STALLED = "stalled"


class FailCause(enum.StrEnum):
    """Why a PROXY header or a handshake fails, as Statistics.failed names it."""

    CERTIFICATE = "certificate"
    CIPHER = "cipher"
    CLOSED = "closed"
    NOT_TLS = "not TLS"
    OTHER = "other"
    PROXY = "proxy"
    TIMEOUT = "timeout"
    VERSION = "version"


def _bound(default: float | None, unit: str, what: str, why: str, instead: str = "none") -> Any:
    """Return the field of a bound: its default, the unit and *what* it counts, and *why* it is so.
    *instead* is what holds where the default is None."""
    about = {"unit": unit, "what": what, "why": why, "instead": instead}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a server; None is no bound.

    This is the one place that says what bounds there are. The options of ``headrace serve`` are
    made from it; a test compares the signature and the docstring of serve(), and the list in
    docs/production.md.
    """

    max_connections: int | None = _bound(
        None,
        "connections",
        "that are open at a time",
        "beyond those no handler could open a file",
        "nine tenths of the descriptors that this process may have (RLIMIT_NOFILE)",
    )
    max_connections_per_peer: int | None = _bound(
        None,
        "connections",
        "of one address, or one /64 of IPv6, at a time",
        "proxies and providers put many clients behind one address",
    )
    accept_rate: float | None = _bound(
        None,
        "connections a second",
        "that are accepted; a burst may be a second's worth",
        "what a flood makes expensive is handshakes of TLS, of which a core does about 1,000 a "
        "second",
    )
    max_buffered_bytes: int | None = _bound(
        None,
        "bytes",
        "received and not read, written and not sent, of all connections together; above it "
        "nothing is accepted, and the connections with the most are ended",
        "each connection is bounded by twice its limit, and by what its handler writes without "
        "drain()",
    )
    handshake_timeout: float | None = _bound(
        10.0,
        "seconds",
        "for the PROXY header and TLS together",
        "three losses on a slow path (RFC 6298) take 7",
    )
    first_byte_timeout: float | None = _bound(
        60.0,
        "seconds",
        "in which neither side has said anything",
        "a client that connects wants something, and nginx waits as long",
    )
    idle_timeout: float | None = _bound(
        None,
        "seconds",
        "in which the handler waits for the peer and nothing comes",
        "many protocols rest for hours",
    )
    stall_timeout: float | None = _bound(
        60.0,
        "seconds",
        "in which the peer takes nothing of what was written",
        "a peer that reads nothing for so long does not read",
    )
    minimum_rate: float | None = _bound(
        None,
        "bytes a second",
        "of a message that has begun (readline(), readuntil(), readexactly()), and of what is "
        "sent, over ten seconds",
        "100 or so keeps out clients that send a byte now and then to keep a connection "
        "(slow-loris), and nobody else. It is about one read: a request of many lines has as long "
        "as all of them, unless the handler says otherwise (asyncio.timeout())",
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kinds = (int,) if is_whole(each) else (int, float)
            if value is not None and not (isinstance(value, kinds) and 0 < value < math.inf):
                raise ValueError(
                    f"{each.name} must be a {'whole ' if is_whole(each) else ''}number above 0, "
                    f"or None for no bound, not {value!r}"
                )


def is_whole(bound: Field[Any]) -> bool:
    """Tell whether *bound*, a field of Limits, counts something."""
    return "int" in str(bound.type)  # annotations are strings here


def summary(bound: Field[Any]) -> str:
    """Return what *bound*, a field of Limits, is, in a line."""
    return f"{bound.metadata['unit']} {bound.metadata['what']}"


def shown_default(bound: Field[Any]) -> str:
    """Return the default of *bound*, a field of Limits, for people."""
    return bound.metadata["instead"] if bound.default is None else f"{bound.default:g}"


def description(bound: Field[Any]) -> str:
    """Return all that there is to say of *bound*, a field of Limits."""
    return f"{summary(bound)}. Default: {shown_default(bound)}; {bound.metadata['why']}."


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
