"""Measuring what is left behind by what is done again and again: objects, memory blocks, references
and descriptors."""

from __future__ import annotations

import asyncio
import gc
import sys

from conftest import open_descriptors
from support.wires import turns

# One more object or block for each repetition is a leak; a cache, or a list that grows, adds far
# less.
REPEATS = 2000
# Caches, free lists and lists of the loop are as large as they get after this many.
WARM_UP = 200
# A leak grows every time that it is measured, and chance does not.
MEASUREMENTS = 4

# Their references are counted, where Python does not make them immortal.
TYPES = [
    asyncio.CancelledError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
    ConnectionResetError,
    KeyError,
    RuntimeError,
    StopAsyncIteration,
    StopIteration,
    TimeoutError,
    ValueError,
]
DATA = b"".join([b"abcde", b"\n"])  # an object of this test's own


def counted(watched):
    """Return what there is: objects, memory blocks, and the references to everything in
    *watched*."""
    gc.collect()
    found = {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}
    for name, each in watched.items():
        found[f"references to {name}"] = sys.getrefcount(each)
    return found


async def quiet(tasks):
    """Wait until there are no more than *tasks*, and what the others closed is closed."""
    while len(asyncio.all_tasks()) > tasks:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    # asyncio forgets timers that were cancelled once there are more than a hundred, and most of
    # them were.
    for _ in range(500):
        asyncio.get_running_loop().call_later(1000, print).cancel()
    await turns(2)


async def grown(step, watched=None, repeats=REPEATS, warm_up=WARM_UP, blocks=0.25):
    """Return what *repeats* of *step*, an async function, leave behind, as {what: how much};
    *blocks* for each are chance."""
    watched = (
        {each.__name__: each for each in TYPES}
        | {"DATA": DATA, "the loop": asyncio.get_running_loop()}
        | (watched or {})
    )
    tasks = len(asyncio.all_tasks())
    for _ in range(warm_up):
        await step()
    left = {}
    for _ in range(MEASUREMENTS):
        await quiet(tasks)
        before = counted(watched)
        descriptors = open_descriptors()
        for _ in range(repeats):
            await step()
        await quiet(tasks)
        after = counted(watched)
        more = sorted(open_descriptors() - descriptors)
        left = {
            name: after[name] - before[name]
            for name in after
            if abs(after[name] - before[name]) > repeats * (blocks if name == "blocks" else 0.25)
        }
        if more:
            left["descriptors"] = more
        if not left:
            break
    return left
