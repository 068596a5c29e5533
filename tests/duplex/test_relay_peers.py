"""relay() and send_file() beside programs of others, and over TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace import Stream, relay
from headrace._duplex.send_file import send_file
from tests.system.peers.programs import program, running

DATA = os.urandom(3_000_000)


async def output_of(*command: str, given: bytes | None = None) -> bytes:
    """Return what *command* prints."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return (await process.communicate(given))[0]


def relay_to(ours: Any, port: int, context: Any, results: list[Any]) -> Any:
    async def handler(reader: Any, writer: Any) -> None:
        a = Stream(reader, writer)
        name = None if context is None else "localhost"
        pair = await ours.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name, limit=65536
        )
        async with a, Stream(*pair) as b:
            results.append(await relay(a, b, idle_timeout=10, linger=1))

    return handler


@pytest.mark.parametrize("secure", ["both", "near", "far"])
def test_relays_between_tls_and_plain_text(run: Any, ours: Any, tls: Any, secure: str) -> None:
    """Every byte arrives, and ends are carried, whichever side is in TLS."""

    async def main() -> None:
        near = tls.server if secure != "far" else None
        far = tls.server if secure != "near" else None
        results: list[Any] = []

        async def echo(reader: Any, writer: Any) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await ours.start_server(echo, "127.0.0.1", 0, ssl=far)
        port = server.sockets[0].getsockname()[1]
        handler = relay_to(ours, port, tls.client if far else None, results)
        proxy = await ours.start_server(handler, "127.0.0.1", 0, ssl=near)
        async with server, proxy:
            pair = await ours.open_connection(
                *proxy.sockets[0].getsockname(),
                ssl=tls.client if near else None,
                server_hostname="localhost" if near else None,
            )
            async with Stream(*pair) as stream:
                writing = asyncio.create_task(stream.write(DATA))
                assert await stream.readexactly(len(DATA)) == DATA
                await writing
            while not results:
                await asyncio.sleep(0.01)
            assert (results[0].a_to_b, results[0].b_to_a) == (len(DATA), len(DATA))

    run(main())


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_curl_through_a_relay(run: Any, ours: Any, tmp_path: Path) -> None:
    """curl gets a file that send_file() sends, through a relay, byte for byte."""
    (tmp_path / "data").write_bytes(DATA)

    async def main() -> None:
        results: list[Any] = []

        async def answer(reader: Any, writer: Any) -> None:
            async with Stream(reader, writer) as stream:
                await stream.readuntil(b"\r\n\r\n")
                await stream.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA))
                with (tmp_path / "data").open("rb") as file:
                    await send_file(stream, file)

        server = await ours.start_server(answer, "127.0.0.1", 0)
        handler = relay_to(ours, server.sockets[0].getsockname()[1], None, results)
        proxy = await ours.start_server(handler, "127.0.0.1", 0)
        async with server, proxy:
            port = proxy.sockets[0].getsockname()[1]
            assert await output_of("curl", "-s", f"http://127.0.0.1:{port}/") == DATA
            while not results:
                await asyncio.sleep(0.01)

    run(main())


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
def test_openssl_through_a_relay(run: Any, ours: Any, tls: Any) -> None:
    """`openssl s_client` talks TLS with a server through a relay of plain bytes."""

    async def main() -> None:
        results: list[Any] = []

        async def answer(reader: Any, writer: Any) -> None:
            async with Stream(reader, writer) as stream:
                line = await stream.readline()
                await stream.write(line.upper() * 1000)

        server = await ours.start_server(answer, "127.0.0.1", 0, ssl=tls.server)
        handler = relay_to(ours, server.sockets[0].getsockname()[1], None, results)
        proxy = await ours.start_server(handler, "127.0.0.1", 0)
        async with server, proxy:
            address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            got = await output_of(
                "openssl", "s_client", "-quiet", "-connect", address, given=b"hello\n"
            )
            assert got == b"HELLO\n" * 1000
            while not results:
                await asyncio.sleep(0.01)

    run(main())


NGINX = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    sendfile on;
    server {{
        listen unix:{folder}/socket;
        root {folder};
    }}
}}
"""


@pytest.mark.peers
@pytest.mark.parametrize("relayed", [False, True], ids=["directly", "relayed"])
def test_a_file_of_nginx(run: Any, ours: Any, tmp_path: Path, relayed: bool) -> None:
    """nginx sends a file by sendfile(): to a Stream, and through a relay, every byte comes."""
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data").chmod(0o644)
    (tmp_path / "conf").write_text(f"user root;\n{NGINX.format(folder=tmp_path)}")

    async def main() -> None:
        results: list[Any] = []

        async def handler(reader: Any, writer: Any) -> None:
            pair = await ours.open_unix_connection(f"{tmp_path}/socket")
            async with Stream(reader, writer) as a, Stream(*pair) as b:
                results.append(await relay(a, b, idle_timeout=10))

        command = (program("nginx"), "-c", f"{tmp_path}/conf", "-e", "stderr")
        with running(*command):
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
            proxy = await ours.start_server(handler, "127.0.0.1", 0)
            async with proxy:
                if relayed:
                    pair = await ours.open_connection(*proxy.sockets[0].getsockname())
                else:
                    pair = await ours.open_unix_connection(f"{tmp_path}/socket")
                async with Stream(*pair) as stream:
                    await stream.write(b"GET /data HTTP/1.0\r\n\r\n")
                    head = await stream.readuntil(b"\r\n\r\n")
                    assert b"\r\nContent-Length: %d\r\n" % len(DATA) in head
                    found = await stream.read_all()
                    stream.write_eof()
                assert found == DATA
                while relayed and not results:
                    await asyncio.sleep(0.01)
                assert not relayed or results[0].b_to_a == len(head) + len(DATA)

    run(main())
