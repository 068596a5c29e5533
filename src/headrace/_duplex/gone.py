"""wait_peer_gone(): the peer ends, or resets, while the program does something else."""

from __future__ import annotations

import asyncio
import enum
import select
from typing import Any

# How often to look, in seconds. The system tells nobody who does not read; a peer that is gone is
# noticed within this.
LOOK_SECONDS = 0.05


class PeerGone(enum.Enum):
    """How a connection came to its end, seen from here."""

    # The peer has ended its half. It may still read: whoever asks once may do so.
    EOF = "eof"
    # The connection broke.
    RESET = "reset"
    # This side has closed or aborted it.
    LOCAL = "local"


def how(
    stream: Any, is_ended: bool, error: BaseException | None, is_closed: bool
) -> PeerGone | None:
    """Return how *stream* is over, whose peer has ended it (*is_ended*), that *error* broke, or
    that this side has closed (*is_closed*); None while it is not. What came first counts: the end
    of input that our own close() brings is none of the peer's."""
    if isinstance(error, ConnectionAbortedError):
        return PeerGone.LOCAL
    if error is not None:
        return PeerGone.RESET
    if is_ended:
        return PeerGone.EOF
    if is_closed:
        return PeerGone.LOCAL
    sock = stream.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or not hasattr(select, "poll"):
        return None
    # Behind unread input nobody has received the end yet.
    poll = select.poll()
    ended = getattr(select, "POLLRDHUP", 0)
    poll.register(sock.fileno(), ended)
    for _, events in poll.poll(0):
        if events & select.POLLERR:
            return PeerGone.RESET
        # Both halves are over (POLLHUP): of a Unix socket its peer has closed, of TCP this side had
        # ended its own before.
        if events & (ended | select.POLLHUP):
            return PeerGone.EOF
    return None


async def watch(look: Any) -> PeerGone:
    """Wait until look() returns how it is over. Cancellation: safe."""
    while True:
        gone: PeerGone | None = look()
        if gone is not None:
            return gone
        await asyncio.sleep(LOOK_SECONDS)
