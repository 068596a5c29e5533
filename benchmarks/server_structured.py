"""trio and anyio, each with its own names: ``receive_some``, ``send_all``, ``receive``…

Neither has asyncio's names, so each gets the handler that its documentation would show. trio has no
line or exact reads: its handler of frames has a buffer of its own, as every program on it.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from .loads import Shape
from .server_streams import BACKLOG, LOOPBACK, READ_SIZE

Announce = Callable[[int], None]


def run_trio(shape: Shape, port: int, context: ssl.SSLContext | None, announce: Announce) -> None:
    """Serve on trio for ever."""
    import trio

    async def echo(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some(READ_SIZE):
            await stream.send_all(data)

    async def frame(stream: trio.abc.Stream) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(READ_SIZE):
            buffer += data
            while len(buffer) >= 4:
                size = 4 + int.from_bytes(buffer[:4], "big")
                if len(buffer) < size:
                    break
                await stream.send_all(buffer[:size])
                del buffer[:size]

    async def discard(stream: trio.abc.Stream) -> None:
        while await stream.receive_some(READ_SIZE):
            pass

    handler = {"echo": echo, "frame": frame, "discard": discard}[shape]

    async def handle(stream: trio.abc.Stream) -> None:
        # trio raises where a client goes without a TLS goodbye.
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await handler(stream)

    async def main() -> None:
        listeners: list[Any]
        if context is None:
            listeners = list(
                await trio.open_tcp_listeners(port, host=LOOPBACK, backlog=BACKLOG),
            )
        else:
            listeners = list(
                await trio.open_ssl_over_tcp_listeners(
                    port, context, host=LOOPBACK, backlog=BACKLOG
                ),
            )
        inner = listeners[0] if context is None else listeners[0].transport_listener
        announce(inner.socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    trio.run(main)


def run_anyio(shape: Shape, port: int, context: ssl.SSLContext | None, announce: Announce) -> None:
    """Serve on anyio's asyncio backend for ever."""
    import anyio
    from anyio.abc import ByteStream
    from anyio.streams.buffered import BufferedByteReceiveStream
    from anyio.streams.tls import TLSListener

    async def echo(stream: ByteStream) -> None:
        while True:
            await stream.send(await stream.receive(READ_SIZE))

    async def line(stream: ByteStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        while True:
            await stream.send(await buffered.receive_until(b"\n", READ_SIZE) + b"\n")

    async def frame(stream: ByteStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        while True:
            header = await buffered.receive_exactly(4)
            payload = await buffered.receive_exactly(int.from_bytes(header, "big"))
            await stream.send(header + payload)

    async def discard(stream: ByteStream) -> None:
        while True:
            await stream.receive(READ_SIZE)

    handlers: dict[Shape, Callable[[ByteStream], Awaitable[None]]] = {
        "echo": echo,
        "line": line,
        "frame": frame,
        "discard": discard,
    }
    handler = handlers[shape]

    async def handle(stream: Any) -> None:
        with contextlib.suppress(
            anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError
        ):
            async with stream:
                await handler(stream)

    async def main() -> None:
        tcp = await anyio.create_tcp_listener(local_host=LOOPBACK, local_port=port, backlog=BACKLOG)
        listener = tcp if context is None else TLSListener(tcp, context)
        announce(tcp.extra(anyio.abc.SocketAttribute.local_port))
        await listener.serve(handle)

    anyio.run(main)
