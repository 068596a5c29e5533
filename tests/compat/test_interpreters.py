"""Interpreters of other kinds: subinterpreters, which the compiled build does not support and says
so, and lazy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.cli import doctor

SUBINTERPRETER = """
import asyncio

async def main():
    async def handler(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await headrace.start_server(handler, "127.0.0.1", 0)
    reader, writer = await headrace.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\\n")
    print(await reader.read(), flush=True)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()

try:
    import headrace
except ImportError as error:
    print("refused:", error, flush=True)
else:
    asyncio.run(main())
"""

IN_A_POOL = f"""
import sys
from concurrent.futures import InterpreterPoolExecutor

if "first" in sys.argv:
    import headrace
with InterpreterPoolExecutor(1) as pool:
    pool.submit(exec, {SUBINTERPRETER!r}, {{}}).result()
    print("over", flush=True)
import headrace
"""

LAZY = """
import headrace
headrace.install()
import asyncio
from asyncio import StreamReader
assert StreamReader is asyncio.StreamReader is asyncio.streams.StreamReader is headrace.StreamReader

async def main():
    async def handler(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert isinstance(server, headrace.Server)
    writer.write(b"line\\n")
    print(await reader.read(), type(reader) is headrace.StreamReader, flush=True)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()

asyncio.run(main())
headrace.uninstall()
assert asyncio.StreamReader is asyncio.streams.StreamReader is not headrace.StreamReader
"""


def output(*arguments):
    """Return what Python prints that is started with *arguments*."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
@pytest.mark.parametrize("order", ["first", "later"])
def test_subinterpreters(order):
    """In a subinterpreter the compiled build is refused by an ImportError that says why, and the
    pure build works; nothing crashes."""
    said = output("-c", IN_A_POOL, order)
    if doctor.build() == "compiled":
        assert said.startswith("refused: module headrace.")
        assert "does not support loading in subinterpreters" in said
    else:
        assert said.startswith("b'line\\n'")
    assert said.endswith("over\n")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="new in Python 3.15")
@pytest.mark.parametrize("way", ["all", "normal"])
def test_lazy_imports(way):
    """install() means what it says where every import waits for its first use."""
    assert output("-X", f"lazy_imports={way}", "-c", LAZY) == "b'line\\n' True\n"
