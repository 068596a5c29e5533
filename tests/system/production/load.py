"""Steady load on the service: clients that connect, ask, and go, and what they have seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import headrace
from tests.system.production.service import PAYLOAD

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 20.0


class Service:
    """The service in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []
        self.port = 0
        self.processes: list[int] = []

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def listen(self) -> None:
        """Take what it prints."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(json.loads(line))


@contextlib.asynccontextmanager
async def service(loop: str, **options: Any) -> AsyncIterator[Service]:
    """The service, with *options*: "serve" has the arguments of headrace.serve(). It is killed in
    the end where it is still there."""
    command = [
        sys.executable,
        "-m",
        "tests.system.production.service",
        json.dumps({"loop": loop, **options}),
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    known = Service(process)
    try:
        assert process.stdout is not None
        first = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
        known.port, known.processes = first["port"], first["processes"]
        listening = asyncio.ensure_future(known.listen())
        yield known
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_S)
        await listening
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Load:
    """Clients in a loop. Whatever is not as it has to be is a failure, with its first words."""

    def __init__(
        self,
        port: int,
        clients: int,
        requests: int = 5,
        size: int = 2000,
        pause: float = 0.002,
        ssl: Any = None,
    ) -> None:
        self.port = port
        self.clients = clients
        self.requests = requests
        self.size = size
        self.pause = pause
        self.ssl = ssl
        self.answered = 0
        self.connections = 0
        self.told_last = 0
        self.acknowledged: list[int] = []
        self.failures: Counter[str] = Counter()
        self.by_process: Counter[int] = Counter()
        self.certificates: Counter[str] = Counter()
        self.latencies: list[float] = []
        # From before a connection was made to its first answer.
        self.first_answers: list[float] = []
        self.rng = random.Random(1)
        self.number = 0
        self.stopping = False
        self.refused_is_the_end = False
        self.busy: dict[int, set[int]] = {}

    async def client(self) -> None:
        """Connect, ask, and go, over and over."""
        while not self.stopping:
            try:
                await self.connection()
            except ConnectionRefusedError:
                if self.refused_is_the_end:
                    return
                self.failures["refused"] += 1
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.failures[f"{type(error).__name__}: {error}"[:80]] += 1
                await asyncio.sleep(0.01)

    async def connection(self) -> None:
        """One connection with some requests."""
        name = None if self.ssl is None else "localhost"
        dialled = time.perf_counter()
        reader, writer = await asyncio.wait_for(
            headrace.open_connection("127.0.0.1", self.port, ssl=self.ssl, server_hostname=name),
            PATIENCE_S,
        )
        self.connections += 1
        if self.ssl is not None:
            self.certificates[str(writer.get_extra_info("peercert")["serialNumber"])] += 1
        try:
            for turn in range(self.requests):
                if self.stopping:
                    break
                self.number += 1
                number = self.number
                began = time.perf_counter()
                writer.write(b"%d %d\n" % (number, self.size))
                line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                if not line.endswith(b"\n"):
                    raise EOFError("closed without an answer" if not line else "half an answer")
                told, process, _, more = line.split()
                payload = await asyncio.wait_for(reader.readexactly(self.size), PATIENCE_S)
                if int(told) != number or payload != PAYLOAD[: self.size]:
                    raise ValueError("a wrong answer")
                self.latencies.append(time.perf_counter() - began)
                if turn == 0:
                    self.first_answers.append(time.perf_counter() - dialled)
                self.answered += 1
                self.acknowledged.append(number)
                self.by_process[int(process)] += 1
                if more == b"last":
                    self.told_last += 1
                    break
                await asyncio.sleep(self.pause * 2 * self.rng.random())
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), PATIENCE_S)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """The load goes on in the block."""
        tasks = [asyncio.ensure_future(self.client()) for _ in range(self.clients)]
        try:
            yield
        finally:
            self.stopping = True
            await asyncio.gather(*tasks)

    def failed(self) -> str:
        """Return the failures in words."""
        return (
            ", ".join(f"{count} x {what}" for what, count in self.failures.most_common()) or "none"
        )


def quantile(values: list[float], share: float) -> float:
    """Return the value that *share* of *values* are not above, in milliseconds."""
    return (
        sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3
        if values
        else float("nan")
    )


def words(values: list[float]) -> str:
    """Return latencies in words."""
    return (
        f"p50 {quantile(values, 0.5):.2f} ms, p99 {quantile(values, 0.99):.2f} ms, "
        f"most {quantile(values, 1):.1f} ms"
    )
