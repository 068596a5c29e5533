"""Where a message with descriptors begins, in what waits at a Unix socket.

Linux joins messages without descriptors, and the next one with some, in one receive; it stops only
behind that one (unix(7) says which others it never joins). Which of the bytes the descriptors came
with nobody is told afterwards, so it has to be found out before anything is taken.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
from collections.abc import Iterator

CAN_LOOK = sys.platform == "linux" and hasattr(os, "memfd_create")


def size_of_next(sock: socket.socket, most: int) -> int:
    """Return how much to receive next from *sock*, *most* bytes at most, so that descriptors that
    come with it are those of its first byte. Where the system cannot tell, or gives no memory to
    ask it with, they may be those of a later one.

    Raises: what a receive does; BlockingIOError where nothing waits.
    """
    if not CAN_LOOK:
        return most
    # Without room for descriptors a look duplicates none, and only says that there are some.
    data, _, flags, _ = sock.recvmsg(most, 0, socket.MSG_PEEK)
    size = len(data)
    if size == 0:
        return most
    if not flags & socket.MSG_CTRUNC or size == 1:
        return size  # no more than that: what comes meanwhile may have some
    # They came with the last of these messages. A message is copied whole or not at all: if the
    # last byte cannot be, this is what stands in front of its message.
    try:
        with a_hole() as hole:
            before = sock.recvmsg_into([bytearray(size - 1), hole], 0, socket.MSG_PEEK)[0]
    except OSError:
        return size  # EFAULT: there is one message
    return before if before < size else size


@contextlib.contextmanager
def a_hole() -> Iterator[mmap.mmap]:
    """Yield memory that nothing can be copied to: its file has been cut off under it. The system
    call then stops with what it has; only our own access would be a signal. It keeps a descriptor,
    so none is kept for the next time."""
    number = os.memfd_create("headrace", os.MFD_CLOEXEC)
    try:
        os.ftruncate(number, mmap.PAGESIZE)
        hole = mmap.mmap(number, mmap.PAGESIZE)
        with hole:
            os.ftruncate(number, 0)
            yield hole
    finally:
        os.close(number)
