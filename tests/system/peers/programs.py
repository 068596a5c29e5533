"""Programs of the system as peers: started by a test, on loopback or in its directory, heard line
by line, and stopped by it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.connections import LOOPBACK

TIMEOUT_S = 15.0  # no step of any test takes a second
GRACE_S = 5.0  # what a program may take to stop before it is killed


def program(name: str) -> str:
    """Return the path of the program *name*; skip the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package has the same name)")
    return path


def free_port() -> int:
    """Return a port for a program that cannot be told to take a free one. Nobody holds it: another
    may be faster."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return listener.getsockname()[1]


class Program:
    """A running child process. A thread reads all it says, so that it never waits for the test, and
    keeps it."""

    def __init__(
        self, *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
        )
        self.said: list[bytes] = []
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def hear(self, pattern: str) -> re.Match[bytes]:
        """Return the match in the next line that has *pattern*. Fails when the program ends, or
        says nothing more, before it."""
        while True:
            try:
                line = self._lines.get(timeout=TIMEOUT_S)
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(
                    f"{self.process.args} did not say {pattern!r} but {b''.join(self.said)!r}"
                )
            if match := re.search(pattern.encode(), line):
                return match

    def tell(self, data: bytes) -> None:
        """Write *data* to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> bytes:
        """Wait until the program ends by itself, with status 0; return all it said."""
        status = self.process.wait(TIMEOUT_S)
        self._listener.join()
        assert status == 0, (self.process.args, status, b"".join(self.said))
        return b"".join(self.said)

    def stop(self) -> None:
        """Make it end, if it still runs: asked first, then killed."""
        self.process.terminate()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it was told last and never read
                pipe.close()


@contextlib.contextmanager
def running(
    *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Program]:
    """Start *command*; it is gone at the end of the block, however that ends."""
    started = Program(*command, cwd=cwd, environment=environment)
    try:
        yield started
    finally:
        started.stop()


async def output(
    *command: str, cwd: Path | None = None, given: bytes = b"", status: int = 0
) -> bytes:
    """Run *command* to its end while the loop goes on; return what it wrote to standard output."""
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        input=given,
        capture_output=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == status, done
    return done.stdout


@contextlib.asynccontextmanager
async def listening(
    streams: types.SimpleNamespace,
    handle: Callable[..., Awaitable[None]],
    path: str | None = None,
    ssl: Any = None,
) -> AsyncIterator[int | None]:
    """Serve on *path*, or on loopback at the port that it yields. After the block every handle()
    has ended, or fails the test."""
    handling: list[Any] = []

    async def connected(reader: Any, writer: Any) -> None:
        handling.append(asyncio.current_task())
        await handle(reader, writer)

    if path is None:
        server = await streams.start_server(connected, LOOPBACK, 0, ssl=ssl)
    else:
        server = await streams.start_unix_server(connected, path)
    try:
        yield server.sockets[0].getsockname()[1] if path is None else None
        await asyncio.gather(*handling)
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), GRACE_S)


def under(streams: str, loop: str = "asyncio") -> list[str]:
    """Return the command that runs an unmodified program on *streams*, "stock" or "headrace"; stock
    is python itself, on its own loop."""
    if streams == "stock":
        assert loop == "asyncio"
        return [sys.executable]
    return [sys.executable, "-m", "headrace", "run", "--loop", loop]


def environment() -> dict[str, str]:
    """Return an environment for programs in Python: *this* headrace is found, what is printed comes
    at once, and so does every warning."""
    import headrace

    root = str(Path(headrace.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default"}
