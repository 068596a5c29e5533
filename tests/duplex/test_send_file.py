"""send_file(): what arrives, in which order, and what is left after a failure."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.relayed import peers

from headrace import WriteTimeout
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
