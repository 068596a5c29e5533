"""What each call raises after which loss, the first time and the next: asyncio's types, in
asyncio's order.

Where ours differ it is by promise: what came before the loss, and the end of the stream, can still
be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct

import pytest
from conftest import STOCK

from headrace._transport import backend

RESET = "ConnectionResetError(104)"
LOST = "ConnectionResetError(Connection lost)"
BROKEN = "BrokenPipeError(32)"
CALLS = ("drain", "drain", "read", "readline", "drain", "wait_closed", "wait_closed", "drain")


def _reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def _a_reset_met_by_a_write(reader, writer, peer):
    _reset(peer)
    writer.write(b"x")


async def _a_reset_met_by_a_read(reader, writer, peer):
    _reset(peer)
    await asyncio.sleep(0.02)


async def _a_close_met_by_writes(reader, writer, peer):
    peer.close()
    await asyncio.sleep(0.02)
    for _ in range(2):
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def _data_and_a_reset_met_by_a_write(reader, writer, peer):
    writer.write(b"never read")
    await asyncio.sleep(0.02)
    peer.sendall(b"data")
    peer.close()
    writer.write(b"x")
    writer.write(b"x")


async def _an_abort(reader, writer, peer):
    writer.transport.abort()


async def _a_close(reader, writer, peer):
    writer.close()


# What asyncio's calls do on TCP and on a Unix socket; and what ours do instead, by the index of the
# call.
SCENES = {
    "reset met by a write": (
        _a_reset_met_by_a_write,
        [LOST] + 7 * [RESET],
        [LOST] + 7 * [BROKEN],
        {},
        {},
    ),
    "reset met by a read": (
        _a_reset_met_by_a_read,
        8 * [RESET],
        [LOST] + 7 * [BROKEN],
        {},
        {2: b"", 3: b""},
    ),
    # The native way hears of the reset behind the end before a write does: see
    # test_a_reset_behind_the_end.
    "close met by writes": (
        _a_close_met_by_writes,
        8 * [BROKEN],
        8 * [BROKEN],
        {2: b"", 3: b""},
        {2: b"", 3: b""},
    ),
    "data and a reset": (
        _data_and_a_reset_met_by_a_write,
        [LOST] + 7 * [RESET],
        [LOST] + 7 * [BROKEN],
        {2: b"data"},
        {2: b"data"},
    ),
    "abort": (_an_abort, *2 * [[LOST, LOST, b"", b"", LOST, None, None, LOST]], {}, {}),
    "close": (_a_close, *2 * [[LOST, LOST, b"", b"", LOST, None, None, LOST]], {}, {}),
}


async def _outcome(make):
    """Await what make() returns; return the result, or the exception in words."""
    try:
        async with asyncio.timeout(
            5
        ):  # not wait_for(), which gives the loop a turn first on Python 3.11
            return await make()
    except OSError as error:
        return f"{type(error).__name__}({error.errno or error})"


@contextlib.asynccontextmanager
async def _connection(streams, family):
    """Give a client's reader and writer, and the socket at the other end."""
    with socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET) as listener:
        listener.bind(
            b"\0headrace-losses-%d-%d" % (os.getpid(), next(_NAMES))
            if family == "unix"
            else ("127.0.0.1", 0)
        )
        listener.listen()
        sock = socket.socket(listener.family)
        sock.connect(listener.getsockname())
        peer, _ = listener.accept()
    reader, writer = await streams.open_connection(sock=sock)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await asyncio.sleep(0)


_NAMES = itertools.count()


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("scene", SCENES)
def test_every_call_after_a_loss(run, streams, scene, family):
    """Each call raises what asyncio's raises, the first time and later; what was there to be read
    can be read."""
    if streams is STOCK and run.kind == "uvloop":
        pytest.skip("uvloop's transport raises from write()")
    lose, on_tcp, on_unix, ours_on_tcp, ours_on_unix = SCENES[scene]
    native = streams is not STOCK and os.environ[backend.VARIABLE] == "native"
    expected = list(on_tcp if family == "tcp" else on_unix)
    if streams is not STOCK:
        for index, value in (ours_on_tcp if family == "tcp" else ours_on_unix).items():
            expected[index] = value
    if scene == "data and a reset" and streams is not STOCK and not native:
        expected[2] = expected[3]  # what was in the kernel is lost with the loop's transport
    if scene == "close met by writes" and native and family == "tcp":
        expected = [LOST, LOST, b"", b"", LOST, None, None, LOST]

    async def main():
        async with _connection(streams, family) as (reader, writer, peer):
            await lose(reader, writer, peer)
            seen = []
            for name in CALLS:
                if name == "drain":
                    writer.write(b"more")
                if name == "wait_closed":
                    writer.close()
                make = (
                    {"read": lambda: reader.read(100)}.get(name)
                    or getattr(reader, name, None)
                    or getattr(writer, name)
                )
                seen.append(await _outcome(make))
            assert seen == expected

    run(main)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("end", ["reset", "abort"])
def test_a_drain_that_waits(run, streams, family, end):
    """A drain() that waits is told what broke the connection; one that an abort ends is told too,
    by ours."""

    async def main():
        async with _connection(streams, family) as (reader, writer, peer):
            writer.write(bytes(16 << 20))
            drain = asyncio.create_task(_outcome(writer.drain))
            await asyncio.sleep(0.02)
            if end == "reset":
                _reset(peer)
            else:
                writer.transport.abort()
            seen = await drain
            if end == "reset":
                assert seen in (RESET, BROKEN) if run.kind == "uvloop" else seen == RESET
            else:
                assert seen == (None if streams is STOCK else LOST)

    run(main)


def test_the_first_drain_after_a_reset(run, streams):
    """Where the peer has reset, a handler that only writes and drains is told by its first drain(),
    without giving way to the loop."""
    if streams is STOCK and run.kind == "uvloop":
        pytest.skip("uvloop's transport raises from write()")

    async def main():
        async with _connection(streams, "tcp") as (reader, writer, peer):
            writer.write(b"x")
            await writer.drain()
            _reset(peer)
            with pytest.raises(ConnectionResetError):
                for _ in range(
                    2
                    if run.kind != "uvloop" or os.environ.get(backend.VARIABLE) == "native"
                    else 100
                ):
                    writer.write(b"x" * 100)
                    await writer.drain()

    run(main)


@pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)
def test_a_reset_behind_the_end(run, native):
    """A connection that is reset after its end, with nothing unsent, has ended: drain() says so,
    and wait_closed() has nothing to say."""

    async def main():
        async with _connection(native, "tcp") as (reader, writer, peer):
            peer.close()
            assert await reader.read() == b""
            writer.write(b"answered by a reset")
            await writer.drain()
            await asyncio.sleep(0.02)
            assert await _outcome(writer.drain) == LOST
            writer.close()
            assert await _outcome(writer.wait_closed) is None

    run(main)


def test_an_error_told_twice_has_one_traceback(run, ours):
    """What broke the connection is raised without the frames in which it was raised before."""

    async def main():
        async with _connection(ours, "tcp") as (reader, writer, peer):
            _reset(peer)
            await asyncio.sleep(0.02)
            depths = []
            for make in [reader.read, writer.drain, writer.wait_closed] * 3:
                try:
                    await make()
                except ConnectionResetError as error:
                    traceback = error.__traceback__
                    depths.append(0)
                    while traceback is not None:
                        depths[-1] += 1
                        traceback = traceback.tb_next
            assert depths[:3] == depths[3:6] == depths[6:]

    run(main)
