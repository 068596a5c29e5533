"""TLS for tests: one authority a session, contexts of both sides, and a TLS peer that is driven
byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme

HOST = "localhost"


class Tls:
    """``server`` and ``client`` contexts that trust one authority; ``stranger`` trusts nobody, so
    its handshakes fail."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert(HOST)
        self.server, self.client = self.contexts()
        self.stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def contexts(
        self, version: ssl.TLSVersion | None = None
    ) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Return new contexts of a server and of a client, of one *version* or of all."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(server)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(client)
        if version is not None:
            for context in (server, client):
                context.minimum_version = context.maximum_version = version
        return server, client


@pytest.fixture(scope="session")
def tls() -> Tls:
    return Tls()


class TlsPeer:
    """The other end of a TLS connection, over a plain non-blocking socket: what it sends, and when,
    is up to the test."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        server_side = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self.sock = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side, None if server_side else HOST
        )

    def hello(self) -> bytes:
        """Return the first bytes of a client's handshake, which are the caller's to send."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def handshake(self) -> None:
        """Do the handshake, or the rest of it."""
        await self._run(self.tls.do_handshake)

    async def handshake_but_the_last(self) -> None:
        """Do a client's handshake of TLS 1.3, and keep the last message, which leaves with what is
        written first."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, self.hello())
        while True:
            self.incoming.write(await loop.sock_recv(self.sock, 65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                return

    async def read(self, size: int) -> bytes:
        """Return at most *size* bytes that came through TLS; b"" at the end."""
        try:
            return await self._run(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send *data* through TLS."""
        await self._run(self.tls.write, data)

    async def _run(self, call: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            wants = False
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                wants = True
            if self.outgoing.pending:
                await loop.sock_sendall(self.sock, self.outgoing.read())
            if not wants:
                return result
            data = await loop.sock_recv(self.sock, 65536)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()
