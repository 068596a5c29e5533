"""Where a server listens: addresses, Unix sockets, and sockets that were bound elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from headrace._streams.arguments import check_stream_socket
from headrace._streams.binding import bound_sockets
from headrace._streams.socketfile import Path, SocketFile, bound_socket, is_abstract

# The seconds between the probes of a silent peer, and how many may be lost: a dead peer is found
# within the time of serve()'s keep_alive and one minute.
PROBE_SECONDS = 20
PROBES = 3


class Endpoint(Protocol):
    """A place to listen at."""

    @property
    def name(self) -> str:
        """Where that is, in a few characters; once there are sockets, with the port that was
        bound."""
        ...

    async def sockets(self, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
        """Return bound sockets. Raises: OSError where that cannot be."""
        ...

    def close(self) -> None:
        """Clean up, once the sockets are closed."""


class Addresses:
    """All addresses that a host stands for, at one port."""

    def __init__(
        self,
        host: str | Sequence[str] | None,
        port: int | str | None,
        reuse_port: bool,
        keep_alive: float | None,
    ) -> None:
        self._host = host
        self._port = port
        self._reuse_port = reuse_port
        self._keep_alive = keep_alive
        shown = host if isinstance(host, str) else "*" if not host else ",".join(host)
        self.name = f"{shown}:{port or 0}"

    async def sockets(self, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
        """See Endpoint. Raises: OSError also where one of several hosts cannot be listened at: who
        names it wants it."""
        found = await bound_sockets(
            loop,
            self._host,
            self._port,
            socket.AF_UNSPEC,
            socket.AI_PASSIVE,
            None,
            self._reuse_port,
            each_host=True,
        )
        if self._port in (None, 0, "0"):
            ports = dict.fromkeys(str(sock.getsockname()[1]) for sock in found)
            self.name = f"{self.name.removesuffix('0')}{','.join(ports)}"
        for sock in found:
            # Connections inherit what their listening socket has.
            set_keep_alive(sock, self._keep_alive)
        return found

    def twin(self, sock: socket.socket) -> socket.socket:
        """Return another socket that is bound where *sock* is; both have SO_REUSEPORT."""
        other = socket.socket(sock.family, sock.type, sock.proto)
        try:
            # Not before sock was bound: that fails where another program listens.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
            if other.family == socket.AF_INET6:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            set_keep_alive(other, self._keep_alive)
            other.bind(sock.getsockname())
        except BaseException:
            other.close()
            raise
        return other

    def close(self) -> None:
        """See Endpoint."""


class UnixPath:
    """A Unix socket in the file system, or an abstract one of Linux."""

    def __init__(
        self, path: Path, mode: int | None, owner: str | int | None, group: str | int | None
    ) -> None:
        self._path = path
        self._mode = mode
        self._owner = owner
        self._group = group
        self._file: SocketFile | None = None
        self.name = f"unix:{os.fsdecode(path)}"

    async def sockets(self, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
        """See Endpoint. Nobody can connect before the mode and the owner are set: the socket does
        not listen yet."""
        sock = bound_socket(self._path)
        self._file = SocketFile(sock)
        try:
            path = os.fspath(self._path)
            if is_abstract(path):
                if (self._mode, self._owner, self._group) != (None, None, None):
                    raise ValueError(f"an abstract Unix socket has no mode and no owner: {path!r}")
            else:
                if self._owner is not None or self._group is not None:
                    # either may be None
                    shutil.chown(path, self._owner, self._group)  # type: ignore[arg-type]
                if self._mode is not None:
                    os.chmod(path, self._mode)
        except BaseException:
            sock.close()
            self._file.remove()
            raise
        return [sock]

    def close(self) -> None:
        """See Endpoint."""
        if self._file is not None:
            self._file.remove()


class Inherited:
    """Sockets that a service manager or a supervisor has bound, and perhaps listens on."""

    def __init__(self, sockets: Sequence[socket.socket], keep_alive: float | None) -> None:
        self._sockets = list(sockets)
        self._keep_alive = keep_alive
        for sock in self._sockets:
            check_stream_socket(sock)
        self.name = ",".join(str(sock.getsockname()) for sock in self._sockets)

    async def sockets(self, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
        """See Endpoint."""
        for sock in self._sockets:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                set_keep_alive(sock, self._keep_alive)
        return self._sockets

    def close(self) -> None:
        """See Endpoint."""
        for sock in self._sockets:
            sock.close()


def set_keep_alive(sock: socket.socket, seconds: float | None) -> None:
    """Have the system ask a peer that has been silent for *seconds* whether it is there; None asks
    never."""
    if seconds is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    options: list[tuple[str, Any]] = [
        ("TCP_KEEPIDLE", max(1, round(seconds))),
        ("TCP_KEEPINTVL", PROBE_SECONDS),
        ("TCP_KEEPCNT", PROBES),
    ]
    for name, value in options:
        with contextlib.suppress(AttributeError, OSError):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
