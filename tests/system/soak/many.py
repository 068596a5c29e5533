"""``many``: thousands of connections to one server of headrace's, from a process of bare sockets,
all of them echoing at once.

Another tenth may come and go all the time. The memory cost of a connection is measured while all
are idle. In the end, with all of them closed, the process has to be as small as before."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import headrace
from headrace._transport import backend
from tests.system.soak import figures
from tests.system.soak.channel import Channel, child
from tests.system.soak.figures import Figures, mib
from tests.system.soak.ledger import Failures

TICK_S = 3.0
# How long nothing may happen.
PATIENCE_S = 60.0
# What makes all caches and arenas as large as they get with few connections.
WARM_UP = 200
MORE_OBJECTS = 500
# Memory blocks of Python that may be left: a few, and far fewer than one for each connection.
MORE_BLOCKS = 1000
ONE_IN = 20
# Python's allocator gives an arena back only when it is empty, and some objects always survive. Of
# the growth of a process, this share may stay, and so much more. It is used again: the same once
# more must make it grow by no more than the latter.
KEPT_SHARE = 0.5
MORE_RESIDENT = 8 * 2**20


@dataclass
class Options:
    """The command line."""

    connections: int
    echoes: int
    churn: bool
    loop: str
    way: str


class Many:
    """A run of ``many``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.failures = Failures()
        self.open = 0
        self.served = 0
        self.echoed = 0
        self.broken = 0
        self.busiest = 0
        self.began = time.monotonic()
        self.answer: asyncio.Future[dict[str, Any]] | None = None
        self.state: dict[str, Any] = {}
        self.heard_at = self.began

    async def echo(self, reader: Any, writer: Any) -> None:
        """Serve one connection."""
        self.open += 1
        self.served += 1
        try:
            while data := await reader.read(65536):
                self.echoed += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            self.broken += 1
        finally:
            self.open -= 1
            writer.close()

    # ---- the client

    def listen(self, channel: Channel) -> None:
        """Take the client's report: its progress, or that it is done."""
        try:
            received = channel.receive(wait=False)
        except BlockingIOError:
            return
        loop = asyncio.get_running_loop()
        if received is None:
            loop.remove_reader(channel.sock)
            if self.answer is not None and not self.answer.done():
                self.answer.set_exception(EOFError("the client's process has died"))
            return
        if received[0] != self.state:
            self.heard_at = time.monotonic()
        self.state = received[0]
        if self.state["done"] and self.answer is not None and not self.answer.done():
            self.answer.set_result(self.state)

    async def tell(self, channel: Channel, order: str, **arguments: Any) -> dict[str, Any]:
        """Have the client do something; return its figures when it is done. Raises: TimeoutError
        where it does not get on."""
        self.answer = asyncio.get_running_loop().create_future()
        self.heard_at = ticked = time.monotonic()
        channel.send({"order": order, **arguments})
        while not self.answer.done():
            faulthandler.dump_traceback_later(2 * PATIENCE_S, exit=True)
            await asyncio.wait([self.answer], timeout=0.5)
            self.busiest = max(self.busiest, figures.resident())
            if time.monotonic() - self.heard_at > PATIENCE_S:
                raise TimeoutError(f"the client does not get on with {order}: {self.state}")
            if time.monotonic() - ticked > TICK_S:
                ticked = time.monotonic()
                self.progress(order)
        return self.answer.result()

    def progress(self, what: str) -> None:
        """Print how far it is."""
        state = ", ".join(
            f"{name} {value:,}"
            for name, value in self.state.items()
            if type(value) is int and value
        )
        print(
            f"{time.monotonic() - self.began:6.0f} s  {what}: {self.open:,} connections open of "
            f"{self.served:,}, "
            f"{mib(self.echoed)} echoed; client: {state}; {Figures.now()}",
            file=sys.stderr,
            flush=True,
        )

    # ---- the run

    async def run(self) -> int:
        """Do it all; return the exit status."""
        loop = asyncio.get_running_loop()
        self.failures.hear(loop)
        options = self.options
        with child("tests.system.soak.many_client") as (channel, process):
            loop.add_reader(channel.sock, self.listen, channel)
            server = await headrace.start_server(self.echo, "0.0.0.0", 0, backlog=4096)
            port = server.sockets[0].getsockname()[1]
            try:
                await self.tell(
                    channel, "open", port=port, connections=min(WARM_UP, options.connections)
                )
                await self.tell(channel, "echo", echoes=2, churn=0)
                await self.tell(channel, "close")
                await self.emptied()
                before = await figures.at_rest()
                known = figures.descriptors()
                self.progress("warmed up")

                began = time.monotonic()
                await self.tell(channel, "open", port=port, connections=options.connections)
                opening = time.monotonic() - began
                idle = await figures.at_rest()
                if self.open != options.connections:
                    self.failures.fail(
                        f"{self.open} connections are open, not {options.connections}"
                    )
                self.progress("idle")

                churn = max(1, options.connections // 10) if options.churn else 0
                self.busiest = 0
                began, cpu = time.monotonic(), time.process_time()
                state = await self.tell(channel, "echo", echoes=options.echoes, churn=churn)
                echoing, cpu = time.monotonic() - began, time.process_time() - cpu
                busy = self.busiest
                await self.tell(channel, "close")
                await self.emptied()
                after = await figures.at_rest()
                self.progress("closed")
                await self.tell(channel, "open", port=port, connections=options.connections)
                await self.tell(channel, "echo", echoes=2, churn=0)
                await self.tell(channel, "close")
                await self.emptied()
                again = await figures.at_rest()
                left = {
                    name: what
                    for name, what in figures.descriptors().items()
                    if known.get(name) != what
                }
            except (TimeoutError, EOFError) as error:
                self.failures.fail(str(error))
                return self.failures.verdict()
            server.close()
            await asyncio.wait_for(server.wait_closed(), PATIENCE_S)
            loop.remove_reader(channel.sock)
        faulthandler.cancel_dump_traceback_later()

        wanted = options.connections * options.echoes
        if state["echoes"] != wanted:
            self.failures.fail(f"{state['echoes']:,} echoes, not {wanted:,}")
        for what in ("wrong", "refused", "broken"):
            if state[what]:
                self.failures.fail(f"the client counts {state[what]} {what}: {state['first']}")
        if left:
            self.failures.fail(f"descriptors left open: {left}")
        if after.objects - before.objects > MORE_OBJECTS:
            self.failures.fail(f"{after.objects - before.objects:,} objects more than before")
        if after.blocks - before.blocks > MORE_BLOCKS + options.connections // ONE_IN:
            self.failures.fail(f"{after.blocks - before.blocks:,} memory blocks more than before")
        more = after.resident - before.resident
        if more > MORE_RESIDENT + KEPT_SHARE * (busy - before.resident):
            self.failures.fail(
                f"{mib(more)} more resident than before, and it had grown by "
                f"{mib(busy - before.resident)}"
            )
        if (
            again.resident - after.resident > MORE_RESIDENT
            or again.blocks - after.blocks > MORE_BLOCKS
        ):
            self.failures.fail(f"after the same once more it has grown again: {again}")
        each_us = cpu / (state["echoes"] + state["churned"]) * 1e6
        print(
            f"many: {options.loop} loop, {options.way} way, {options.connections:,} connections, "
            f"{options.echoes:,} echoes of 64 bytes each"
        )
        print(
            f"  opened in {opening:.1f} s; {state['echoes']:,} echoes in {echoing:.1f} s, "
            f"{each_us:.1f} us of server CPU each"
        )
        print(
            f"  meanwhile {state['churned']:,} others came, echoed once and went ({self.broken:,} "
            "connections ended in a reset)"
        )
        print(
            f"  wrong bytes {state['wrong']}, refused {state['refused']}, broken {state['broken']}"
        )
        print(f"  before: {before}")
        print(
            f"  idle:   {idle}: {(idle.resident - before.resident) / options.connections:,.0f} "
            "bytes resident for each connection"
        )
        print(f"  busy:   {mib(busy)} resident at most")
        print(
            f"  after:  {after}: {mib(more)} resident, {after.objects - before.objects:+,} objects "
            "and "
            f"{after.blocks - before.blocks:+,} blocks more than before"
        )
        print(f"  again:  {again}, after as many connections once more")
        return self.failures.verdict()

    async def emptied(self) -> None:
        """Wait until the server has noticed that all connections are gone."""
        until = time.monotonic() + PATIENCE_S
        while self.open:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.open} connections are closed, and their handlers go on")
            await asyncio.sleep(0.05)


def run(options: Options, loop_factory: Any) -> int:
    """Run ``many``; return the exit status."""
    most = figures.raise_descriptor_limit()
    if options.connections * 1.1 + 100 > most:
        print(
            f"only {most} descriptors are allowed here (ulimit -Hn): too few for "
            f"{options.connections} connections",
            file=sys.stderr,
        )
        return 2
    os.environ[backend.VARIABLE] = options.way
    faulthandler.enable()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(Many(options).run())
