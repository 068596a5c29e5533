"""send_file(): what arrives, in which order, and what is left after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import TlsPeer
from support.relayed import peers
from support.wires import tcp_pair

from headrace import Stream, WriteTimeout
from headrace._duplex import send_file as send_files
from headrace._duplex.send_file import send_file

DATA = os.urandom(3_000_001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with DATA."""
    found = tmp_path / "data"
    found.write_bytes(DATA)
    return found


def test_a_file_goes_between_what_is_written(run: Any, ours: Any, path: Path) -> None:
    """The file comes behind what was written before, and in front of what is written while it is
    being sent."""

    async def main() -> None:
        async with peers(ours) as p:
            with path.open("rb") as file:
                before = os.urandom(200_000)
                p.a.write_nowait(before)
                receiving = asyncio.create_task(p.receive(p.left))
                assert await send_file(p.a, file) == len(DATA)
                assert file.tell() == len(DATA)
                assert p.a.bytes_written == len(before) + len(DATA)
            await p.a.write(b"after")
            p.a.write_eof()
            assert await receiving == before + DATA + b"after"

    run(main())


@pytest.mark.parametrize("offset", [None, 0, 5, len(DATA), len(DATA) + 9])
@pytest.mark.parametrize("count", [None, 0, 7, 2_000_000, len(DATA) + 1])
def test_a_part_of_a_file(
    run: Any, ours: Any, path: Path, offset: int | None, count: int | None
) -> None:
    """offset and count cut out the part; the position moves only where it was the offset."""

    async def main() -> None:
        async with peers(ours) as p:
            with path.open("rb") as file:
                file.seek(3)
                start = 3 if offset is None else offset
                expected = DATA[start:] if count is None else DATA[start : start + count]
                receiving = asyncio.create_task(p.receive(p.left))
                assert await send_file(p.a, file, offset, count) == len(expected)
                assert file.tell() == (3 + len(expected) if offset is None else 3)
            p.a.write_eof()
            assert await receiving == expected

    run(main())


def test_files_that_are_not_the_systems(run: Any, ours: Any, tmp_path: Path) -> None:
    """What has no descriptor, or another's bytes behind it, is read; text is refused."""

    async def main() -> None:
        async with peers(ours) as p:
            receiving = asyncio.create_task(p.receive(p.left))
            assert await send_file(p.a, io.BytesIO(b"in memory")) == 9
            with gzip.open(tmp_path / "z", "wb") as file:
                file.write(b"packed")
            with gzip.open(tmp_path / "z", "rb") as file:
                assert await send_file(p.a, file) == 6
            with pytest.raises(TypeError, match="binary"):
                await send_file(p.a, io.StringIO("text"))
            p.a.write_eof()
            assert await receiving == b"in memorypacked"

    run(main())


def test_where_the_system_refuses_it_is_read(
    run: Any, native: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL of sendfile() means reads and writes, from where it was."""

    def refuse(*args: Any) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(send_files.os, "sendfile", refuse)

    async def main() -> None:
        async with peers(native) as p:
            with path.open("rb") as file:
                receiving = asyncio.create_task(p.receive(p.left))
                assert await send_file(p.a, file) == len(DATA)
            p.a.write_eof()
            assert await receiving == DATA

    run(main())


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_who_takes_nothing_bounds_it(run: Any, ours: Any, tmp_path: Path, how: str) -> None:
    """After a timeout or a cancellation ``transferred`` says how far it came, and the rest can
    follow."""
    data = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(data)

    async def main() -> None:
        async with peers(ours) as p:
            p.left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            with (tmp_path / "large").open("rb") as file:
                error: BaseException
                if how == "timeout":
                    with pytest.raises(WriteTimeout) as late:
                        await send_file(p.a, file, timeout=0.2)
                    error = late.value
                else:
                    task = asyncio.create_task(send_file(p.a, file))
                    await asyncio.sleep(0.2)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError) as cut:
                        await task
                    error = cut.value
                sent = error.transferred  # type: ignore[attr-defined]
                assert 0 < sent < len(data)
                assert file.tell() == sent
                receiving = asyncio.create_task(p.receive(p.left))
                assert await send_file(p.a, file) == len(data) - sent
            p.a.write_eof()
            assert await receiving == data

    run(main())


def test_a_stream_that_is_closed_refuses(run: Any, ours: Any, path: Path) -> None:
    """Nothing is sent behind write_eof() or abort()."""

    async def main() -> None:
        async with peers(ours) as p:
            with path.open("rb") as file:
                p.a.write_eof()
                with pytest.raises(RuntimeError):
                    await send_file(p.a, file)
                p.b.abort()
                with pytest.raises(ConnectionError):
                    await send_file(p.b, file)

    run(main())


@pytest.mark.parametrize("part", [(None, None), (7, 2_000_000), (len(DATA), 5), (0, 0)])
def test_a_file_over_tls(
    run: Any, ours: Any, tls: Any, path: Path, part: tuple[int | None, int | None]
) -> None:
    """Over TLS the same bytes come between those that are written, and the position moves as in
    plain text."""
    offset, count = part
    start = 3 if offset is None else offset
    expected = DATA[start:] if count is None else DATA[start : start + count]

    async def main() -> None:
        async with secure_pair(ours, tls) as (stream, peer):
            with path.open("rb") as file:
                file.seek(3)
                await stream.write(b"before")
                receiving = asyncio.create_task(peer_read(peer, len(expected) + 11))
                assert await send_file(stream, file, offset, count) == len(expected)
                assert file.tell() == (3 + len(expected) if offset is None else 3)
            await stream.write(b"after")
            assert await receiving == b"before" + expected + b"after"

    run(main())


def test_a_cancellation_over_tls_says_how_far_it_came(
    run: Any, ours: Any, tls: Any, path: Path
) -> None:
    """``transferred`` is what arrives once the peer reads: neither more nor less."""

    async def main() -> None:
        async with secure_pair(ours, tls) as (stream, peer):
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            with (path.parent / "large").open("w+b") as file:
                file.write(DATA * 5)
                file.seek(0)
                task = asyncio.create_task(send_file(stream, file))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                sent = caught.value.transferred  # type: ignore[attr-defined]
                assert 0 < sent < len(DATA) * 5
                assert file.tell() == sent
            stream.write_nowait(b"the end")
            found = await peer_read(peer, sent + 7)
            assert found == (DATA * 5)[:sent] + b"the end"

    run(main())


@pytest.mark.parametrize("empty", ["from the start", "while it is sent"])
def test_a_file_that_ends_before_it_should(run: Any, ours: Any, tmp_path: Path, empty: str) -> None:
    """An empty file is sent as nothing. One that is cut while it is sent ends there: what the call
    returns is what came."""

    async def main() -> None:
        async with peers(ours) as p:
            with (tmp_path / "file").open("w+b") as file:
                if empty == "from the start":
                    assert await send_file(p.a, file) == 0
                    assert await send_file(p.a, file, 0, 100) == 0
                    p.a.write_eof()
                    assert await p.receive(p.left) == b""
                    return
                file.write(DATA * 5)
                file.seek(0)
                p.left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                task = asyncio.create_task(send_file(p.a, file, 0, len(DATA) * 5))
                await asyncio.sleep(0.1)
                assert not task.done()
                os.truncate(file.fileno(), 1000)
                receiving = asyncio.create_task(p.receive(p.left))
                sent = await task
                p.a.write_eof()
                found = await receiving
            assert 1000 < sent < len(DATA) * 5
            assert len(found) == sent
            # What the system holds of a page goes out as it is by then: zeros, if it was cut.
            assert found[:1000] == DATA[:1000]

    run(main())


def test_a_file_of_text_is_refused(run: Any, ours: Any, path: Path) -> None:
    """A file that was opened in text mode is a TypeError that says so, and nothing is sent."""

    async def main() -> None:
        async with peers(ours) as p:
            with path.open(encoding="latin-1") as file:
                with pytest.raises(TypeError, match="binary file object, not a 'TextIOWrapper'"):
                    await send_file(p.a, file)
            with pytest.raises(TypeError, match="binary"):
                await send_file(p.a, str(path))
            p.a.write_eof()
            assert await p.receive(p.left) == b""

    run(main())


@pytest.mark.parametrize("count", [None, 2_000_000])
def test_over_a_pair_that_is_not_ours(run: Any, path: Path, count: int | None) -> None:
    """asyncio's own reader and writer: the same bytes, and the position behind them."""

    async def main() -> None:
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        async with Stream(*await asyncio.open_connection(sock=mine)) as stream:
            with path.open("rb") as file:
                receiving = asyncio.create_task(receive_all(theirs))
                await stream.write(b"before")
                sent = await send_file(stream, file, None, count)
                assert sent == file.tell() == (count or len(DATA))
                assert stream.bytes_written == sent + 6
            await stream.write(b"after")
            stream.write_eof()
            assert await receiving == b"before" + DATA[:count] + b"after"
            theirs.close()

    run(main())


async def receive_all(sock: socket.socket) -> bytes:
    found = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 18):
        found += data
    return bytes(found)


async def peer_read(peer: TlsPeer, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        found += await peer.read(1 << 18)
    return bytes(found)


@contextlib.asynccontextmanager
async def secure_pair(ours: Any, tls: Any) -> AsyncIterator[tuple[Stream, TlsPeer]]:
    """Yield a stream of ours over TLS, and its peer."""
    mine, theirs = tcp_pair()
    theirs.setblocking(False)
    peer = TlsPeer(theirs, tls.server)
    handshake = asyncio.create_task(peer.handshake())
    pair = await ours.open_connection(sock=mine, ssl=tls.client, server_hostname="localhost")
    await handshake
    stream = Stream(*pair)
    with theirs:
        try:
            yield stream, peer
        finally:
            stream.abort()
            await asyncio.sleep(0.01)  # the transport closes its socket in a turn of its own
