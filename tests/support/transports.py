"""The transport behind ``writer.transport`` for tests: taken from its stream and given to a
protocol that notes what it is called for.

``streams`` is here asyncio's streams, over the transports of asyncio's loop and of uvloop, and ours
over ours. (The portable way has the loop's transports.)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import LOOP_KINDS, OURS, STOCK
from support.wires import tcp_pair, turns

from headrace._transport import backend

BIG = 6 << 20
NATIVE = [] if backend.native is None else ["native"]


# A transport does not know how tasks are started.
@pytest.fixture(params=[kind for kind in LOOP_KINDS if kind != "eager"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["stock", *NATIVE])
def streams(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> types.SimpleNamespace:
    """asyncio's streams over the loop's transports, ours over ours."""
    if request.param == "stock":
        return STOCK
    monkeypatch.setenv(backend.VARIABLE, request.param)
    return OURS


@pytest.fixture(params=NATIVE)
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Our streams over our transports, for what others do not promise."""
    monkeypatch.setenv(backend.VARIABLE, request.param)
    return OURS


# What a module of tests takes over: the fixtures of conftest.py are wider.
FIXTURES = loop_kind, ours, streams


class Recorder(asyncio.Protocol):
    """Notes what its transport calls: ``calls`` in their order, the ``data``, and how it was
    ``lost``, a future."""

    def __init__(self, keep_open: bool = False) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.keep_open = keep_open
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof_received")
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("connection_lost")
        self.lost.set_result(exc)


class Buffered(asyncio.BufferedProtocol):
    """A Recorder that is received into: a buffer of *size* bytes, the same each time."""

    def __init__(self, size: int = 100, keep_open: bool = False) -> None:
        Recorder.__init__(self, keep_open)
        self.storage = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        assert isinstance(sizehint, int)
        return memoryview(self.storage)

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.storage)
        self.data += self.storage[:nbytes]

    eof_received = Recorder.eof_received
    pause_writing = Recorder.pause_writing
    resume_writing = Recorder.resume_writing
    connection_lost = Recorder.connection_lost


# A test of both kinds of protocol that asyncio has.
BOTH = pytest.mark.parametrize("kind", [Recorder, Buffered])


@contextlib.asynccontextmanager
async def taken(
    streams: types.SimpleNamespace, protocol: Any = None, ends: Any = None
) -> AsyncIterator[tuple]:
    """(transport, protocol, peer): a stream's transport, given to *protocol*, and the socket at its
    other end."""
    ours, peer = ends or tcp_pair()
    peer.setblocking(False)
    _, writer = await streams.open_connection(sock=ours)
    transport = writer.transport
    protocol = protocol or Recorder()
    transport.set_protocol(protocol)
    try:
        yield transport, protocol, peer
    finally:
        with contextlib.suppress(
            AttributeError
        ):  # asyncio's transports, once closed, have no loop to abort with
            transport.abort()
        peer.close()
        await asyncio.wait_for(asyncio.shield(protocol.lost), 5)
        await turns(2)


def is_libuv(transport: Any) -> bool:
    """Tell whether *transport* is uvloop's own, which in some things does not do what asyncio
    documents."""
    return type(transport).__module__.startswith("uvloop")


async def ended(peer: socket.socket, data: bytearray | None = None) -> bytearray:
    """Return, in *data*, what *peer* receives up to the end: a FIN, or a reset, which is what a
    close is that leaves something unread."""
    data = bytearray() if data is None else data
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(peer, 1 << 18):
            data += piece
    return data


async def stuffed(transport: Any) -> None:
    """Write BIG bytes, and return when some of them, but not all, have left."""
    transport.write(bytes(BIG))
    await asyncio.sleep(0.005)
    assert 0 < transport.get_write_buffer_size() < BIG
