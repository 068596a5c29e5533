"""How much is received at once: every size, in bytes, and the rules that they are used by.

docs/decisions/receiving.md has what was measured. Code that is not compiled asks the functions.
"""

from __future__ import annotations

# The most of one receive, and the buffer that all connections of a loop share on the portable way.
# asyncio's own transports receive as much at a time (256 KiB); a larger limit gains nothing from
# more.
MAX_RECEIVE_BYTES = 256 * 1024

# Small enough for any limit, large enough that a tiny limit does not cost a system call for every
# few bytes. Not measured.
MIN_RECEIVE_BYTES = 1024

# How many times as much as at first, where the reader waits for it. A peer that floods has to be
# received from as fast as it sends. What waits in the system's buffer for long is out of the
# processor's caches by then, and costs three times as much to copy.
FLOOD_FACTOR = 4

# How much a reactor receives before the loop gets a turn: what some hundred microseconds receive.
TURN_BYTES = 1 << 20

# How much is received of a connection that broke: more than Linux keeps for one by default
# (net.ipv4.tcp_rmem: 6 MiB). There is an end to it, for the other side of a Unix socket may refuse
# what we send and go on sending.
REST_BYTES = 8 << 20

# A readexactly() of at least this collects its bytes in the object that it returns. Below it, the
# copy is cheaper than the allocation of a storage. Not measured.
RESERVE_BYTES = 2**16

# The most that one record of TLS brings (RFC 8446, 5.1). Offered less, a read leaves the rest of it
# in the session. An ssl.MemoryBIO gets no more than this at once, for it keeps for ever as much
# memory as it has ever held; one record that is longer is fed whole.
RECORD_BYTES = 1 << 14

# A limit below asyncio's default asks for little memory. uvloop receives up to 256,000 bytes at a
# time (uvloop 0.23, UV_STREAM_RECV_BUF_SIZE), four times that default.
SMALL_LIMIT_BYTES = 65536


def receive_bytes(limit: int) -> int:
    """Return how much a connection receives at a time at first; its reader has the buffer limit
    *limit*.

    Up to the limit: a reader then holds at most 2 * limit and one receive, and what a read of 64
    KiB finds with the default limit is one object, which it returns without a copy.
    """
    return min(max(limit, MIN_RECEIVE_BYTES), MAX_RECEIVE_BYTES)


def more_of_a_flood(now: int, first: int) -> int:
    """Return how much to receive at a time from a peer that floods, after *now* came in full twice;
    it was *first* at first."""
    return min(2 * now, FLOOD_FACTOR * first, MAX_RECEIVE_BYTES)


def is_small(limit: int) -> bool:
    """Tell whether a reader with the buffer limit *limit* is to have less memory than usual."""
    return limit < SMALL_LIMIT_BYTES
