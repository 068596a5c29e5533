"""A plugin for pytest: puts headrace's loop in the place of asyncio's, and writes how each test
ends.

WORLD_LOOP says which loop it is to be, "asyncio" or "headrace". WORLD_RESULTS names the file to
write to: a line of JSON when a test begins, and one when it has ended.

With WORLD_DEBUG=never no loop is in debug mode, whatever the suite asks for: there EventLoop's
transports are asyncio's.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio import base_events, events, unix_events
from typing import Any

import pytest

LOOP = os.environ["WORLD_LOOP"]
RESULTS = open(os.environ["WORLD_RESULTS"], "a", buffering=1)  # noqa: SIM115


def take_over() -> None:
    """Put headrace's loop in the place of asyncio's, wherever a program finds that."""
    import headrace
    from headrace._loop import seams
    from headrace._transport import backend

    assert backend.native is not None and seams.OBSTACLE is None, (
        "this would be a test of asyncio's transports"
    )

    class EventLoop(headrace.EventLoop):
        """Tests of a loop's own suite ask by the module whether it is asyncio's."""

    EventLoop.__module__ = unix_events.__name__
    names: Any = (asyncio, unix_events)
    for module in names:
        module.SelectorEventLoop = EventLoop
        if hasattr(module, "EventLoop"):
            module.EventLoop = EventLoop
    policy: Any = unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = EventLoop
    loop = events.new_event_loop()
    assert type(loop) is EventLoop
    loop.close()


if LOOP == "headrace":
    take_over()
if os.environ["WORLD_DEBUG"] == "never":
    set_debug = base_events.BaseEventLoop.set_debug
    base_events.BaseEventLoop.set_debug = (  # type: ignore[method-assign]
        lambda self, enabled: set_debug(self, False)
    )


def say(**what: object) -> None:
    """Write a line."""
    RESULTS.write(json.dumps(what) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    say(begins=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A phase of a test has ended: it has failed where any of them has."""
    if report.failed or report.skipped or report.when == "call":
        say(
            test=report.nodeid, outcome="xfailed" if hasattr(report, "wasxfail") else report.outcome
        )
