"""The connections of ``chaos`` that go on, and the servers that they come to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import headrace
from tests.system.soak.end import End
from tests.system.soak.peer import LOOPBACK
from tests.system.soak.plan import SIDES, Plan


class Link:
    """A connection that goes on: its plan and what becomes of its ends."""

    def __init__(self, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        self.plan = plan
        self.reports: dict[str, asyncio.Future[dict[str, Any]]] = {
            side: loop.create_future() for side in SIDES
        }
        self.ends: dict[str, End] = {}
        # Why there was no connection, if there was none.
        self.cut: asyncio.Future[str] = loop.create_future()
        self.excused = False

    def tell(self, side: str, report: dict[str, Any]) -> None:
        """Take the report of *side*."""
        if not self.reports[side].done():
            self.reports[side].set_result(report)


class Listening:
    """One address that is listened on, by one server after another."""

    def __init__(
        self,
        by: str,
        limit: int,
        directory: str,
        callback: Callable[[Any, Any], Any],
        operations: Counter[str],
    ) -> None:
        self.callback = callback
        self.operations = operations
        self.by = by
        self.limit = limit
        self.path = f"{directory}/server{limit}"
        self.port = 0
        self.server: Any = None
        self.old: list[Any] = []
        self.restarts = 0
        # Its connections, as long as they go on.
        self.links: set[Link] = set()

    @property
    def address(self) -> Any:
        """Where to connect to."""
        return self.path if self.by == "unix" else (LOOPBACK, self.port)

    async def start(self) -> None:
        """Listen, on the same address as before."""
        if self.by == "unix":
            self.server = await headrace.start_unix_server(
                self.callback, self.path, limit=self.limit
            )
            return
        # A port that is nobody's while this server is away: below those that the system gives to
        # clients.
        for port in [self.port] if self.port else random.sample(range(20000, 30000), 50):
            try:
                self.server = await headrace.start_server(
                    self.callback, LOOPBACK, port, limit=self.limit, backlog=512
                )
            except OSError:
                continue
            self.port = port
            return
        raise OSError(f"none of 50 ports is free, or {self.port} is not any more")

    async def restart(self, rng: random.Random) -> None:
        """Close the server, perhaps with all its connections, and start another."""
        self.restarts += 1
        how = rng.choices(("close", "close_clients", "abort_clients"), (8, 1, 1))[0]
        self.operations[f"server: {how}"] += 1
        self.server.close()
        if how != "close":
            for link in self.links:
                link.excused = True
            getattr(self.server, how)()
        self.old.append(self.server)
        await asyncio.sleep(rng.choice((0, 0.001, 0.05)))
        await self.start()

    async def stop(self) -> None:
        """Close for good. The servers before are waited for too: their connections have ended by
        now."""
        self.server.close()
        for each in (*self.old, self.server):
            await each.wait_closed()
        self.old.clear()
