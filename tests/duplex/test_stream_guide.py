"""docs/stream.md keeps what it says: its programs run, its blocks do what their comments say."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import headrace

GUIDE = (Path(__file__).parents[2] / "docs" / "stream.md").read_text()
TIMEOUT_S = 20
# What the peer sends in the block of each heading, whether it ends its half then, and what it has
# got at the end; None where it was reset.
PEERS: dict[str, tuple[bytes, bool, bytes | None]] = {
    "Reading": (b"PUT it\n\x05hello", True, b""),
    "Look ahead, put back, skip": (b"HEAD one two", True, b""),
    "Writing": (b"", True, b"one two three four five"),
    "Timeouts": (b"GET / HTTP/1.1\r\n", False, b""),
    "The end": (b"", False, None),
    "Is somebody still there?": (b"", True, b""),
    "Frames and relays": (b"\0\3one\0\0\0\3two", True, b"\0\3ONE\0\0\0\3TWO"),
    "Streams of others": (b"", True, b""),
}


def python_blocks() -> list[tuple[str, str]]:
    """Return (heading above it, text) of each Python block."""
    found = []
    for part in re.split(r"^#+ ", GUIDE, flags=re.MULTILINE):
        heading = part.partition("\n")[0]
        for block in re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
            found.append((heading, block))
    return found


def promised(text: str) -> list[str]:
    """Return what the comments behind print() say that it prints."""
    return re.findall(r"print\(.*\)  # (.*)", text)


PROGRAMS = [block for _, block in python_blocks() if "asyncio.run(" in block]
BLOCKS = [each for each in python_blocks() if "asyncio.run(" not in each[1]]


def test_each_block_has_its_peer():
    """No block of the guide is left out."""
    assert [heading for heading, _ in BLOCKS] == list(PEERS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program):
    """A program ends without an error or a warning and prints what its comments say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == promised(program)


class Peer(threading.Thread):
    """The other end: it sends, then reads up to the end. ``got`` is what came; None after a
    reset."""

    def __init__(self, listener: socket.socket, data: bytes, ends: bool) -> None:
        super().__init__()
        self.listener, self.data, self.ends = listener, data, ends
        self.got: bytes | None = None
        self.start()

    def run(self) -> None:
        with self.listener.accept()[0] as sock, sock.makefile("rb") as file:
            sock.settimeout(TIMEOUT_S)
            with contextlib.suppress(ConnectionError):
                sock.sendall(self.data)
                if self.ends:
                    sock.shutdown(socket.SHUT_WR)
                self.got = file.read()


@pytest.mark.parametrize(("heading", "block"), BLOCKS, ids=[heading for heading, _ in BLOCKS])
def test_blocks_run(run, capsys, heading, block):
    """A block on a stream prints what its comments say, and its peer gets what it should."""
    data, ends, expected = PEERS[heading]
    names = {"asyncio": asyncio, "headrace": headrace}
    exec("async def block(stream):\n" + textwrap.indent(block, "    "), names)

    async def main():
        async with asyncio.timeout(TIMEOUT_S):
            stream = headrace.Stream(*await headrace.open_connection(*listener.getsockname()))
            await names["block"](stream)
            if not stream.closing:
                await stream.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(listener, data, ends)
        run(main)
        peer.join(TIMEOUT_S)
    assert capsys.readouterr().out.splitlines() == promised(block)
    assert peer.got == expected
