"""curl against an HTTP/1.1 server of a page: plain, https and on a unix socket."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from support.connections import LOOPBACK

from .conftest import HOST
from .programs import listening, output, program

pytestmark = pytest.mark.peers
BODY = hashlib.shake_256(b"body").digest(3_000_000)


async def read_body(reader, headers):
    """Return the body of a request, in chunks or of a known length."""
    if headers.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(headers.get(b"content-length", 0)))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return b"".join(parts)


class Http:
    """The server: GET /length, /chunks and /close send BODY in three ways, anything else answers
    with the hash of what was sent."""

    def __init__(self):
        self.connections = 0
        self.requests = 0

    async def handle(self, reader, writer):
        self.connections += 1
        while request := await reader.readline():
            self.requests += 1
            path = request.split(b" ")[1]
            headers = {}
            while (line := await reader.readline()) != b"\r\n":
                name, _, value = line.strip().lower().partition(b": ")
                headers[name] = value
            if headers.get(b"expect") == b"100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
            body = await read_body(reader, headers)
            await self.answer(writer, path, body)
            if path == b"/close":
                break
        writer.close()
        with contextlib.suppress(
            ConnectionError
        ):  # curl does not wait for the end of a TLS connection
            await writer.wait_closed()

    async def answer(self, writer, path, body):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        if path == b"/chunks":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(BODY), 10_000):
                part = BODY[start : start + 10_000]
                writer.writelines([b"%x\r\n" % len(part), part, b"\r\n"])
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        elif path == b"/close":
            writer.write(head + b"Connection: close\r\n\r\n" + BODY)
        else:
            content = (
                BODY if path == b"/length" else hashlib.sha256(body).hexdigest().encode() + b"\n"
            )
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(content))
            writer.write(content)
        await writer.drain()


@pytest.fixture(params=["plain", "https", "unix"])
def serving(request, streams, files, tmp_path):
    """Return a context manager that serves, and yields the URL and the arguments that lead curl
    there."""

    @contextlib.asynccontextmanager
    async def serve(http):
        path = str(tmp_path / "http.sock") if request.param == "unix" else None
        tls = files.server if request.param == "https" else None
        async with listening(streams, http.handle, path, tls) as port:
            if path:
                yield f"http://{HOST}", ["--unix-socket", path]
            elif tls:
                yield (
                    f"https://{HOST}:{port}",
                    ["--cacert", files.authority, "--resolve", f"{HOST}:{port}:{LOOPBACK}"],
                )
            else:
                yield f"http://{LOOPBACK}:{port}", []

    return serve


def curl(*more):
    """Return the command of a curl that reads no settings, knows no proxy and fails at an error."""
    return [
        program("curl"),
        "--disable",
        "--silent",
        "--show-error",
        "--fail",
        "--http1.1",
        "--noproxy",
        "*",
        *more,
    ]


def test_downloads(run, serving):
    """A body of a known length, one in chunks and one that ends with the connection arrive whole;
    one connection serves all three."""

    async def main():
        http = Http()
        async with serving(http) as (url, how):
            received = await output(
                *curl(*how, *(f"{url}/{name}" for name in ("length", "chunks", "close")))
            )
            assert hashlib.sha256(received).digest() == hashlib.sha256(BODY * 3).digest()
            assert (http.connections, http.requests) == (1, 3)

    run(main)


def test_uploads(run, serving):
    """A body of a known length, after 100-continue, and one in chunks arrive whole."""

    async def main():
        http = Http()
        async with serving(http) as (url, how):
            expected = hashlib.sha256(BODY).hexdigest().encode() + b"\n"
            more = ["--data-binary", "@-", "--header", "Expect: 100-continue", f"{url}/upload"]
            assert await output(*curl(*how, *more), given=BODY) == expected
            assert (
                await output(*curl(*how, "--upload-file", "-", f"{url}/upload"), given=BODY)
                == expected
            )
            assert http.connections == 2

    run(main)


def test_many_at_once(run, serving):
    """Forty requests, up to ten at a time, are all answered."""

    async def main():
        http = Http()
        async with serving(http) as (url, how):
            received = await output(
                *curl(*how, "--parallel", "--parallel-max", "10", f"{url}/small/[1-40]")
            )
            assert received == (hashlib.sha256(b"").hexdigest().encode() + b"\n") * 40
            assert http.requests == 40

    run(main)
