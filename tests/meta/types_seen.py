"""What type checkers see of the public names in a program that uses them. mypy reads this file, in
the session `typed`; nobody runs it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import assert_type

import headrace
from headrace import framing


async def streams(host: str) -> None:
    reader, writer = await headrace.open_connection(host, 80)
    assert_type(reader, headrace.StreamReader)
    assert_type(writer, headrace.StreamWriter)
    assert_type(await reader.read(), bytes)
    assert_type(await reader.readline(), bytes)
    assert_type(await reader.readexactly(3), bytes)
    assert_type(await reader.readuntil((b"\r", b"\n")), bytes)
    async for line in reader:
        assert_type(line, bytes)
    # They are asyncio's, for who takes those.
    old: asyncio.StreamReader = reader
    older: asyncio.StreamWriter = writer
    assert_type(headrace.Stream(old, older), headrace.Stream)


async def stream(it: headrace.Stream) -> None:
    assert_type(await it.read(100, timeout=1), bytes)
    assert_type(await it.readexactly(3), bytes)
    assert_type(await it.readuntil(b"\n", limit=10), bytes)
    assert_type(await it.readline(limit=10), bytes)
    assert_type(await it.read_all(limit=10), bytes)
    assert_type(await it.peek(1), bytes)
    assert_type(await it.read_into(bytearray(10)), int)
    assert_type(await it.skip(3), int)
    assert_type(it.read_nowait(), bytes)
    async for line in it:
        assert_type(line, bytes)
    await it.write(b"a", bytearray(b"b"), memoryview(b"c"), timeout=1)
    await it.flush()
    it.write_nowait(b"a")
    it.unread(b"a")
    with it.corked(), it.deadline(5) as deadline:
        assert_type(deadline.expired, bool)
    assert_type(it.read_timeout, float | None)
    it.read_timeout = 5
    assert_type(it.unsent, int)
    assert_type(it.closing, bool)
    async with it as same:
        assert_type(same, headrace.Stream)
    await it.aclose(timeout=1)


class Numbers(framing.Codec[int]):
    def decode(self, view: memoryview) -> tuple[int, int] | framing.Need:
        return (view[0], 1) if view else framing.Need(1)

    def encode(self, frame: int) -> bytes:
        return bytes([frame])


async def frames(it: headrace.Stream) -> None:
    lengths = it.framed(framing.LengthPrefixed(4))
    assert_type(lengths, headrace.Framed[bytes])
    assert_type(await lengths.read(), bytes)
    assert_type(await lengths.read_many(), list[bytes])
    assert_type(await lengths.read_many(5, views=True), list[memoryview])
    async for frame in lengths:
        assert_type(frame, bytes)
    await lengths.write(b"a", b"b")
    numbers = it.framed(Numbers())
    assert_type(await numbers.read(), int)
    await numbers.write(1, 2)


async def of_a_stream(it: headrace.Stream, *, number: int = 0) -> None:
    pass


async def of_a_pair(reader: headrace.StreamReader, writer: headrace.StreamWriter) -> None:
    proxy = headrace.current_connection().proxy
    assert_type(proxy, headrace.ProxyHeader | None)
    if proxy is not None and proxy.ssl is not None:
        assert_type(proxy.ssl, headrace.ProxySSL)
        assert_type(proxy.ssl.client, headrace.ProxySSLFlags)


class Hooks(headrace.Trace):
    def connected(self, traced: headrace.Traced) -> None:
        assert_type(traced.tls, headrace.TLSInfo | None)
        assert_type(traced.attributes(), dict[str, str | int | bool])
        traced.span = object()

    def failed(self, traced: headrace.Traced, error: BaseException) -> None:
        assert_type(traced.phases, dict[str, float])


async def servers() -> None:
    async with headrace.serve(of_a_stream, "::1", 0) as server:
        assert_type(await server.serve_forever(), headrace.ShutdownReport)
        assert_type(server.statistics(), headrace.Statistics)
    headrace.serve(of_a_pair, path="/tmp/socket")
    headrace.serve(functools.partial(of_a_stream, number=1), "::1", 0)
    assert_type(headrace.serve(lambda stream: of_a_stream(stream)), headrace.StreamServer)
    headrace.serve(lambda stream: of_a_stream(stream), "::1", 0, max_connections=10)
    headrace.serve(lambda reader, writer: of_a_pair(reader, writer), path="/tmp/socket")

    def with_option(option: int) -> Callable[[headrace.Stream], Awaitable[None]]:
        async def handler(stream: headrace.Stream) -> None:
            assert_type(await stream.readline(), bytes)

        return handler

    headrace.serve(with_option(1), ["::1", "127.0.0.1"], "80", trace=Hooks(), workers=2)
    assert_type(await headrace.start_server(of_a_pair, "::1", 0), headrace.Server)


def errors(error: Exception) -> None:
    if isinstance(error, headrace.StreamTimeout):
        assert_type(error.seconds, float)
        assert_type(error.operation, str)
    if isinstance(error, headrace.FrameTooLarge):
        assert_type(error.size, int | None)
    if isinstance(error, headrace.IncompleteFrame):
        assert_type(error.partial, bytes)
        assert_type(error.position, int)
