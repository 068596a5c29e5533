"""Which way a connection takes to its event loop, and why, in words.

There is one way so far, the portable one: a protocol over the transport that the loop itself makes. It has two forms:

buffered       the transport receives into one buffer that all connections of the loop share (asyncio.BufferedProtocol)
data_received  the transport hands over a new bytes object for every receive (asyncio.Protocol)
"""

from __future__ import annotations

import asyncio
from asyncio.selector_events import BaseSelectorEventLoop
from dataclasses import dataclass
from typing import Literal

# Who asks for a lower limit than asyncio's default wants little memory: uvloop receives up to 256,000 bytes at a time (uvloop 0.23,
# UV_STREAM_RECV_BUF_SIZE), four times that default.
SMALL_LIMIT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Choice:
    """How a connection is served: the *way* to the socket, the *form* of the protocol, and the *reason*, one sentence."""

    way: Literal["portable"]
    form: Literal["buffered", "data_received"]
    reason: str


SELECTOR = Choice(
    "portable",
    "buffered",
    "asyncio's selector loop allocates 256 KiB for every receive unless the protocol brings a buffer",
)
LIBUV = Choice("portable", "data_received", "uvloop receives into a buffer of its own, and handing over bytes is its fastest path")
LIBUV_SMALL = Choice(
    "portable",
    "buffered",
    "the limit is below 64 KiB: uvloop would receive 256,000 bytes at a time, and a buffer of ours keeps a receive small",
)
UNKNOWN = Choice(
    "portable",
    "data_received",
    "this loop may fill a buffer while others run, as a proactor does, so that connections cannot share one",
)


def choose(loop: asyncio.AbstractEventLoop, limit: int) -> Choice:
    """Return what a connection of *loop* gets whose reader has the buffer limit *limit* (bytes)."""
    if isinstance(loop, BaseSelectorEventLoop):
        return SELECTOR
    if any(cls.__module__.partition(".")[0] == "uvloop" for cls in type(loop).__mro__):
        return LIBUV_SMALL if limit < SMALL_LIMIT_BYTES else LIBUV
    return UNKNOWN
