"""Pump known bytes both ways over several connections at once, and check each of them: `exchange.py
LOOP FAMILY [PROCESSES [SEND_BUFFER]]`.

LOOP is asyncio or uvloop; FAMILY inet, unix, or tls for inet with start_tls(); PROCESSES 1, or 2
for clients in a process of their own. SEND_BUFFER is what the system keeps of what was written, in
bytes (SO_SNDBUF); a small one makes every send a short one. Each connection first answers lines,
one at a time. Then both ends write pieces of many sizes, drain now and then, and close their halves
at different times. Meanwhile they read in every way that a reader has. Whatever the system does,
every byte has to arrive, once, and then the end."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
import ssl
import sys
import tempfile
from typing import Any

import child

import headrace

CLIENTS = 4
LINES = 8
UP_BYTES, DOWN_BYTES = 250_000, 400_000
# Around what makes a difference: nothing, a few bytes, a segment, the water marks, more than the
# system takes at once.
SIZES = [1, 2, 60, 700, 1500, 4096, 17_000, 65_535, 65_536, 150_000]


class Tls:
    """The contexts of both sides, each of which knows the other; not tests/support/certificates.py,
    which takes pytest with it."""

    def __init__(self) -> None:
        import trustme

        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.server)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client)


@functools.cache
def content(direction: str, index: int, size: int) -> bytes:
    """Return what is sent: the same in both processes, and such that no two places look alike."""
    return random.Random(f"{direction}{index}").randbytes(size - 2) + b"\n\n"


async def pump(writer: Any, data: bytes, chance: random.Random) -> None:
    """Write *data* in pieces, then the end."""
    at = 0
    while at < len(data):
        if chance.random() < 0.25:
            pieces = []
            for _ in range(chance.randrange(2, 90)):
                pieces.append(data[at : at + chance.choice(SIZES[:6])])
                at += len(pieces[-1])
            writer.writelines(pieces)
        else:
            piece = data[at : at + chance.choice(SIZES)]
            at += len(piece)
            writer.write(piece)
        if chance.random() < 0.6:
            await writer.drain()
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def check(reader: Any, data: bytes, chance: random.Random, ends: bool) -> None:
    """Read *data*, in every way there is; only where the input *ends* behind it may a read ask for
    more."""
    at = 0
    while at < len(data):
        kind = chance.randrange(5)
        if not ends and len(data) - at < 3:
            kind = 1
        if kind == 0:
            got = await reader.read(chance.choice([1, 100, 5000, 65_536, 300_000]))
            assert got
        elif kind == 1:
            wanted = chance.choice([1, 60, 5000, 65_536, 120_000])
            if not ends:
                wanted = min(wanted, len(data) - at)
            try:
                got = await reader.readexactly(wanted)
                assert len(got) == wanted
            except asyncio.IncompleteReadError as error:
                got = error.partial
                assert at + len(got) == len(data)
        elif kind == 2:
            got = await reader.readline()
            assert got.find(b"\n") == len(got) - 1 or at + len(got) == len(data)
        elif kind == 3:
            try:
                got = await reader.readuntil(b"\n\n")
                assert got.find(b"\n\n") == len(got) - 2
            except asyncio.IncompleteReadError as error:
                got = error.partial
                assert at + len(got) == len(data)
            except asyncio.LimitOverrunError as error:
                got = await reader.readexactly(error.consumed)
        else:
            await asyncio.sleep(0)
            continue
        assert got == data[at : at + len(got)], f"wrong bytes at {at} of {len(data)}: {got[:20]!r}"
        at += len(got)


async def check_end(reader: Any, writer: Any) -> None:
    """Close the connection; before that, or with TLS behind it, comes the end of what is read."""
    if not writer.can_write_eof():
        writer.close()
    assert await reader.read() == b""
    assert reader.at_eof()
    writer.close()
    await writer.wait_closed()


def narrow(writer: Any, send_buffer: int) -> None:
    if send_buffer:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)


async def serve(reader: Any, writer: Any, send_buffer: int, tls: Tls | None) -> None:
    """A server's side of a connection, whose first line says which it is."""
    narrow(writer, send_buffer)
    index = int(await reader.readline())
    for _ in range(LINES):
        writer.write(await reader.readline())
        await writer.drain()
    if tls is not None:
        await writer.start_tls(tls.server)
    await asyncio.gather(
        check(reader, content("up", index, UP_BYTES), random.Random(index), ends=tls is None),
        pump(writer, content("down", index, DOWN_BYTES), random.Random(index + 1000)),
    )
    await check_end(reader, writer)


async def connect(address: Any, index: int, send_buffer: int, tls: Tls | None) -> None:
    """A client's side."""
    if isinstance(address, str):
        reader, writer = await headrace.open_unix_connection(address, way="native")
    else:
        reader, writer = await headrace.open_connection(*address, way="native")
    narrow(writer, send_buffer)
    writer.write(b"%d\n" % index)
    for each in range(LINES):
        writer.write(line := b"line %d\n" % each)
        assert await reader.readline() == line
    if tls is not None:
        await writer.start_tls(tls.client, server_hostname="localhost")
    await asyncio.gather(
        pump(writer, content("up", index, UP_BYTES), random.Random(index + 2000)),
        check(
            reader,
            content("down", index, DOWN_BYTES),
            random.Random(index + 3000),
            ends=tls is None,
        ),
    )
    await check_end(reader, writer)


async def clients(address: Any, send_buffer: int, tls: Tls | None) -> None:
    await asyncio.gather(*[connect(address, index, send_buffer, tls) for index in range(CLIENTS)])


async def server(sock: socket.socket, send_buffer: int, tls: Tls | None, then: Any = None) -> None:
    """Serve on *sock* until CLIENTS connections were served, then leave; meanwhile run then()."""
    served: list[asyncio.Task[None]] = []

    async def connected(reader: Any, writer: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        await serve(reader, writer, send_buffer, tls)

    start = headrace.start_unix_server if sock.family == socket.AF_UNIX else headrace.start_server
    listening = await start(connected, sock=sock, way="native")
    if then is not None:
        await then()
    while len(served) < CLIENTS:
        await asyncio.sleep(0.001)
    await asyncio.gather(*served)
    listening.close()
    await listening.wait_closed()


def main(kind: str, family: str, processes: str = "1", send_buffer: str = "0") -> None:
    """Pump the bytes, with the command line's arguments, and print the facts at the end."""
    how = (int(send_buffer), Tls() if family == "tls" else None)
    with tempfile.TemporaryDirectory() as directory:
        sock = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
        sock.bind(f"{directory}/socket" if family == "unix" else ("127.0.0.1", 0))
        sock.listen()
        address = sock.getsockname()
        pid = os.fork() if processes == "2" else None
        if pid == 0:
            sock.close()
            child.run(kind, lambda: clients(address, *how))
            os._exit(0)
        child.run(kind, lambda: server(sock, *how, None if pid else lambda: clients(address, *how)))
        if pid is not None:
            assert os.waitpid(pid, 0)[1] == 0, "the clients' process has failed"
    child.say(
        calls={name: child.calls(name) for name in NAMES},
        faults={name: child.faults(name) for name in NAMES},
    )


NAMES = ["recv", "send", "sendmsg", "accept4", "epoll_wait"]

if __name__ == "__main__":
    main(*sys.argv[1:])
