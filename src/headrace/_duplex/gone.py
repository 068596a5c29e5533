"""wait_peer_gone(): the peer ends, or resets, while the program does something else."""

from __future__ import annotations

import asyncio
import enum
import select
from collections.abc import Callable
from typing import Any

# How often to look, in seconds. The system tells nobody who does not read; a peer that is gone is
# noticed within this.
LOOK_SECONDS = 0.05
# How soon to look again at what is not sure, in seconds: more than a turn of the loop.
AGAIN_SECONDS = 0.005


class PeerGone(enum.Enum):
    """How a connection came to its end, seen from here."""

    # The peer has ended its half. It may still read: whoever asks once may do so.
    EOF = "eof"
    # The connection broke.
    RESET = "reset"
    # This side has closed or aborted it.
    LOCAL = "local"


def told(is_ended: bool, error: BaseException | None, is_closed: bool) -> PeerGone | None:
    """Return how a stream is over whose peer has ended it (*is_ended*), that *error* broke, or that
    this side has closed (*is_closed*); None where nobody has said so. What came first counts: the
    end of input that our own close() brings is none of the peer's."""
    if isinstance(error, ConnectionAbortedError):
        return PeerGone.LOCAL
    if error is not None:
        return PeerGone.RESET
    if is_ended:
        return PeerGone.EOF
    return PeerGone.LOCAL if is_closed else None


def polled(sock: Any) -> tuple[PeerGone | None, bool]:
    """Return what the system says of *sock*, behind unread input, of which nobody has received the
    end yet; and whether that is sure."""
    if sock is None or sock.fileno() < 0 or not hasattr(select, "poll"):
        return None, True
    poll = select.poll()
    ended = getattr(select, "POLLRDHUP", 0)
    poll.register(sock.fileno(), ended)
    for _, events in poll.poll(0):
        if events & select.POLLERR:
            return PeerGone.RESET, True
        if events & select.POLLHUP:
            # Both halves are over: of a Unix socket its peer has closed, of TCP this side had ended
            # its own before. Or somebody has just received the error, and is about to tell.
            return PeerGone.EOF, False
        if events & ended:
            return PeerGone.EOF, True
    return None, True


async def watch(
    stream: Any, state: Callable[[], tuple[bool, BaseException | None, bool]]
) -> PeerGone:
    """Wait until *stream* is over, and return how; state() returns what told() takes. Cancellation:
    safe."""
    seen = None
    while True:
        gone = told(*state())
        if gone is not None:
            return gone
        gone, is_sure = polled(stream.get_extra_info("socket"))
        if gone is not None and (is_sure or gone is seen):
            return gone
        seen = gone
        await asyncio.sleep(LOOK_SECONDS if gone is None else AGAIN_SECONDS)
