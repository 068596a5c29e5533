"""What the programs under the shim share: the plan of faults, a loop, and the checks at the end.
See shim.c and conftest.py."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

LIMIT_S = 15.0

# What the loop's exception handler was told, and sys.unraisablehook: each as (message, exception).
# heard() takes it away.
_heard: list[tuple[str, BaseException | None]] = []


def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["HEADRACE_SHIM"])


def plan(text: str) -> None:
    """Follow the plan *text* from here on; "" is none. The counts begin again."""
    _shim().fault_plan(text.encode())


def faults(function: str) -> int:
    """Return how many calls of *function* were made to fail, or shortened."""
    return _count("fault_count", function)


def calls(function: str) -> int:
    """Return how many calls of *function* headrace made."""
    return _count("fault_calls", function)


def _count(counter: str, function: str) -> int:
    if "HEADRACE_SHIM" not in os.environ:  # somebody else makes them fail: strace
        return -1
    count = getattr(_shim(), counter)
    count.restype = ctypes.c_long
    return count(function.encode())


def heard() -> list[tuple[str, BaseException | None]]:
    """Return what was reported since the last call; what nobody has taken by the end fails the
    program."""
    taken = _heard[:]
    _heard.clear()
    return taken


def open_descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def run(kind: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """Run main() on a loop of *kind*; fail where it hangs, leaves a descriptor open, or anything
    was reported that nobody has heard()."""
    faulthandler.dump_traceback_later(LIMIT_S + 5, exit=True)
    sys.unraisablehook = lambda it: _heard.append(
        (f"unraisable: {it.err_msg} {it.object!r}", it.exc_value)
    )

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, it: _heard.append((it["message"], it.get("exception")))
        )
        async with asyncio.timeout(LIMIT_S):
            return await main()

    with asyncio.Runner(
        loop_factory=lambda: new_loop(kind)
    ) as runner:  # libuv opens a pipe for the life of the process with its first
        runner.run(asyncio.sleep(0))
    before = open_descriptors()
    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        result = runner.run(bounded())
    gc.collect()
    left = open_descriptors() - before
    assert not left, f"descriptors left open: {left}"
    assert not _heard, _heard
    return result


def say(**facts: Any) -> None:
    """Tell the test *facts*, as the last line of what is printed."""
    print(json.dumps(facts), flush=True)
