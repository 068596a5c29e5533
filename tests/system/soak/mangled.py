"""mangled: TLS from peers whose records are damaged on their way: what was said before the damage
arrives, and then there is an error.

The peer is Python's ssl module over memory. Its records are flipped, dropped, doubled, swapped,
cut, or get extra bytes, in the handshake or behind it. They are sent in pieces of any size."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import headrace
from tests.support.certificates import HOST, Tls
from tests.system.soak import figures
from tests.system.soak.ledger import Failures

LOOPBACK = "127.0.0.1"
DAMAGES = ("none", "flip", "drop", "double", "swap", "cut", "insert")
ENDS = ("goodbye", "fin", "reset")
LINGER_NONE = struct.pack("ii", 1, 0)
# How a connection may end for the handler: TLS found the damage, the connection broke, or the
# stream ended early.
ERRORS = (OSError, asyncio.IncompleteReadError)
PATIENCE_S = 10.0
# How long a peer waits for an answer to something damaged.
WAITING_S = 0.05
TICK_S = 5.0


@dataclass
class Options:
    """What the command line says."""

    seconds: float
    seed: int
    loop: str
    way: str
    only: int | None = None


class Case:
    """One connection: what its peer says, and how that is damaged. All of it follows from the seed
    and the number."""

    def __init__(self, tls: Tls, seed: int, number: int) -> None:
        self.name = f"{seed}:{number}"
        rng = self.rng = random.Random(self.name)
        version = rng.choice((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3))
        self.server, self.client = tls.contexts(version)
        self.text = rng.randbytes(rng.choice((0, 1, 1000, 20_000, 200_000)))
        self.damage = rng.choice(DAMAGES)
        self.end = rng.choice(ENDS)
        self.limit = rng.choice((100, 5000, 65536, 200_000))
        # Which of the peer's records it is; the first are the handshake's.
        self.at = rng.randrange(rng.choice((4, 40)))
        self.seen = 0
        # How much of the text the peer came to say.
        self.said = 0
        # How much of it left before the damage, or nothing where there was none yet.
        self.left = 0
        self.safe: int | None = None
        self.got = b""
        self.ended: BaseException | None = None
        # Set but while the handler runs, which may be longer than the connection.
        self.handled = asyncio.Event()
        self.handled.set()

    def damaged(self, records: list[bytes], sizes: list[int]) -> list[bytes]:
        """Return *records*, which are sent next and bring *sizes* of the text, with the damage in
        it if it is their turn."""
        at = self.at - self.seen
        self.seen += len(records)
        if self.damage == "none" or not 0 <= at < len(records):
            self.left += sum(sizes)
            return records
        self.safe = self.left + sum(sizes[:at])
        rng = self.rng
        record = bytearray(records[at])
        if self.damage == "flip":
            record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
        elif self.damage == "cut":
            del record[rng.randrange(len(record)) :]
        elif self.damage == "insert":
            place = rng.randrange(len(record))
            record[place:place] = rng.randbytes(rng.randint(1, 50))
        changed = [bytes(record)]
        if self.damage == "drop":
            changed = []
        elif self.damage == "double":
            changed *= 2
        elif self.damage == "swap":
            return [*records[:at], *records[at + 1 : at + 2], *changed, *records[at + 2 :]]
        return [*records[:at], *changed, *records[at + 1 :]]

    async def peer(self, address: tuple[str, int]) -> None:
        """Speak to the server at *address*."""
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = self.client.wrap_bio(incoming, outgoing, False, HOST)
        sock = socket.create_connection(address)
        sock.setblocking(False)

        async def run(call: Callable[..., Any], *arguments: Any) -> None:
            while True:
                try:
                    call(*arguments)
                except ssl.SSLWantReadError:
                    await self.send(loop, sock, outgoing.read())
                    async with asyncio.timeout(PATIENCE_S if self.damage == "none" else WAITING_S):
                        received = await loop.sock_recv(sock, 65536)
                    if not received:
                        raise ConnectionResetError("the server has ended it") from None
                    incoming.write(received)
                else:
                    await self.send(loop, sock, outgoing.read())
                    return

        with sock, contextlib.suppress(*ERRORS):
            # Each side may wait for the rest of what was damaged.
            with contextlib.suppress(TimeoutError):
                await run(session.do_handshake)
                while self.said < len(self.text):
                    sizes = []
                    for _ in range(self.rng.choice((1, 1, 20))):
                        if self.said < len(self.text):
                            piece = self.text[
                                self.said : self.said + self.rng.choice((1, 100, 5000, 16384))
                            ]
                            sizes.append(session.write(piece))
                            self.said += sizes[-1]
                    await self.send(loop, sock, outgoing.read(), sizes)
            if self.end == "goodbye":
                with contextlib.suppress(ssl.SSLError):
                    session.unwrap()
                await self.send(loop, sock, outgoing.read())
            if self.end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            else:
                sock.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(sock, 65536):
                    pass

    async def send(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        data: bytes,
        sizes: list[int] | None = None,
    ) -> None:
        """Send *data*, some of the session's records, which bring *sizes* of the text, with the
        damage and in pieces."""
        records = []
        while data:
            size = 5 + int.from_bytes(data[3:5], "big")
            records.append(data[:size])
            data = data[size:]
        data = b"".join(self.damaged(records, sizes or []))
        largest = (
            self.rng.choice((1, 100, 20_000, 300_000))
            if len(data) < 3000
            else self.rng.choice((3000, 300_000))
        )
        while data:
            size = self.rng.randint(1, largest)
            await loop.sock_sendall(sock, data[:size])
            data = data[size:]
            if self.rng.random() < 0.2:
                await asyncio.sleep(0)

    def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Coroutine[Any, Any, None]:
        """Be the server's callback: the handler may begin when the connection is over already."""
        self.handled.clear()
        return self.handle(reader, writer)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read to the end, in whatever way."""
        parts = []
        try:
            while True:
                kind = self.rng.randrange(3)
                if kind == 0:
                    part = await reader.readexactly(self.rng.choice((1, 3000, 70_000)))
                elif kind == 1:
                    part = await reader.read(self.rng.choice((1, 1000, 100_000)))
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.001):
                            parts.append(await reader.readexactly(2000))
                    continue
                if not part:
                    break
                parts.append(part)
        except asyncio.IncompleteReadError as error:
            parts.append(error.partial)
        except ERRORS as error:
            self.ended = error
            with contextlib.suppress(*ERRORS):  # what came before it
                while part := await reader.read(1 << 20):
                    parts.append(part)
        self.got = b"".join(parts)
        writer.close()
        with contextlib.suppress(*ERRORS):
            await writer.wait_closed()
        self.handled.set()

    def judge(self, failures: Failures) -> None:
        """Say what is wrong with what the handler has seen."""
        what = f"case {self.name} ({self.damage} of record {self.at}, {self.end})"
        if self.got != self.text[: len(self.got)]:
            failures.fail(f"{what}: what was read is not what was said")
        if self.safe is not None and self.end != "reset" and len(self.got) < self.safe:
            failures.fail(
                f"{what}: {len(self.got)} bytes were read, and {self.safe} came before the damage"
            )
        whole = self.damage == "none" or self.at >= self.seen
        if (
            whole
            and self.said == len(self.text)
            and self.end != "reset"
            and (self.got != self.text or self.ended is not None)
        ):
            failures.fail(
                f"{what}: {len(self.got)} of {len(self.text)} bytes, {self.ended!r}, though "
                "nothing was damaged"
            )


async def one(
    tls: Tls, options: Options, number: int, failures: Failures, counts: Counter[str]
) -> None:
    """Play case *number*."""
    case = Case(tls, options.seed, number)
    server = await headrace.start_server(
        case.accept, LOOPBACK, 0, ssl=case.server, limit=case.limit, way=options.way
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await case.peer(server.sockets[0].getsockname())
            server.close()
            await server.wait_closed()
            await case.handled.wait()
    except TimeoutError:
        failures.fail(
            f"case {case.name} hangs ({case.damage} of record {case.at}, {case.end}; read "
            f"{len(case.got)} of {len(case.text)})"
        )
        server.close()
        server.abort_clients()
    case.judge(failures)
    counts[case.damage] += 1


async def run_all(options: Options, failures: Failures) -> Counter[str]:
    """Play one case after another until the time is over."""
    failures.hear(asyncio.get_running_loop())
    tls = Tls()
    counts: Counter[str] = Counter()
    await one(
        tls, options, -1, failures, Counter()
    )  # libuv opens a descriptor of its own with the first, for good
    before = figures.descriptors()
    began = said = time.monotonic()
    number = 0
    while time.monotonic() - began < options.seconds and not failures.failed:
        await one(tls, options, number if options.only is None else options.only, failures, counts)
        number += 1
        if time.monotonic() - said > TICK_S:
            said = time.monotonic()
            print(
                f"  {said - began:4.0f} s  {number:,} cases; {failures.failed} failures",
                file=sys.stderr,
                flush=True,
            )
    await asyncio.sleep(0.05)
    left = {name: what for name, what in figures.descriptors().items() if before.get(name) != what}
    if left:
        failures.fail(f"descriptors left open: {left}")
    return counts


def run(options: Options, factory: Any) -> int:
    """Run; print the summary, and return the exit status."""
    failures = Failures()
    # Every server would log its first handshake that fails.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=factory) as runner:
        counts = runner.run(run_all(options, failures))
    print(f"mangled: {options.loop} loop, {options.way} way, seed {options.seed}")
    print(
        f"  {sum(counts.values()):,} cases: "
        + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    )
    print(f"  failures: {failures.failed}", "FAILED" if failures.failed else "ok", sep="\n")
    return 1 if failures.failed else 0
