"""A deadline knows the task that enters it."""

from __future__ import annotations

import pytest
from support.connections import LOOPBACK

import headrace


def test_the_running_task_is_known(run):
    """On every Python a deadline can be entered in a task, bounds its reads, and is told from one
    of another task."""

    async def silent(stream):
        await stream.read()

    async def main():
        async with headrace.serve(silent, LOOPBACK, 0) as server:
            address = server.sockets[0].getsockname()[:2]
            reader, writer = await headrace.open_connection(*address)
            async with headrace.Stream(reader, writer) as stream:
                with stream.deadline(0.01) as deadline, pytest.raises(headrace.DeadlineExceeded):
                    await stream.read()
                assert deadline.expired

    run(main)
