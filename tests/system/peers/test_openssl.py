"""openssl s_client and s_server, TLS 1.2 and 1.3: OpenSSL's own programs at the other end of a TLS
connection."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from support.connections import LOOPBACK

from .conftest import HOST
from .programs import listening, output, program, running

pytestmark = pytest.mark.peers
VERSIONS = {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}
MIB = b"x" * 1023 + b"\n"
MIB *= 1024


def client_command(files, port, *more):
    """Return the command of an s_client that checks our certificate."""
    command = [
        program("openssl"),
        "s_client",
        "-connect",
        f"{LOOPBACK}:{port}",
        "-servername",
        HOST,
        "-verify_hostname",
        HOST,
    ]
    return [*command, "-CAfile", files.authority, "-verify_return_error", *more]


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client(run, streams, files, version):
    """s_client sends a MiB, gets it back with its hash, and sees an orderly end."""

    async def handle(reader, writer):
        assert writer.get_extra_info("ssl_object").version() == VERSIONS[version]
        data = await reader.readexactly(len(MIB))
        writer.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        async with listening(streams, handle, ssl=files.server) as port:
            # -quiet: bytes only, no commands in them, and the end of the input is not the end of
            # the connection.
            received = await output(*client_command(files, port, version, "-quiet"), given=MIB)
            assert received == hashlib.sha256(MIB).hexdigest().encode() + b"\n" + MIB

    run(main)


def test_s_client_updates_its_keys(run, streams, files):
    """A KeyUpdate of TLS 1.3 in the middle of a connection is answered, and loses nothing."""

    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def talk(port):
        with running(*client_command(files, port, "-tls1_3")) as client:
            client.hear("Verify return code: 0")
            for number in range(3):
                client.tell(b"line %d\n" % number)
                client.hear(f"LINE {number}")
                client.tell(b"K\n")
                client.hear("KEYUPDATE")
            client.tell(b"last\n")
            client.hear("LAST")
            client.tell(b"Q\n")
            assert b"DONE\n" in client.end()

    async def main():
        async with listening(streams, handle, ssl=files.server) as port:
            await asyncio.to_thread(talk, port)

    run(main)


def server_command(files, *more):
    """Return the command of an s_server on a free port, which its line "ACCEPT" tells."""
    return [
        program("openssl"),
        "s_server",
        "-accept",
        f"{LOOPBACK}:0",
        "-cert",
        files.chain,
        "-key",
        files.key,
        *more,
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_s_server_reverses(run, streams, files, version):
    """A thousand lines to s_server and back, one at a time."""

    async def main():
        with running(*server_command(files, version, "-rev")) as server:
            port = int(server.hear(r"ACCEPT 127\.0\.0\.1:(\d+)")[1])
            reader, writer = await streams.open_connection(
                LOOPBACK, port, ssl=files.client, server_hostname=HOST
            )
            assert writer.get_extra_info("ssl_object").version() == VERSIONS[version]
            for number in range(1000):
                line = b"line %d" % number
                writer.write(line + b"\n")
                await writer.drain()
                assert await reader.readline() == line[::-1] + b"\n"
            writer.close()
            await writer.wait_closed()

    run(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_s_server_sends_a_file(run, streams, files, version, tmp_path: Path):
    """A file of 10 MB from s_server arrives whole, and its end is the end of the stream."""
    (tmp_path / "file").write_bytes(MIB * 10)

    async def main():
        with running(*server_command(files, version, "-WWW"), cwd=tmp_path) as server:
            port = int(server.hear(r"ACCEPT 127\.0\.0\.1:(\d+)")[1])
            reader, writer = await streams.open_connection(
                LOOPBACK, port, ssl=files.client, server_hostname=HOST
            )
            writer.write(b"GET /file HTTP/1.0\r\n\r\n")
            assert (
                await reader.readuntil(b"\r\n\r\n")
                == b"HTTP/1.0 200 ok\r\nContent-type: text/plain\r\n\r\n"
            )
            assert hashlib.sha256(await reader.read()).digest() == hashlib.sha256(MIB * 10).digest()
            assert reader.at_eof()
            writer.close()
            await writer.wait_closed()

    run(main)
