"""asyncio's subprocesses and real packages, with asyncio's names replaced by the streams under
test. See `consumers.md`."""

import asyncio
import inspect
import pathlib
import subprocess
import sys

import pytest
from support.connections import until, use_names

pytest.importorskip("_posixsubprocess")


def test_communicate(run, streams, monkeypatch):
    """communicate() sends its input and returns all output of both pipes, far above the limit."""
    use_names(monkeypatch, streams)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "cat; echo bad >&2",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=1024,
        )
        assert type(process.stdout) is streams.StreamReader
        assert type(process.stdin) is streams.StreamWriter
        assert isinstance(process.stdout, asyncio.StreamReader)
        out, err = await process.communicate(b"data" * 50000)
        assert out == b"data" * 50000
        assert err == b"bad\n"
        assert process.returncode == 0

    run(main)


def test_pipes_read_and_written_by_hand(run, streams, monkeypatch):
    """stdin.drain() follows back-pressure, visible as stdin._protocol._paused; stdout obeys limit=;
    close() ends the child."""
    use_names(monkeypatch, streams)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=64
        )
        process.stdin.write(b"hello\n")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"hello\n"
        assert not process.stdin._protocol._paused
        process.stdin.write(b"x" * (1 << 20))
        draining = asyncio.ensure_future(process.stdin.drain())
        await until(lambda: process.stdin._protocol._paused)
        assert not draining.done()
        assert await process.stdout.readexactly(1 << 20) == b"x" * (1 << 20)
        await draining
        process.stdin.write(b"y" * 200 + b"\nz\n")
        with pytest.raises(ValueError, match="limit"):
            await process.stdout.readline()
        process.stdin.close()
        await process.stdin.wait_closed()
        await process.stdout.read()
        assert await process.wait() == 0

    run(main)


@pytest.mark.defect("write() to a transport that has closed itself raises on uvloop")
def test_a_child_that_has_closed_its_input(run, streams, monkeypatch):
    """What is written to a child that takes no input any more is dropped, however long the pipe has
    been closed."""
    use_names(monkeypatch, streams)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "exec 0<&-; echo gone", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        await until(process.stdin.is_closing)
        await asyncio.sleep(0.01)
        process.stdin.write(b"to nobody")
        assert await process.stdout.read() == b"gone\n"
        await process.wait()

    run(main)


@pytest.mark.defect("close() of a transport that has closed itself raises on uvloop")
def test_a_child_that_takes_no_input(run, streams, monkeypatch):
    """stdin of a child that has gone: communicate() returns what the child said."""
    use_names(monkeypatch, streams)
    if "_log_traceback" not in inspect.getsource(asyncio.subprocess):
        # The subprocess protocol of early releases of Python 3.11 reports what its wait_closed()
        # would raise, whether somebody waits or not.
        run.expect_errors()

    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "exec 0<&-; echo gone", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"n" * (1 << 20))
        assert out == b"gone\n"

    run(main)


def test_anyio_open_process(run, streams, monkeypatch):
    """anyio's processes, which look into stdin._protocol and end reads with set_exception(), work
    over the replaced names."""
    anyio = pytest.importorskip("anyio")
    use_names(monkeypatch, streams)

    async def main():
        async with await anyio.open_process(["cat"]) as process:
            await process.stdin.send(b"ping")
            assert await process.stdout.receive() == b"ping"
            assert type(process.stdout._stream) is streams.StreamReader
            waiting = asyncio.ensure_future(process.stdout.receive())
            await asyncio.sleep(0)
            await process.stdout.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await waiting
            await process.stdin.aclose()
        # What fails inside its context would be killed there: here the child ended by itself.
        assert process.returncode == 0

    run(main)


AIOSMTPD = """
import asyncio, smtplib, ssl, sys
sys.path[:0] = {path!r}
from conftest import OURS, STOCK, new_loop
from support.connections import NAMES
streams = {{"stock": STOCK, "headrace": OURS}}[{name!r}]
for each in NAMES:
    if (value := getattr(streams, each)) is not None:
        setattr(asyncio, each, value) if hasattr(asyncio, each) else None
        setattr(asyncio.streams, each, value)
from aiosmtpd.smtp import SMTP
from support.certificates import Tls
assert issubclass(SMTP, streams.StreamReaderProtocol)
tls = Tls()

class Handler:
    letters = []
    async def handle_DATA(self, server, session, envelope):
        self.letters.append((session.ssl is not None, envelope.content))
        return "250 kept"

def talk(port):
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client._host = "localhost"
        client.ehlo("me")
        client.sendmail("a@b", ["c@d"], b"plain")
        client.starttls(context=tls.client)
        client.ehlo("me")
        client.sendmail("a@b", ["c@d"], (b"x" * 70 + b"\\r\\n") * 1000)
    # RFC 3207's injection: what is pipelined behind STARTTLS must not be executed inside TLS.
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client._host = "localhost"
        client.ehlo("me")
        client.send(b"STARTTLS\\r\\nNOOP\\r\\n")
        assert client.getreply()[0] == 220
        client.sock = tls.client.wrap_socket(client.sock, server_hostname="localhost")
        client.file = None
        assert client.ehlo("again")[0] == 250

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), tls_context=tls.server, loop=loop, hostname="here"), "127.0.0.1", 0
    )
    await loop.run_in_executor(None, talk, server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    # close_notify and the end of the last session
    await asyncio.sleep(0.05)
    print([(secure, len(content)) for secure, content in Handler.letters])

with asyncio.Runner(loop_factory=lambda: new_loop({kind!r})) as runner:
    runner.run(asyncio.wait_for(main(), 15))
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_aiosmtpd_with_starttls(streams, kind):
    """A real aiosmtpd server takes letters before and after STARTTLS, and discards what was
    pipelined behind it."""
    pytest.importorskip("aiosmtpd")
    pytest.importorskip(kind)
    script = AIOSMTPD.format(
        path=[str(pathlib.Path(__file__).parents[1])], name=streams.name, kind=kind
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[(False, 7), (True, 72000)]\n"
    assert done.stderr == ""
