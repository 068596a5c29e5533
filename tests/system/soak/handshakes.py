"""``handshakes``: TLS connections, one after another and some at a time, both sides of them in this
process, which must not grow.

They differ: both versions, sessions that are resumed or not, TLS from the start or by start_tls(),
certificates of the client's. One in ten fails, is given up, or is cut off, in its handshake or
right behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import headrace
from headrace._transport import backend
from tests.support.certificates import HOST, Tls
from tests.system.soak import figures
from tests.system.soak.figures import Figures, mib
from tests.system.soak.ledger import Failures

LOOPBACK = "127.0.0.1"
PATIENCE_S = 30.0
TICK_S = 3.0
AT_ONCE = 10
# What makes caches as large as they get.
WARM_UP = 2_000
# What may be left behind: a few, and far fewer than one for a hundred handshakes.
MORE_OBJECTS = 500
MORE_BLOCKS = 1000
MORE_RESIDENT = 8 * 2**20
# What becomes of one connection in ten; the others echo, and every second one of those brings a
# session to resume.
FATES = ("unknown", "reset", "cancelled", "silent", "abort")
ONE_IN_TEN = 0.1
ONE_IN_TWO = 0.5


@dataclass
class Options:
    """The command line."""

    handshakes: int
    seed: int
    loop: str
    way: str


class Handshakes:
    """A run of ``handshakes``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.failures = Failures()
        self.tls = Tls()
        self.versions = [
            self.tls.contexts(version)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        ]
        self.mutual = self.tls.contexts(ssl.TLSVersion.TLSv1_3)
        self.tls.authority.configure_trust(self.mutual[0])
        self.mutual[0].verify_mode = ssl.CERT_REQUIRED
        self.tls.authority.issue_cert("client@example.org").configure_cert(self.mutual[1])
        self.sessions: dict[ssl.SSLContext, ssl.SSLSession] = {}
        self.counts: Counter[str] = Counter()
        self.rng = random.Random(options.seed)
        self.began = time.monotonic()
        self.said = self.began

    def handler(self, upgrade: ssl.SSLContext | None) -> Callable[[Any, Any], Any]:
        """Return a handler that echoes one message, after an *upgrade* where there is a context for
        one."""

        async def echo(reader: Any, writer: Any) -> None:
            with contextlib.suppress(
                ConnectionError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError
            ):
                if upgrade is not None:
                    await writer.start_tls(upgrade, ssl_handshake_timeout=1)
                writer.write(await reader.readexactly(5))
                await reader.read()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                writer.close()
                await writer.wait_closed()

        return echo

    async def connect(
        self, address: Any, context: ssl.SSLContext, upgrade: bool
    ) -> tuple[Any, Any]:
        """Return a connection to *address*, after its handshake."""
        session = self.sessions.get(context) if self.rng.random() < ONE_IN_TWO else None
        if not upgrade:
            return await headrace.open_connection(
                *address, ssl=context, server_hostname=HOST, ssl_session=session
            )
        reader, writer = await headrace.open_connection(*address)
        await writer.start_tls(context, server_hostname=HOST, ssl_session=session)
        return reader, writer

    async def one(self, servers: list[tuple[Any, ssl.SSLContext, bool]]) -> None:
        """Play one connection to one of *servers*: (address, the client's context, whether TLS
        comes by start_tls())."""
        address, context, upgrade = self.rng.choice(servers)
        fate = self.rng.choice(FATES) if self.rng.random() < ONE_IN_TEN else "echo"
        self.counts[fate] += 1
        if fate in ("silent", "reset"):
            # Somebody who connects and says nothing, or little.
            _, writer = await headrace.open_connection(*address)
            if fate == "reset":
                writer.write(b"\x16\x03\x01\x02\x00\x01")
                await asyncio.sleep(self.rng.random() * 0.01)
            writer.transport.abort()
            return
        try:
            connecting = asyncio.ensure_future(
                self.connect(address, self.tls.stranger if fate == "unknown" else context, upgrade)
            )
            if fate == "cancelled":
                await asyncio.wait([connecting], timeout=self.rng.random() * 0.01)
                connecting.cancel()
            reader, writer = await connecting
        except ssl.SSLCertVerificationError:
            if fate != "unknown":
                raise
            return
        except asyncio.CancelledError:
            if fate != "cancelled":
                raise
            return
        if fate == "abort":
            writer.transport.abort()
            return
        writer.write(b"hello")
        if await reader.readexactly(5) != b"hello":
            self.failures.fail("an echo is wrong")
        known = writer.get_extra_info("ssl_object")
        self.counts["resumed"] += known.session_reused
        if context not in self.sessions:
            # Once: each time it is asked for, CPython (3.11 to 3.13) makes a copy of 6 KB, and
            # never frees it.
            self.sessions[context] = known.session
        writer.close()
        await writer.wait_closed()

    async def several(self, servers: list[Any], number: int) -> None:
        """Play *number* connections, some at a time."""
        left = number

        async def worker() -> None:
            nonlocal left
            while left > 0 and not self.failures.failed:
                left -= 1
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self.one(servers)
                except Exception as error:
                    self.failures.fail(f"a connection that was to be well: {error!r}")
                if time.monotonic() - self.said > TICK_S:
                    self.said = time.monotonic()
                    progress = (
                        f"{self.said - self.began:4.0f} s  {left:,} to go of these {number:,}"
                    )
                    print(f"  {progress}; {Figures.now()}", file=sys.stderr, flush=True)

        await asyncio.gather(*[worker() for _ in range(AT_ONCE)])

    async def run(self) -> int:
        """Do it all; return the exit status."""
        self.failures.hear(asyncio.get_running_loop())
        opened, servers = [], []
        for server, client in *self.versions, self.mutual:
            for upgrade in False, True:
                options = {} if upgrade else {"ssl": server, "ssl_handshake_timeout": 1.0}
                opened.append(
                    await headrace.start_server(
                        self.handler(server if upgrade else None), LOOPBACK, 0, **options
                    )
                )
                servers.append((opened[-1].sockets[0].getsockname(), client, upgrade))
        await self.several(servers, min(WARM_UP, self.options.handshakes))
        before = await self.at_rest(opened)
        known = figures.descriptors()
        self.counts.clear()
        began, cpu = time.monotonic(), time.process_time()
        await self.several(servers, self.options.handshakes)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        after = await self.at_rest(opened)
        left = {
            name: what for name, what in figures.descriptors().items() if known.get(name) != what
        }
        for server in opened:
            server.close()
            await asyncio.wait_for(server.wait_closed(), PATIENCE_S)
        if left:
            self.failures.fail(f"descriptors left open: {left}")
        for what, more, most in (
            ("objects", after.objects - before.objects, MORE_OBJECTS),
            ("memory blocks", after.blocks - before.blocks, MORE_BLOCKS),
            ("resident bytes", after.resident - before.resident, MORE_RESIDENT),
        ):
            if more > most:
                self.failures.fail(f"{more:,} {what} more than before")
        resumed = self.counts.pop("resumed", 0)
        options = self.options
        print(f"handshakes: {options.loop} loop, {options.way} way, seed {options.seed}")
        print(
            f"  {self.counts.total():,} connections in {seconds:.0f} s, "
            f"{cpu / self.counts.total() * 1e6:,.0f} us of CPU each, both sides: "
            + ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common())
            + f"; {resumed:,} resumed"
        )
        print(f"  before: {before}")
        print(
            f"  after:  {after}: {mib(after.resident - before.resident)} resident, "
            f"{after.objects - before.objects:+,} objects, "
            f"{after.blocks - before.blocks:+,} blocks"
        )
        return self.failures.verdict()

    async def at_rest(self, opened: list[Any]) -> Figures:
        """Return the figures once all connections are over: those that nobody speaks on wait for
        their handshake's timeout."""
        for _ in range(100):
            gc.collect()
            if not any(server._h_busy() for server in opened):
                break
            await asyncio.sleep(0.05)
        return await figures.at_rest()


def run(options: Options, factory: Any) -> int:
    """Run ``handshakes``; return the exit status."""
    os.environ[backend.VARIABLE] = options.way
    # Every server logs its first handshake that fails.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(Handshakes(options).run())
