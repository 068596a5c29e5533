"""Figures of a process: what it holds, and whether it gives it back."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
from dataclasses import dataclass

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Figures:
    """What this process holds: resident bytes, descriptors, objects that the collector knows,
    memory blocks of Python."""

    resident: int
    descriptors: int
    objects: int
    blocks: int

    @classmethod
    def now(cls) -> Figures:
        """Take them."""
        return cls(resident(), len(descriptors()), len(gc.get_objects()), sys.getallocatedblocks())

    def __str__(self) -> str:
        return (
            f"{mib(self.resident)} resident, {self.descriptors} descriptors, "
            f"{self.objects:,} objects, {self.blocks:,} blocks"
        )


def resident() -> int:
    """Return the resident bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def descriptors() -> dict[int, str]:
    """Return the open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the listing itself
            continue
    return found


async def at_rest() -> Figures:
    """Let the loop forget what was cancelled, collect, give memory back to the system, and take the
    figures."""
    loop = asyncio.get_running_loop()
    # asyncio forgets timers that were cancelled once there are more than a hundred, and most of
    # them were.
    for _ in range(500):
        loop.call_later(1000, print).cancel()
    await asyncio.sleep(0.05)
    for _ in range(3):
        gc.collect()
    trim()
    return Figures.now()


def trim() -> None:
    """Have the C library give back what it keeps for later, where it can."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it can have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def mib(size: float) -> str:
    """Return *size* bytes in words."""
    return f"{size / 2**20:.1f} MiB"
