"""The scenes: each is a function that returns how it went, and whether that is well."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme

from tests.system.production.haproxy import haproxy
from tests.system.production.load import Load, service, words

# Of a request in ``cores``: so long that the clients' own part, some 50 us, does not matter.
WORK_S = 0.002


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"  {text}", file=sys.stderr, flush=True)


async def rolling(options: argparse.Namespace) -> tuple[list[str], bool]:
    """Replace the workers under steady load, over and over: no request may fail."""
    serve: dict[str, Any] = {"workers": options.workers, "grace": 10.0}
    if options.haproxy:
        serve["proxies"] = ["127.0.0.1"]
    async with service(options.loop, serve=serve) as server, contextlib.AsyncExitStack() as stack:
        port = server.port
        if options.haproxy:
            port = await stack.enter_async_context(haproxy(server.port))
        load = Load(port, options.clients)
        began = time.monotonic()
        async with load.going_on():
            restarts = 0
            while time.monotonic() - began < options.seconds:
                await asyncio.sleep(options.every)
                known = len(load.by_process)
                server.signal(signal.SIGHUP)
                restarts += 1
                until = time.monotonic() + 30
                while len(load.by_process) < known + options.workers and time.monotonic() < until:
                    await asyncio.sleep(0.05)
                say(f"{restarts} restarts, {load.answered:,} answers, failures: {load.failed()}")
        seconds = time.monotonic() - began
    report = [
        f"{restarts} rolling restarts of {options.workers} workers in {seconds:.0f} s, "
        f"{'behind HAProxy, ' if options.haproxy else ''}"
        f"{options.clients} clients",
        f"{load.answered:,} requests answered on {load.connections:,} connections by "
        f"{len(load.by_process)} processes; "
        f"{load.told_last:,} connections were told to come again",
        f"latency {words(load.latencies)}",
        f"failed requests: {load.failed()}",
    ]
    return report, not load.failures and len(load.by_process) >= options.workers * (restarts + 1)


async def kill(options: argparse.Namespace) -> tuple[list[str], bool]:
    """Kill a worker under load: what it had open breaks, nobody else waits, and another takes its
    place."""
    async with service(options.loop, serve={"workers": options.workers}) as server:
        load = Load(server.port, options.clients)
        async with load.going_on():
            kills, gaps = 0, []
            began = time.monotonic()
            while time.monotonic() - began < options.seconds:
                await asyncio.sleep(options.every)
                newest = list(load.by_process)[-1]
                known = len(load.by_process)
                os.kill(newest, signal.SIGKILL)
                kills += 1
                killed = time.monotonic()
                while len(load.by_process) == known and time.monotonic() - killed < 30:
                    await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - killed)
                say(
                    f"{kills} kills, {load.answered:,} answers, the next answered after "
                    f"{gaps[-1]:.2f} s; failures: {load.failed()}"
                )
    failed = sum(load.failures.values())
    report = [
        f"{kills} workers of {options.workers} killed (SIGKILL) under the load of "
        f"{options.clients} clients",
        f"{load.answered:,} requests answered on {load.connections:,} connections by "
        f"{len(load.by_process)} processes",
        "the longest wait of a new connection, until its first answer: "
        f"{max(load.first_answers):.3f} s",
        f"a new worker answered after {min(gaps):.2f} to {max(gaps):.2f} s; latency "
        f"{words(load.latencies)}",
        f"failed requests: {load.failed()}: at most one for each client and kill, for it was on "
        f"its way ({options.clients * kills})",
    ]
    refused = load.failures["refused"]
    good = (
        failed <= options.clients * kills
        and not refused
        and max(gaps) < 20
        and max(load.first_answers) < options.longest
    )
    return report, good


async def loris(options: argparse.Namespace) -> tuple[list[str], bool]:
    """Thousands of connections that send a byte now and then, and an honest client beside them."""
    # Of the loris' own process, which holds as many as the server.
    bounds = {
        "first_byte_timeout": 5.0,
        "minimum_rate": 20.0,
        "idle_timeout": 15.0,
        "max_connections": options.connections + 500,
    }
    async with service(options.loop, serve=bounds, statistics=True) as server:
        honest = Load(server.port, 1, requests=1000)
        async with honest.going_on():
            await asyncio.sleep(options.seconds / 4)
        alone = honest.latencies
        sockets: list[socket.socket] = []
        for _ in range(options.connections):
            sock = socket.socket()
            sock.connect(("127.0.0.1", server.port))
            sock.setblocking(False)
            sockets.append(sock)
        say(f"{len(sockets):,} connections are open")
        honest = Load(server.port, 1, requests=1000)
        held = len(sockets)
        began = time.monotonic()
        async with honest.going_on():
            while time.monotonic() - began < max(options.seconds, 30):
                # A byte each, spread over a second and a half.
                for start in range(0, len(sockets), 100):
                    for sock in sockets[start : start + 100]:
                        with contextlib.suppress(OSError):
                            sock.send(b"1")
                    await asyncio.sleep(1.5 / max(1, len(sockets) / 100))
                held = server.told[-1]["open"] if server.told else held
                say(
                    f"{time.monotonic() - began:.0f} s: {held:,} connections open, "
                    f"{honest.answered:,} honest answers"
                )
                if held <= 1:
                    break
        took = time.monotonic() - began
        ended = server.told[-1]["ended"]
        for sock in sockets:
            sock.close()
    report = [
        f"{options.connections:,} connections sent a byte every 1.5 s each; the server asks for 20 "
        "bytes/s of a message that has begun",
        f"all but {max(0, held - 1):,} of them were ended within {took:.0f} s ({ended})",
        f"the honest client: alone {words(alone)}; meanwhile {words(honest.latencies)}; failures: "
        f"{honest.failed()}",
    ]
    return report, held <= 1 and not honest.failures


async def drain(options: argparse.Namespace) -> tuple[list[str], bool]:
    """SIGTERM under load: what was acknowledged has arrived, nothing is half answered, and it takes
    no longer than the grace."""
    good, report = True, []
    for _ in range(max(1, round(options.seconds / 5))):
        with tempfile.NamedTemporaryFile() as ledger:
            async with service(options.loop, serve={"grace": 5.0}, ledger=ledger.name) as server:
                load = Load(server.port, options.clients, requests=1000, size=20_000)
                load.refused_is_the_end = True
                async with load.going_on():
                    await asyncio.sleep(1.5)
                    began = time.monotonic()
                    server.signal(signal.SIGTERM)
                    await server.process.wait()
                    took = time.monotonic() - began
            arrived = {int(line) for line in Path(ledger.name).read_text().split()}
        lost = set(load.acknowledged) - arrived
        unanswered = len(arrived) - len(load.acknowledged)
        report.append(
            f"{load.answered:,} requests acknowledged, {len(lost)} of them lost, {unanswered} "
            "arrived without an answer; "
            f"{load.told_last} of {options.clients} clients were told; it took {took:.2f} s of 5; "
            f"failures: {load.failed()}; "
            f"{server.told[-1]['report']}"
        )
        say(report[-1])
        good = good and not lost and not unanswered and not load.failures and took < 5.5
    return report, good


async def renew(options: argparse.Namespace) -> tuple[list[str], bool]:
    """New certificates under load: no connection is refused or dropped."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")

        def write() -> None:
            issued = authority.issue_cert("localhost")
            new = path.with_suffix(".new")
            issued.private_key_and_cert_chain_pem.write_to_path(str(new))
            new.replace(path)

        write()
        async with service(options.loop, serve={}, certificate=str(path)) as server:
            load = Load(server.port, options.clients, ssl=context)
            renewals = 0
            began = time.monotonic()
            async with load.going_on():
                while time.monotonic() - began < options.seconds:
                    await asyncio.sleep(options.every)
                    write()
                    server.signal(signal.SIGHUP)
                    renewals += 1
                    say(
                        f"{renewals} renewals, {load.answered:,} answers, failures: {load.failed()}"
                    )
                await asyncio.sleep(0.5)
    report = [
        f"{renewals} renewals of the certificate under the load of {options.clients} clients",
        f"{load.answered:,} requests answered on {load.connections:,} connections with "
        f"{len(load.certificates)} certificates",
        f"latency {words(load.latencies)}; failed requests: {load.failed()}",
    ]
    return report, not load.failures and len(load.certificates) == renewals + 1


async def cores(options: argparse.Namespace) -> tuple[list[str], bool]:
    """One worker, then several, in turns: what a core more is worth where a request is work for the
    server, and not for the load."""
    rates: dict[int, list[float]] = {1: [], options.workers: []}
    client = 0.0
    for _ in range(3):
        for workers in rates:
            async with service(options.loop, serve={"workers": workers}, work=WORK_S) as server:
                load = Load(server.port, options.clients, requests=1_000_000, size=100, pause=0)
                async with load.going_on():
                    await asyncio.sleep(0.5)
                    began, answered, cpu = time.monotonic(), load.answered, time.process_time()
                    await asyncio.sleep(options.seconds / 6)
                    seconds = time.monotonic() - began
                    rates[workers].append((load.answered - answered) / seconds)
                    client = (time.process_time() - cpu) / seconds
            say(f"{workers} workers: {rates[workers][-1]:,.0f} requests/s")
    one, several = (statistics.median(rates[workers]) for workers in (1, options.workers))
    report = [
        f"requests of {WORK_S * 1e3:.0f} ms of the processor each, {options.clients} clients, "
        f"{os.cpu_count()} processors, medians of 3",
        f"1 worker: {one:,.0f} requests/s; {options.workers} workers: {several:,.0f}; "
        f"{several / one:.2f} times as many",
        f"the load, on the same processors, took {client:.0%} of one at the end, and the workers "
        "the rest",
    ]
    return report, several >= 0.9 * options.workers * one


SCENES = {
    "rolling": rolling,
    "kill": kill,
    "loris": loris,
    "drain": drain,
    "renew": renew,
    "cores": cores,
}
