"""connect(): a Stream over a new connection."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from headrace._duplex import descriptors
from headrace._duplex.bounded import bounded
from headrace._duplex.resolver import look_up
from headrace._duplex.stream import Stream
from headrace._duplex.trace import Trace, Tracing, checked_trace
from headrace._streams.arguments import (
    MOST_KEEPALIVE_SECONDS,
    MOST_USER_TIMEOUT_SECONDS,
    check_option,
    check_port,
    checked_limit,
)
from headrace._streams.connect import (
    connected_unix_socket,
    open_connection,
    open_unix_connection,
)
from headrace._streams.race import race
from headrace._streams.resolve import AddressInfo
from headrace._transport.base import Way
from headrace._transport.timing import checked_seconds
from headrace.errors import ConnectTimeout

Resolver = Callable[..., Awaitable[Sequence[AddressInfo]]]

# How often the system asks a silent peer, in seconds, and how often in vain before it gives up.
PROBE_SECONDS = 15
PROBES = 4


def connect(
    host: str | None = None,
    port: int | str | None = None,
    *,
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
    sock: socket.socket | None = None,
    tls: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    alpn: Sequence[str] = (),
    timeout: float | None = None,
    limit: int | None = None,
    local_addr: tuple[str | None, int | str] | None = None,
    family: int = 0,
    happy_eyeballs_delay: float | None = 0.25,
    interleave: int | None = None,
    nodelay: bool = True,
    keepalive: float | None = None,
    user_timeout: float | None = None,
    resolver: Resolver | None = None,
    ssl_session: ssl_module.SSLSession | None = None,
    max_fds: int = 0,
    trace: Trace | None = None,
    way: Way | None = None,
) -> Connecting:
    """Connect to *host* and *port*, to the Unix socket at *path*, or over *sock*: await it for a
    Stream, or write ``async with headrace.connect(…) as stream:``, which closes it at the end of
    the block, and resets it where the block ends by an exception.

    Args:
        host, port: a name or an address, and a number or the name of a service.
        path: of a Unix socket; one that begins with a NUL is abstract. sock: a connected socket; it
            belongs to the stream from then on.
        tls: True for the default context, which verifies *server_hostname* or *host*; or a context.
        server_hostname: the name to verify, where it is not *host*.
        alpn: protocols to offer, the best first; only with ``tls=True``, since it would change a
            context of the caller's.
        timeout: seconds for all of it: the look-up, connecting, the handshake of TLS. None for as
            long as the system takes.
        limit: the stream's buffer limit in bytes; None for 64 KiB.
        local_addr: (host, port) to connect from. family: socket.AF_INET or AF_INET6 to insist on
            one.
        happy_eyeballs_delay: seconds after which the next address is tried while the last one has
            not answered (RFC 8305 recommends 0.25); None for one after the other. interleave: as
            for open_connection().
        nodelay: TCP_NODELAY; False lets the system gather small writes (Nagle).
        keepalive: seconds, up to 32,767, after which the system asks a silent peer whether it is
            there; one that is gone ends the connection within a minute more. None: never.
        user_timeout: seconds, up to 2,147,483, that the peer may leave what was sent unacknowledged
            (TCP_USER_TIMEOUT, Linux). It sees nothing on a connection on which nothing is sent:
            *keepalive* does.
        resolver: ``async (host, port, *, family, type)`` that returns what socket.getaddrinfo()
            does, in its place. The default looks up in threads that the end of asyncio.run() does
            not wait for.
        max_fds: how many descriptors may wait to be received, up to 253; only over a Unix socket,
            in plain text. 0 for a stream that passes none.
        trace: an object that is told how it goes, and how it ends: see Trace.
        ssl_session, way: as for open_connection().

    Raises: at the call TypeError and ValueError for what is wrong or contradicts itself. When it is
    awaited ConnectTimeout, whose ``phase`` says what took too long; socket.gaierror where there is
    no such name; OSError where no address answers, with those of all as ``__cause__``, an
    ExceptionGroup; ssl.SSLError or ConnectionError where the handshake fails.
    Cancellation: safe; the socket is closed.
    """
    if [host is not None or port is not None, path is not None, sock is not None].count(True) != 1:
        raise ValueError("connect() needs either host and port, or path=, or sock=")
    if (host is None) != (port is None):
        raise ValueError("connect() needs both a host and a port")
    check_port(port, "connect")
    context = checked_context(tls, server_hostname, alpn, host)
    if resolver is not None and not callable(resolver):
        raise TypeError(f"resolver must be a coroutine function, not {type(resolver).__name__!r}")
    check_option(keepalive, "keepalive", MOST_KEEPALIVE_SECONDS)
    check_option(user_timeout, "user_timeout", MOST_USER_TIMEOUT_SECONDS)
    if max_fds and (context is not None or (path is None and sock is None)):
        raise ValueError("max_fds is for Unix sockets in plain text: path=, or sock=")
    if max_fds:
        descriptors.check(sock, max_fds)
    if local_addr is not None and (not isinstance(local_addr, tuple) or len(local_addr) != 2):
        raise TypeError(f"local_addr must be a tuple of host and port, not {local_addr!r}")
    options: dict[str, Any] = {
        "limit": checked_limit(limit),
        "ssl": context,
        "server_hostname": server_hostname if server_hostname or host is None else host,
        "ssl_session": ssl_session,
        "way": way,
    }
    if context is None:
        options["server_hostname"] = None
    connecting = Connecting(checked_seconds(timeout, "connect()"), options)
    connecting.tell(checked_trace(trace), path if host is None else host, port)
    if max_fds:
        connecting.dial_for_descriptors(path, sock, max_fds)
    elif path is not None:
        connecting.dial_path(path)
    elif sock is not None:
        connecting.dial_socket(sock)
    else:
        connecting.dial(
            host, port, family, local_addr, happy_eyeballs_delay, interleave, resolver or look_up
        )
    connecting.tune(nodelay, keepalive, user_timeout)
    return connecting


class Connecting:
    """What connect() returns: await it once, or enter it once."""

    def __init__(self, seconds: float, options: dict[str, Any]) -> None:
        self._seconds = seconds
        self._options = options
        self._phase = "connecting"
        self._trace: Callable[[], Tracing] | None = None
        self._tracing: Tracing | None = None
        self._open: Callable[[], Awaitable[tuple[Any, Any]]] | None = None
        self._tune: Callable[[socket.socket], None] | None = None
        self._stream: Stream | None = None

    # ---- what connect() says

    def tell(self, trace: Trace | None, host: Any, port: int | str | None) -> None:
        """Tell *trace* how it goes."""
        if trace is not None:
            self._trace = partial(Tracing, trace, "client", host, port)

    def dial_path(self, path: Any) -> None:
        """Connect to the Unix socket at *path*."""

        async def opened() -> tuple[Any, Any]:
            self._enter("connecting", f"connecting to {path!r}")
            loop = asyncio.get_running_loop()
            return await self._over(await connected_unix_socket(loop, path))

        self._open = opened

    def dial_for_descriptors(self, path: Any, sock: socket.socket | None, most: int) -> None:
        """Connect to the Unix socket at *path*, or take *sock*, to pass descriptors."""

        async def opened() -> tuple[Any, Any]:
            connected = sock
            if connected is None:
                self._enter("connecting", f"connecting to {path!r}")
                connected = await connected_unix_socket(asyncio.get_running_loop(), path)
            stream = descriptors.with_descriptors(
                connected, max_fds=most, limit=self._options["limit"]
            )
            return stream.reader, stream.writer

        self._open = opened

    def dial_socket(self, sock: socket.socket) -> None:
        """Take *sock*, which is connected."""

        async def opened() -> tuple[Any, Any]:
            return await self._over(sock)

        self._open = opened

    def dial(
        self,
        host: str | None,
        port: int | str | None,
        family: int,
        local_addr: tuple[str | None, int | str] | None,
        delay: float | None,
        interleave: int | None,
        resolver: Resolver,
    ) -> None:
        """Connect to *host* and *port*."""

        async def opened() -> tuple[Any, Any]:
            loop = asyncio.get_running_loop()
            hints: dict[str, Any] = {"family": family, "type": socket.SOCK_STREAM}
            self._enter("resolving", f"resolving {host}")
            addresses = checked_addresses(await resolver(host, port, **hints), host)
            local = None
            if local_addr is not None:
                local = checked_addresses(await look_up(*local_addr, **hints), local_addr[0])
            shown = ", ".join(str(each[4][0]) for each in addresses)
            self._enter("connecting", f"connecting to {shown}")
            try:
                sock = await race(loop, addresses, local, delay, interleave, True)
            except ExceptionGroup as group:
                raise one_of(group, host, port) from group
            return await self._over(sock)

        self._open = opened

    def tune(self, nodelay: bool, keepalive: float | None, user_timeout: float | None) -> None:
        """Set options of the socket once it is connected."""

        def tuned(sock: socket.socket) -> None:
            if not nodelay:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            if keepalive is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in (
                    ("TCP_KEEPIDLE", max(1, round(keepalive))),
                    ("TCP_KEEPINTVL", PROBE_SECONDS),
                    ("TCP_KEEPCNT", PROBES),
                ):
                    if hasattr(socket, name):
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            if user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = max(1, round(user_timeout * 1000))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

        if not nodelay or keepalive is not None or user_timeout is not None:
            self._tune = tuned

    # ---- connecting

    def _enter(self, phase: str, text: str) -> None:
        """Be in *phase*, which *text* says more of."""
        self._phase = text
        if self._tracing is not None:
            self._tracing.enter(phase)

    async def _over(self, sock: socket.socket) -> tuple[Any, Any]:
        """Return the pair over *sock*, which is connected."""
        if self._options["ssl"] is not None:
            peer = self._options["server_hostname"] or "the peer"
            self._enter("handshake", f"TLS handshake with {peer}")
        if sock.family == getattr(socket, "AF_UNIX", None):
            return await open_unix_connection(sock=sock, **self._options)
        return await open_connection(sock=sock, **self._options)

    async def _connected(self) -> Stream:
        if self._open is None:
            raise RuntimeError("connect() was awaited already")
        opened, self._open = self._open, None
        if self._trace is None:
            return Stream(*await self._tuned(opened))
        tracing = self._tracing = self._trace()
        tracing.begins()
        try:
            reader, writer = await self._tuned(opened)
        except BaseException as error:
            tracing.failed(error)
            raise
        tracing.connected(writer, writer.get_extra_info("peername"))
        tracing.watch(writer)
        return Stream(reader, writer)

    async def _tuned(self, opened: Callable[[], Awaitable[tuple[Any, Any]]]) -> tuple[Any, Any]:
        """Return the pair that opened() returns in time, with the options of its socket set."""

        def failure(operation: str, seconds: float, stream: Any) -> ConnectTimeout:
            return ConnectTimeout(operation, seconds, self._phase)

        async with bounded(None, "connect", failure, self._seconds, None):
            reader, writer = await opened()
        if self._tune is not None:
            # Only then: a socket that somebody has seen costs more from then on.
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                try:
                    self._tune(sock)
                except BaseException:
                    writer.transport.abort()
                    raise
        return reader, writer

    def __await__(self) -> Generator[Any, None, Stream]:
        return self._connected().__await__()

    async def __aenter__(self) -> Stream:
        self._stream = await self._connected()
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.__aexit__(kind, error, traceback)


def checked_context(
    tls: ssl_module.SSLContext | bool | None,
    server_hostname: str | None,
    alpn: Sequence[str],
    host: str | None,
) -> ssl_module.SSLContext | None:
    """Return the context of a connection, None for plain text. Raises: TypeError and ValueError."""
    if isinstance(alpn, (str, bytes)):
        raise TypeError("alpn takes several names of protocols, not one")
    if not tls:
        if server_hostname is not None or alpn:
            raise ValueError("server_hostname and alpn are only meaningful with tls")
        return None
    if tls is True:
        if not (server_hostname or host):
            raise ValueError("tls=True verifies a name: give server_hostname, or a host")
        context = ssl_module.create_default_context()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
    if not isinstance(tls, ssl_module.SSLContext):
        raise TypeError(f"tls must be True or an SSLContext, not {type(tls).__name__!r}")
    if alpn:
        raise ValueError("alpn would change the context: call its set_alpn_protocols()")
    if tls.check_hostname and not (server_hostname or host):
        raise ValueError("the context verifies a name: give server_hostname, or a host")
    return tls


def checked_addresses(addresses: Any, host: str | None) -> list[AddressInfo]:
    """Return *addresses*, which a resolver has found for *host*, as a list. Raises: TypeError where
    they are no addresses, OSError where there are none."""
    found = list(addresses)
    for each in found:
        if not isinstance(each, tuple) or len(each) != 5 or not isinstance(each[4], tuple):
            raise TypeError(
                "a resolver returns tuples of (family, type, proto, canonname, address), as "
                f"socket.getaddrinfo() does, not {each!r}"
            )
    if not found:
        raise OSError(f"there is no address of {host!r}")
    return found


def one_of(group: ExceptionGroup[Any], host: Any, port: Any) -> OSError:
    """Return one error for those in *group*, of the class of the last."""
    errors = [each for each in group.exceptions if isinstance(each, OSError)]
    texts = dict.fromkeys(each.strerror or str(each) for each in errors)
    text = f"cannot connect to {host}:{port}: {'; '.join(texts)}"
    number = errors[-1].errno if errors else None
    return OSError(text) if number is None else OSError(number, text)
