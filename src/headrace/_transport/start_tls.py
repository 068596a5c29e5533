"""start_tls() over a transport of the loop's, with the bytes that came too early.

``loop.start_tls()`` does the work. What it cannot do is begin with bytes that have already been
read: a client may send its ClientHello together with whatever made the server upgrade. They are put
into the loop's own TLS protocol right after it was connected, and before the transport reads
anything more.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from headrace._transport.tls_options import TLSOptions


async def start_tls_of_loop(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    tls: TLSOptions,
    early: bytes,
    server_side: bool,
) -> asyncio.Transport:
    """See Backend.start_tls()."""
    handshake = loop.start_tls(
        transport,
        protocol,
        tls.context,
        server_side=server_side,
        server_hostname=tls.server_hostname,
        ssl_handshake_timeout=tls.handshake_timeout,
        ssl_shutdown_timeout=tls.shutdown_timeout,
    )
    if not early:
        upgraded = await handshake
    else:
        upgraded = await _after_first_step(
            handshake, lambda: loop.call_soon(_receive, transport, early)
        )
    # Lost just as the handshake ended, or closed by somebody else meanwhile.
    if upgraded is None or transport.is_closing():
        raise ConnectionResetError("Connection lost during the TLS handshake")
    return upgraded


@types.coroutine
def _after_first_step(
    coroutine: Coroutine[Any, Any, Any], then: Callable[[], object]
) -> Generator[Any, Any, Any]:
    """Await *coroutine*, and call then() when it has run up to its first wait.

    In that step start_tls() schedules connection_made() and resume_reading() of its protocol. What
    then() schedules runs right behind these, in the same turn of the loop, so no byte of the socket
    can come between.
    """
    try:
        waited_for = coroutine.send(None)
        then()
        while True:
            try:
                value = yield waited_for
            except BaseException as error:
                waited_for = coroutine.throw(error)
            else:
                waited_for = coroutine.send(value)
    except StopIteration as stop:
        return stop.value


def _receive(transport: asyncio.Transport, data: bytes) -> None:
    """Give *data* to the transport's protocol as if it had just been received."""
    protocol: Any = transport.get_protocol()
    while data and not transport.is_closing():
        if isinstance(protocol, asyncio.BufferedProtocol) or hasattr(protocol, "get_buffer"):
            buffer: Any = protocol.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
        else:
            size = len(data)
            protocol.data_received(data)
        data = data[size:]
