"""What many connections on one event loop cost, and whether anything grows faster than they do.

For each number of connections and each peer a server of its own is started. All connections are
opened; then they rest; then one in a hundred is busy, with the same number of messages in flight
however many connections there are; then the server ends them all.

A peer is what the server is made of, at the loop it runs on:

    serve             headrace.serve(), with a shutdown of no grace at the end
    streams           headrace.start_server(), its tasks cancelled at the end
    asyncio-streams   asyncio.start_server(), likewise
    protocol          a callback protocol, its transports closed at the end
    @headrace, @asyncio, @uvloop
    C                 an epoll server in C, in plain text: what grows there is the system's, and the
                      caches' of the CPU

The columns:

    accept us      the server's CPU time for each connection that comes, its handshake included
    accept s       from the first connect to the last connection that can carry bytes
    RSS, PSS B     memory of the server for each connection, when all of them rest; the kernel's
                   part (its sockets' buffers) is not in it
    idle %         the server's CPU time while all of them rest, in percent of one CPU
    us / message   the server's CPU time for each message of the busy ones
    p50, p99 us    round trips of these, as the clients see them
    full GCs       collections of the oldest generation, and how long all collections took
    end us, end s  CPU time of the server for each connection at the end, and how long that took
    close ms       how long close() of the loop took then

examples:
  python -m benchmarks.scale
      2,000 to 19,000 connections in plain text, four peers: about 4 minutes
  python -m benchmarks.scale --tls --connections 2000,19000 --peers serve@headrace,serve@uvloop
      two numbers of connections in TLS 1.3 (ECDSA P-256)
  python -m benchmarks.scale --connections 100000 --peers protocol@headrace
      where the limits allow it: it says which one to raise where they do not
  python -m benchmarks.scale --busy 20
      as many busy ones for every number of connections: what grows then, grows with the idle ones
  python -m benchmarks.scale --peers all --json scale.json
      every peer, the figures kept
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .build import HERE, BuildError, certificate, programs, scale_load
from .options import names_of, positive
from .process import Child, Pinning, child, cpu_ns, proportional_bytes, resident_bytes, settle
from .scale_server import KINDS, LOOPS

PEERS = ("C", *(f"{kind}@{loop}" for kind in KINDS for loop in LOOPS))
USUAL_PEERS = "C,serve@headrace,asyncio-streams@asyncio,protocol@uvloop"
# What the server and each client need besides the connections.
SPARE_DESCRIPTORS = 200
# Connections of one client process, which all come from one address: it has some 28,000 ports
# (ip_local_port_range), and those of an earlier run are not free at once.
CONNECTIONS_OF_CLIENT = 10_000
# As many come and go first, so that what a server loads only once is not counted.
WARM_UP = 20
BUSY_SHARE = 100
# How much of what a server has said is shown where a client fails.
SHOWN_LINES = 3


class Failed(Exception):
    """There is no figure; the message is for the person at the terminal."""


@dataclass(frozen=True)
class Settings:
    """What all measurements of a run have in common."""

    load: Path
    echo_server: Path
    pinning: Pinning
    certificate: Path | None
    seconds: float
    rest: float
    busy: int | None
    size: int
    in_flight: int
    python: str


@dataclass(frozen=True)
class Figures:
    """One measurement: see the columns."""

    peer: str
    connections: int
    accept_us: float
    accept_s: float
    rss_bytes: float
    pss_bytes: float | None
    idle_percent: float
    message_us: float
    rate: float
    p50_us: float
    p99_us: float
    # What only a server in Python says.
    full_collections: int | None = None
    collections_s: float | None = None
    end_us: float | None = None
    end_s: float | None = None
    close_ms: float | None = None


def check_limits(most: int) -> None:
    """Take all descriptors that this process may have. Raises: Failed where *most* connections do
    not fit into the limits."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = most + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        allowed = int(Path("/proc/sys/fs/nr_open").read_text())
        first = f"`sysctl fs.nr_open={needed}` (it is {allowed}), then " if allowed < needed else ""
        raise Failed(
            f"{most:,} connections take {needed:,} descriptors in one process, and this one may "
            f"have {hard:,}: raise the hard limit of RLIMIT_NOFILE, as root: {first}`ulimit -Hn "
            f"{needed}` in the shell that starts this, or LimitNOFILE={needed} for systemd"
        )
    # Both ends of a connection are on this machine.
    used, _, system = map(int, Path("/proc/sys/fs/file-nr").read_text().split())
    if system - used < 2 * most:
        raise Failed(
            f"{most:,} connections take {2 * most:,} files on this machine, and it has "
            f"{system - used:,} left: raise fs.file-max"
        )


def ask(who: Child, command: str | None = None) -> dict[str, Any]:
    """Send *command*, if any; return the answer. Raises: Failed."""
    if command is not None:
        who.tell(command)
    line = who.read_line()
    if not line:
        raise Failed(who.stderr() or "a process is gone without a word")
    answer: dict[str, Any] = json.loads(line)
    return answer


def warm_up(port: int, tls: bool) -> None:
    """Let a few connections come, speak and go."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        for _ in range(WARM_UP):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            if tls:
                sock = stack.enter_context(context.wrap_socket(sock))
            sock.sendall(b"hello")
            if not sock.recv(5):
                raise Failed("the server closes connections")


def measure(peer: str, connections: int, settings: Settings) -> Iterator[str | Figures]:
    """Measure *peer* with so many connections: yield what is being done, and last the figures.
    Raises: Failed."""
    if peer == "C":
        server_command = [str(settings.echo_server)]
        if settings.certificate is not None:
            raise Failed("it speaks no TLS")
    else:
        server_command = [settings.python, "-W", "ignore", "-m", "benchmarks.scale_server"]
        server_command += [*peer.split("@"), "--connections", str(connections)]
    load_command = [str(settings.load), "--size", str(settings.size)]
    load_command += ["--in-flight", str(settings.in_flight)]
    if settings.certificate is not None:
        server_command += ["--tls", str(settings.certificate)]
        load_command += ["--tls"]
    yield "start"
    with ExitStack() as stack:
        server = stack.enter_context(
            child(server_command, settings.pinning.server, directory=HERE.parent)
        )
        hello = ask(server)
        if "missing" in hello:
            raise Failed(hello["missing"])
        warm_up(hello["port"], settings.certificate is not None)
        clients = []
        count = math.ceil(connections / CONNECTIONS_OF_CLIENT)
        for number in range(count):
            share = connections * (number + 1) // count - connections * number // count
            command = [*load_command, "--port", str(hello["port"]), "--connections", str(share)]
            command += ["--source", f"127.0.0.{number + 2}"]
            if number == 0:
                # All in one process, so that their latencies are of one kind.
                busy_count = settings.busy or max(1, connections // BUSY_SHARE)
                command += ["--busy", str(min(share, busy_count))]
            clients.append(stack.enter_context(child(command, settings.pinning.load)))

        def answer_of(client: Child, order: str | None = None) -> dict[str, Any]:
            try:
                return ask(client, order)
            except Failed as failure:
                said = server.stderr().splitlines()[-SHOWN_LINES:]
                raise Failed("; the server: ".join([str(failure), *said])) from None

        def all_clients(order: str) -> float:
            for each in clients:
                each.tell(order)
            return max(float(answer_of(each)["seconds"]) for each in clients)

        settle(server.pid)
        memory, proportional = resident_bytes(server.pid), proportional_bytes(server.pid)
        cpu = cpu_ns(server.pid)
        yield "open"
        accept_s = all_clients("open")
        settle(server.pid)
        accept_us = (cpu_ns(server.pid) - cpu) / 1e3 / connections

        yield "rest"
        cpu, began = cpu_ns(server.pid), time.monotonic()
        time.sleep(settings.rest)
        idle = (cpu_ns(server.pid) - cpu) / 1e9 / (time.monotonic() - began)
        memory = resident_bytes(server.pid) - memory
        if proportional is not None:
            proportional = (proportional_bytes(server.pid) or 0) - proportional

        yield "busy"
        # First each of the busy ones has its first message, which costs more.
        answer_of(clients[0], f"busy {min(1.0, settings.seconds)}")
        settle(server.pid)
        cpu = cpu_ns(server.pid)
        busy = answer_of(clients[0], f"busy {settings.seconds}")
        settle(server.pid)
        message_us = (cpu_ns(server.pid) - cpu) / 1e3 / busy["messages"]

        yield "end"
        of_the_end: dict[str, Any] = {}
        if peer != "C":
            collected = ask(server, "figures")
            server.tell("end")
            all_clients("end")
            ended, closed = ask(server), ask(server)
            of_the_end = {
                "full_collections": collected["collections"][2],
                "collections_s": sum(collected["seconds"]),
                "end_us": ended["cpu"] * 1e6 / connections,
                "end_s": ended["seconds"],
                "close_ms": closed["close_seconds"] * 1e3,
            }
    yield Figures(
        peer=peer,
        connections=connections,
        accept_us=accept_us,
        accept_s=accept_s,
        rss_bytes=memory / connections,
        pss_bytes=None if proportional is None else proportional / connections,
        idle_percent=idle * 100,
        message_us=message_us,
        rate=busy["messages"] / busy["seconds"],
        p50_us=busy["p50_us"],
        p99_us=busy["p99_us"],
        **of_the_end,
    )


COLUMNS = (
    ("accept us", "accept_us", ".0f"),
    ("accept s", "accept_s", ".1f"),
    ("RSS B", "rss_bytes", ",.0f"),
    ("PSS B", "pss_bytes", ",.0f"),
    ("idle %", "idle_percent", ".2f"),
    ("us / message", "message_us", ".2f"),
    ("p50 us", "p50_us", ",.0f"),
    ("p99 us", "p99_us", ",.0f"),
    ("full GCs", "full_collections", ".0f"),
    ("GC s", "collections_s", ".2f"),
    ("end us", "end_us", ".0f"),
    ("end s", "end_s", ".2f"),
    ("close ms", "close_ms", ".1f"),
)
# How much these have grown from the fewest connections to the most says whether anything grows
# faster than the work: 1 is as it should be.
GROWTHS = ("accept_us", "rss_bytes", "pss_bytes", "message_us", "p50_us", "p99_us", "end_us")


def middle(samples: Sequence[Figures], name: str) -> float | None:
    """Return the median of a figure over the rounds."""
    values = [getattr(each, name) for each in samples]
    known = [each for each in values if each is not None]
    return statistics.median(known) if known else None


def table_of(peer: str, by_count: dict[int, list[Figures]]) -> Table:
    """Return the table of one peer."""
    table = Table(title=peer, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("connections", justify="right", no_wrap=True)
    for heading, *_ in COLUMNS:
        table.add_column(heading, justify="right")
    for count, samples in sorted(by_count.items()):
        cells = []
        for _, name, form in COLUMNS:
            value = middle(samples, name)
            cells.append("-" if value is None else format(value, form))
        table.add_row(f"{count:,}", *cells)
    if len(by_count) > 1:
        few, many = by_count[min(by_count)], by_count[max(by_count)]
        growths = []
        for _, name, _ in COLUMNS:
            before, after = middle(few, name), middle(many, name)
            known = name in GROWTHS and before and after
            growths.append(f"x {after / before:.2f}" if known and before and after else "")
        table.add_row("growth", *growths, style="bold")
    return table


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def counts(text: str) -> list[int]:
        return [int(positive(int)(each)) for each in text.split(",")]

    add = found.add_argument
    add(
        "--connections",
        type=counts,
        default="2000,5000,10000,19000",
        metavar="N,M",
        help="how many (2000,5000,10000,19000)",
    )
    peers = names_of(PEERS, {"all": PEERS})
    add("--peers", type=peers, default=USUAL_PEERS, metavar="A,B", help=f"({USUAL_PEERS}), or all")
    add("--tls", action="store_true", help="in TLS 1.3, with an ECDSA key")
    add("--rounds", type=positive(int), default=1, metavar="N", help="median of N (1)")
    add("--seconds", type=positive(float), default=3.0, metavar="T", help="of the busy ones (3)")
    add("--rest", type=positive(float), default=6.0, metavar="T", help="in which all rest (6)")
    add("--busy", type=positive(int), metavar="N", help="busy connections (one in a hundred)")
    add("--size", type=positive(int), default=1024, metavar="B", help="of a message (1024)")
    add("--in-flight", type=positive(int), default=20, metavar="N", help="messages (20)")
    add("--python", default=sys.executable, metavar="EXE", help="interpreter of the servers")
    add("--json", type=Path, metavar="FILE", help="write all samples")
    return found


def run(options: argparse.Namespace, settings: Settings, console: Console) -> list[Figures]:
    """Measure everything that *options* name, and say what is going on."""
    samples: list[Figures] = []
    missing: dict[str, str] = {}
    with console.status("") as status:
        for number in range(int(options.rounds)):
            for connections in options.connections:
                turn = number % len(options.peers)
                for peer in options.peers[turn:] + options.peers[:turn]:
                    what = f"round {number + 1}, {connections:,} connections, {peer}"
                    if peer in missing:
                        continue
                    try:
                        for told in measure(peer, connections, settings):
                            if isinstance(told, str):
                                status.update(f"{what}: {told}")
                            else:
                                samples.append(told)
                                console.print(
                                    f"{what}: {told.message_us:.2f} us a message, "
                                    f"{told.rss_bytes:,.0f} B a connection",
                                    highlight=False,
                                )
                    except Failed as failure:
                        missing[peer] = f"{connections:,} connections: {failure}"
                        console.print(f"{what}: {failure}", highlight=False, markup=False)
    for peer in options.peers:
        by_count: dict[int, list[Figures]] = {}
        for each in samples:
            if each.peer == peer:
                by_count.setdefault(each.connections, []).append(each)
        if by_count:
            console.print(table_of(peer, by_count))
    for peer, reason in missing.items():
        console.print(f"{peer} is missing: {reason}", highlight=False, markup=False)
    return samples


def main() -> int:
    """Run, as the command line says; return the exit status."""
    options = parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    path = None
    try:
        check_limits(max(options.connections))
        load, speaks_tls = scale_load()
        if options.tls and not speaks_tls:
            raise BuildError("TLS needs OpenSSL's headers (libssl-dev)")
        path = certificate(elliptic=True) if options.tls else None
        pinning = Pinning.choose()
        console.print(f"{pinning}; {options.python}; {os.uname().release}", highlight=False)
        settings = Settings(
            load=load,
            echo_server=programs().echo_server,
            pinning=pinning,
            certificate=path,
            seconds=options.seconds,
            rest=options.rest,
            busy=None if options.busy is None else int(options.busy),
            size=int(options.size),
            in_flight=int(options.in_flight),
            python=options.python,
        )
        samples = run(options, settings, console)
    except (BuildError, Failed) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in samples], indent=1) + "\n")
    return 0 if samples else 1


if __name__ == "__main__":
    sys.exit(main())
