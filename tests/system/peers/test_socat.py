"""socat as TCP, unix and TLS peer: 10 MB each way, compared by hash, with socat as the client and
as the server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.connections import LOOPBACK

from .conftest import HOST
from .programs import listening, output, program, running

pytestmark = pytest.mark.peers
KINDS = ["TCP", "UNIX", "OPENSSL"]
UP, DOWN = (hashlib.shake_256(name).digest(10_000_000) for name in (b"up", b"down"))
# How long socat waits, in seconds, for the other direction when one is at its end: longer than it
# takes. Its default is half a second.
LINGER = ["-t", "20"]


def digest(data):
    return hashlib.sha256(data).hexdigest().encode()


async def sent_by_socat(streams, files, kind, path, handle):
    """Return what comes back from handle() to a socat that sends UP and, unless it speaks TLS, ends
    its side."""
    tls = kind == "OPENSSL"
    # ignoreeof: the end of the input is not passed on. The end of one direction would be that of a
    # TLS connection.
    given = "-,ignoreeof" if tls else "-"
    async with listening(
        streams, handle, path if kind == "UNIX" else None, files.server if tls else None
    ) as port:
        to = f"UNIX-CONNECT:{path}" if kind == "UNIX" else f"{kind}:{LOOPBACK}:{port}"
        if tls:
            to += f",cafile={files.authority},commonname={HOST},snihost={HOST}"
        return await output(program("socat"), *LINGER, given, to, given=UP)


@pytest.mark.parametrize("kind", KINDS)
def test_socat_connects(run, streams, files, tmp_path: Path, kind):
    """socat sends 10 MB and ends its side; the server sees that end, and answers with the hash and
    10 MB of its own."""

    async def handle(reader, writer):
        data = await (reader.readexactly(len(UP)) if kind == "OPENSSL" else reader.read())
        writer.write(digest(data))
        writer.write(DOWN)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        received = await sent_by_socat(streams, files, kind, str(tmp_path / "socket"), handle)
        assert digest(received) == digest(digest(UP) + DOWN)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_socat_has_its_bytes_back(run, streams, files, tmp_path: Path, kind):
    """10 MB through an echo server and back, both directions busy at once; after the end of one,
    the other is still delivered."""

    async def handle(reader, writer):
        left = len(UP) if kind == "OPENSSL" else len(UP) + 1
        while left and (data := await reader.read(min(65536, left))):
            left -= len(data)
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        received = await sent_by_socat(streams, files, kind, str(tmp_path / "socket"), handle)
        assert digest(received) == digest(UP)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_socat_listens(run, streams, files, tmp_path: Path, kind):
    """10 MB go to socat, then write_eof() if there is no TLS. It answers with their hash and 10 MB
    of its own."""
    (tmp_path / "down").write_bytes(DOWN)
    path = str(tmp_path / "socket")
    listen = {
        "TCP": f"TCP-LISTEN:0,bind={LOOPBACK}",
        "UNIX": f"UNIX-LISTEN:{path}",
        "OPENSSL": f"OPENSSL-LISTEN:0,bind={LOOPBACK},cert={files.both},verify=0",
    }[kind]
    received = f"head -c {len(UP)}" if kind == "OPENSSL" else "cat"
    command = [
        program("socat"),
        *LINGER,
        "-d",
        "-d",
        listen,
        f"SYSTEM:{received} | sha256sum; cat down",
    ]

    async def main():
        with running(*command, cwd=tmp_path) as socat:
            if kind == "UNIX":
                socat.hear("listening on")
                reader, writer = await streams.open_unix_connection(path)
            else:
                port = int(socat.hear(r"listening on AF=2 127\.0\.0\.1:(\d+)")[1])
                tls = dict(ssl=files.client, server_hostname=HOST) if kind == "OPENSSL" else {}
                reader, writer = await streams.open_connection(LOOPBACK, port, **tls)
            writer.write(UP)
            await writer.drain()
            if kind != "OPENSSL":
                writer.write_eof()
            assert await reader.readline() == digest(UP) + b"  -\n"
            assert digest(await reader.readexactly(len(DOWN))) == digest(DOWN)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)
