"""Written bytes, and surely drained ones, belong to the system: whatever the process does next, and
whatever else writes there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from conftest import LOOP_KINDS, WAYS
from support.wires import segments_received, sends_at_once, stepping

from headrace._transport import backend

LINES = b"one\ntwo\nthree\n"


@contextlib.asynccontextmanager
async def _served(streams, handler, family):
    """Serve one connection by *handler*, which returns what the test waits for; give its client, a
    socket, and that future."""
    outcome = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        try:
            outcome.set_result(await handler(reader, writer))
        except BaseException as error:
            outcome.set_exception(error)
        writer.close()

    if family == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(b"\0headrace-writes-%d-%d" % (os.getpid(), time.monotonic_ns()))
        server = await streams.start_unix_server(handle, sock=listener)
    else:
        server = await streams.start_server(handle, "127.0.0.1", 0)
    client = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    client.settimeout(5)
    try:
        client.connect(server.sockets[0].getsockname())
        yield client, outcome
    finally:
        client.close()
        server.close()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await outcome
        await server.wait_closed()


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("behind", ["last", "unread"])
@pytest.mark.parametrize("how", ["write", "dup", "child"])
def test_others_write_in_order(run, streams, family, behind, how):
    """What goes to the descriptor after a write(), by whatever way, comes behind it; with and
    without unread input."""

    async def main():
        async def handler(reader, writer):
            await reader.readline()
            writer.write(b"1st ")
            descriptor = writer.get_extra_info("socket").fileno()
            if how == "write":
                os.write(descriptor, b"2nd ")
            elif how == "dup":
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    copy.sendall(b"2nd ")
            else:
                subprocess.run(["printf", "2nd "], stdout=descriptor, check=True)
            writer.write(b"3rd ")
            await reader.readexactly(0 if behind == "last" else len(LINES) - 4)

        async with _served(streams, handler, family) as (client, outcome):
            client.sendall(LINES if behind == "unread" else b"one\n")
            await outcome
            client.shutdown(socket.SHUT_WR)
            got = await asyncio.to_thread(_receive_all, client)
            assert got == b"1st 2nd 3rd " or not sends_at_once(run.kind)

    run(main)


def _receive_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_slow_answers_leave_one_by_one(run, streams, family):
    """Of pipelined questions that take long, each answer is there before the next one is worked
    at."""

    async def main():
        arrived = []

        async def handler(reader, writer):
            for index in range(3):
                line = await reader.readline()
                time.sleep(0.002)
                writer.write(b"%d\n" % index)
                await writer.drain()
                if sends_at_once(run.kind):
                    arrived.append(client.recv(100))
            return line

        async with _served(streams, handler, family) as (client, outcome):
            client.sendall(LINES)
            assert await outcome == b"three\n"
            assert arrived == ([b"0\n", b"1\n", b"2\n"] if sends_at_once(run.kind) else [])

    run(main)


def test_a_quick_handler_that_blocks_at_last(run, ours):
    """Where a handler that was quick blocks after all, the system sends what it has written: in
    max(200 ms, RTO)."""
    if run.kind not in ("asyncio", "uvloop") or not sends_at_once(run.kind):
        pytest.skip("about the native way")

    async def main():
        waited = []

        def receive(client, size):
            began = time.monotonic()
            got = b""
            while len(got) < size:
                got += client.recv(65536)
            waited.append(time.monotonic() - began)
            return got

        async def handler(reader, writer):
            for _ in range(64):
                writer.write(await reader.readline())
                await writer.drain()
            await reader.readline()
            writer.write(b"last\n")
            await writer.drain()
            getting = threading.Thread(target=receive, args=(client, 5))
            getting.start()
            getting.join()  # blocks the loop

        async with _served(ours, handler, "tcp") as (client, outcome):
            client.sendall(b"line\n" * 64)
            assert await asyncio.to_thread(receive, client, 5 * 64) == b"line\n" * 64
            client.sendall(b"last\nunread")
            await outcome
            assert waited[-1] < 1

    run(main)


@pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)
def test_quick_answers_share_segments(run, native):
    """Thirty-two pipelined questions whose answers cost next to nothing take far fewer segments
    than answers."""
    if run.kind == "debug":
        pytest.skip("in debug mode nothing is stepped")

    async def main():
        async def handler(reader, writer):
            while line := await reader.readline():
                assert stepping() or not reader._buffer
                writer.write(line)
                await writer.drain()

        async with _served(native, handler, "tcp") as (client, _):
            before = 0
            for _ in range(5):
                client.sendall(b"question\n" * 32)
                got = b""
                while len(got) < 9 * 32:
                    got += await asyncio.to_thread(client.recv, 65536)
                assert got == b"question\n" * 32
                counts = segments_received(client) - before
                before += counts
            assert counts < 16
            client.shutdown(socket.SHUT_WR)

    run(main)


@pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)
def test_what_is_held_leaves_when_the_handler_waits(run, native):
    """An answer in front of an incomplete question is sent when the handler waits for the rest of
    it."""
    if run.kind == "debug":
        pytest.skip("in debug mode nothing is stepped")

    async def main():
        async def handler(reader, writer):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()

        async with _served(native, handler, "tcp") as (client, _):
            client.settimeout(0.15)  # less than the 200 ms after which the system sends by itself
            for _ in range(3):
                client.sendall(b"question\n" * 8 + b"half a ")
                got = b""
                while len(got) < 9 * 8:
                    got += await asyncio.to_thread(client.recv, 65536)
                client.sendall(b"question\n")
                assert await asyncio.to_thread(client.recv, 100) == b"half a question\n"
            client.shutdown(socket.SHUT_WR)

    run(main)


# What a process does right after drain(), or right after write().
ENDS = {
    "exits": "os._exit(0)",
    "execs": "os.execvp('sleep', ['sleep', '0.3'])",
    "forks": """
        if os.fork() == 0:
            os._exit(0)
        time.sleep(0.3)
        os._exit(0)
    """,
    "blocks": """
        time.sleep(0.3)
        os._exit(0)
    """,
}

PROGRAM = """
import asyncio, os, socket, ssl, sys, time
import headrace

listening, loop, transport, drained, pem = sys.argv[1:]


async def handle(reader, writer):
    # A handler that has been quick for a while.
    for _ in range(40):
        writer.write(await reader.readline())
        await writer.drain()
    await reader.readline()
    writer.write(b"head ")
    writer.write(b"body\\n")
    if drained == "drained":
        await writer.drain()
    {end}


async def main():
    listener = socket.socket(fileno=int(listening))
    options = {{}}
    if transport == "tls":
        options["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["ssl"].load_cert_chain(pem)
    start = headrace.start_unix_server if transport == "unix" else headrace.start_server
    async with await start(handle, sock=listener, **options) as server:
        await server.serve_forever()


if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


CASES = [
    *[(end, transport, "drained") for end in ENDS for transport in ("tcp", "unix", "tls")],
    # What is not drained may still be in plain text over TLS.
    *[(end, transport, "written") for end in ("exits", "execs") for transport in ("tcp", "unix")],
]
# uvloop's own transport, the portable way there, sends at the end of the loop's turn.
PLACES = [
    (loop, way)
    for loop, way in [("asyncio", "native"), ("asyncio", "portable"), ("uvloop", "native")]
    if loop in LOOP_KINDS and way in WAYS
]


@pytest.mark.slow
@pytest.mark.parametrize(("end", "transport", "drained"), CASES)
@pytest.mark.parametrize(("loop", "way"), PLACES)
def test_an_end_right_after(loop, way, tls, tmp_path, end, transport, drained):
    """A process that blocks, exits, forks or execs right after drain() has sent everything, behind
    unread input too."""
    pem = tmp_path / "server.pem"
    tls.certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    program = PROGRAM.format(
        end=textwrap.indent(textwrap.dedent(ENDS[end]).strip(), "    ").strip()
    )
    listener = socket.socket(socket.AF_UNIX if transport == "unix" else socket.AF_INET)
    listener.bind(
        b"\0headrace-ends-%d-%d" % (os.getpid(), time.monotonic_ns())
        if transport == "unix"
        else ("127.0.0.1", 0)
    )
    listener.listen()
    with listener:
        command = [
            sys.executable,
            "-c",
            program,
            str(listener.fileno()),
            loop,
            transport,
            drained,
            str(pem),
        ]
        child = subprocess.Popen(
            command, pass_fds=[listener.fileno()], env={**os.environ, backend.VARIABLE: way}
        )
        client = socket.socket(listener.family)
        try:
            client.settimeout(10)
            client.connect(listener.getsockname())
            if transport == "tls":
                client = tls.client.wrap_socket(client, server_hostname="localhost")
            client.sendall(b"quick\n" * 40)
            expected = b"quick\n" * 40
            got = b""
            while len(got) < len(expected):
                got += client.recv(65536)
            client.sendall(b"line\nunread\n")
            began = time.monotonic()
            while len(got) < len(expected) + 10 and (piece := client.recv(65536)):
                got += piece
            waited = time.monotonic() - began
            assert got == expected + b"head body\n"
            # Behind unread input the system may send after 200 ms only; the end of the process
            # comes later.
            assert waited < 0.29 or end == "exits"
        except ssl.SSLEOFError:
            pytest.fail("the answer was lost")
        finally:
            client.close()
            assert child.wait(10) == 0
