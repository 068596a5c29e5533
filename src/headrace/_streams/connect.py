"""open_connection() and open_unix_connection(): a reader and a writer for a new connection.

The loop connects wherever it can. headrace resolves and connects itself for what a loop lacks
(uvloop has no happy_eyeballs_delay, interleave or all_errors; asyncio's own loop has all_errors
from 3.12) and for what asyncio's race between addresses gets wrong, and then hands the connected
socket to the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Sequence
from typing import Any

from headrace._streams.arguments import (
    check_context,
    check_port,
    check_session,
    check_stream_socket,
    check_timeouts,
    check_unix_socket,
    checked_limit,
    given,
)
from headrace._streams.factory import make, receive_bytes
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.backend import Secure, Way, adopt, choose

AddressInfo = tuple[int, int, int, str, Any]


async def open_connection(
    host: str | bytes | None = None,
    port: int | str | None = None,
    *,
    limit: int | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    sock: socket.socket | None = None,
    local_addr: tuple[str | None, int | str] | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    happy_eyeballs_delay: float | None = None,
    interleave: int | None = None,
    all_errors: bool = False,
    ssl_session: ssl_module.SSLSession | None = None,
    way: Way | None = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect to *host* and *port* over TCP, and TLS where *ssl* is given; return the reader and
    the writer.

    Args:
        limit: the reader's buffer limit in bytes; None for 64 KiB, asyncio's default.
        ssl: a context, or True for the default one. *server_hostname* (default: *host*) is the name
            to verify; "" for none.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds; None for asyncio's 60 and 30.
        ssl_session: the session of an earlier connection to the same server and with the same
            context, to be resumed if the server likes: its
            ``get_extra_info("ssl_object").session``, in TLS 1.3 once something was read. (Ask for
            that once and keep it: each time, CPython up to 3.13 loses 6 KB.) On the portable way it
            is not used.
        family, proto, flags: passed to getaddrinfo().
        sock: a connected socket to use instead of *host* and *port*. It belongs to the writer from
            then on.
        local_addr: (host, port) to connect from.
        happy_eyeballs_delay: seconds after which the next address is tried while the last one has
            not answered (RFC 8305 recommends 0.25); None tries one after the other. interleave: how
            many addresses of the first family come before the families alternate; default 1 with a
            delay, else 0.
        all_errors: raise what went wrong with every address, as an ExceptionGroup of OSErrors.
        way: "native" or "portable" to insist on one way to the socket; None for the best that there
            is, or for what the environment variable HEADRACE_WAY says. `headrace doctor` explains
            the choice.

    Raises: OSError where no address can be reached (the errors in one message where they differ);
    ssl.SSLError or ConnectionError where the handshake fails, also when it times out; ValueError
    for arguments that contradict each other.
    Cancellation: safe; the socket is closed.
    """
    limit = checked_limit(limit)
    loop = asyncio.get_running_loop()
    if server_hostname is not None and not ssl:
        raise ValueError("server_hostname is only meaningful with ssl")
    if ssl and server_hostname is None and not host:
        raise ValueError("You must set server_hostname when using ssl without a host")
    check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    check_session(ssl, ssl_session)
    check_context(ssl, ", True")
    if ssl and server_hostname is None:
        server_hostname = host  # type: ignore[assignment]  # bytes are refused by the ssl module
    named = host is not None or port is not None
    if sock is not None:
        if named:
            raise ValueError("host/port and sock can not be specified at the same time")
        check_stream_socket(sock)
    elif not named:
        raise ValueError("host and port was not specified and no sock specified")
    check_port(port, "connect")
    if isinstance(local_addr, tuple) and len(local_addr) == 2:
        check_port(local_addr[1], "bind")

    secure, tls = _secured(
        ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout, ssl_session
    )
    choice = await choose(loop, limit, tls=tls and tls.context, sock=sock, way=way)
    reader, protocol = make(loop, limit, choice)
    native = choice.way == "native"
    if sock is not None:
        if native:
            transport = await adopt(loop, sock, protocol, receive_bytes(limit), tls)
        else:
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock, **secure)
    elif (
        not native
        and happy_eyeballs_delay is None
        and not interleave
        and not all_errors
        and (local_addr is None or is_asyncio(loop))
    ):
        where = given(
            family=family or None, proto=proto or None, flags=flags or None, local_addr=local_addr
        )
        # typeshed: a host may be bytes too, and a port the name of a service.
        transport, _ = await loop.create_connection(lambda: protocol, host, port, **where, **secure)  # type: ignore[arg-type]
    else:
        hints = {"family": family, "type": socket.SOCK_STREAM, "proto": proto, "flags": flags}
        addresses = await resolve(loop, host, port, hints)
        local = None
        if local_addr is not None:
            if not isinstance(local_addr, tuple) or len(local_addr) < 2:
                raise TypeError(f"local_addr must be a tuple of host and port, not {local_addr!r}")
            local = await resolve(loop, *local_addr[:2], hints)
        connected = await race(loop, addresses, local, happy_eyeballs_delay, interleave, all_errors)
        if native:
            transport = await _or_close(
                loop, connected, adopt(loop, connected, protocol, receive_bytes(limit), tls)
            )
        else:
            transport = await _hand_over(loop, loop.create_connection, protocol, connected, secure)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def open_unix_connection(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
    *,
    limit: int | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    sock: socket.socket | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    ssl_session: ssl_module.SSLSession | None = None,
    way: Way | None = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect to the Unix socket at *path*, or take the connected *sock*; return the reader and the
    writer.

    A path that begins with a NUL is an abstract socket of Linux. The other arguments are as for
    open_connection(); with *ssl* the *server_hostname* has to be given.

    Raises: as for open_connection(). Cancellation: as for open_connection().
    """
    limit = checked_limit(limit)
    loop = asyncio.get_running_loop()
    if ssl and server_hostname is None:
        raise ValueError("you have to pass server_hostname when using ssl")
    if server_hostname is not None and not ssl:
        raise ValueError("server_hostname is only meaningful with ssl")
    check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    check_session(ssl, ssl_session)
    check_context(ssl, ", True")
    if sock is not None:
        if path is not None:
            raise ValueError("path and sock can not be specified at the same time")
        check_unix_socket(sock)
    elif path is None:
        raise ValueError("no path and sock were specified")

    secure, tls = _secured(
        ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout, ssl_session
    )
    choice = await choose(loop, limit, tls=tls and tls.context, sock=sock, way=way)
    reader, protocol = make(loop, limit, choice)
    native = choice.way == "native"
    if sock is not None:
        if native:
            transport = await adopt(loop, sock, protocol, receive_bytes(limit), tls)
        else:
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=sock, **secure)
    elif not native and is_asyncio(loop):
        where = os.fspath(path)  # type: ignore[arg-type]  # not None here
        transport, _ = await loop.create_unix_connection(lambda: protocol, where, **secure)
    else:
        # libuv takes a path for a C string, and so knows no abstract sockets.
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.setblocking(False)
            # not None here
            await loop.sock_connect(connected, os.fspath(path))  # type: ignore[arg-type]
        except BaseException:
            connected.close()
            raise
        if native:
            transport = await _or_close(
                loop, connected, adopt(loop, connected, protocol, receive_bytes(limit), tls)
            )
        else:
            transport = await _hand_over(
                loop, loop.create_unix_connection, protocol, connected, secure
            )
    return reader, StreamWriter(transport, protocol, reader, loop)


def _secured(
    ssl: ssl_module.SSLContext | bool | None,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
    session: ssl_module.SSLSession | None,
) -> tuple[dict[str, Any], Secure | None]:
    """Return how a connection is secured: as the options of a loop, and as ours; {} and None where
    it is not."""
    options = given(
        # True and False are as good as a context and None.
        ssl=ssl or None,
        server_hostname=server_hostname,
        ssl_handshake_timeout=handshake_timeout,
        ssl_shutdown_timeout=shutdown_timeout,
    )
    context = context_for(ssl, server_hostname)
    if context is None:
        return options, None
    return options, Secure(context, server_hostname, handshake_timeout, shutdown_timeout, session)


def context_for(
    ssl: ssl_module.SSLContext | bool | None, server_hostname: str | None
) -> ssl_module.SSLContext | None:
    """Return the context that *ssl* stands for: True is the default one, which checks names where
    there is one to check."""
    if ssl is not True:
        return ssl or None
    context = ssl_module.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


def is_asyncio(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether *loop* connects with asyncio's own code."""
    return isinstance(loop, asyncio.BaseEventLoop)


async def _hand_over(
    loop: Any,
    create: Any,
    protocol: asyncio.BaseProtocol,
    sock: socket.socket,
    secure: dict[str, Any],
) -> Any:
    """Return the transport that the loop makes of *sock*, which is closed where it makes none."""
    transport, _ = await _or_close(loop, sock, create(lambda: protocol, sock=sock, **secure))
    return transport


async def _or_close(loop: Any, sock: socket.socket, making: Awaitable[Any]) -> Any:
    """Return what *making* a transport of *sock* returns; the socket is closed where it raises."""
    try:
        return await making
    except BaseException:
        # Where there is a transport it closes the socket in the loop's next turn, before us; a
        # second close does nothing.
        loop.call_soon(sock.close)
        raise


async def resolve(
    loop: asyncio.AbstractEventLoop, host: Any, port: Any, hints: dict[str, int]
) -> Sequence[AddressInfo]:
    """Return what getaddrinfo() says, never nothing. Raises: OSError (socket.gaierror where the
    name is unknown)."""
    found: Sequence[AddressInfo]
    try:
        # What needs no resolver needs no thread for it either.
        found = socket.getaddrinfo(
            host,
            port,
            **{**hints, "flags": hints["flags"] | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV},
        )
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, **hints)
    if not found:
        raise OSError("getaddrinfo() returned empty list")
    return found


async def race(
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[AddressInfo],
    local: Sequence[AddressInfo] | None,
    delay: float | None,
    interleave: int | None,
    all_errors: bool,
) -> socket.socket:
    """Return a socket that is connected to the first of *addresses* that answers; raise as
    open_connection() says."""
    # When it is needed: importing it takes a third as long as headrace.
    import aiohappyeyeballs

    attempts = Attempts(loop, local)
    try:
        return await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=delay,
            interleave=interleave,
            loop=attempts,  # type: ignore[arg-type]  # it has what is used of a loop
            socket_factory=attempts.make_socket,
        )
    except Exception as error:
        attempts.forget_frames(error)
        # The callback that woke us holds the last attempt's future, and so the error, until the
        # loop turns.
        await asyncio.sleep(0)
        raise (attempts.failure(all_errors) or error) from None
    finally:
        # The errors' tracebacks refer to frames that refer to the attempts.
        attempts.errors.clear()


async def connect_as_given(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any
) -> None:
    """Connect *sock*, non-blocking, to *address* as it is: uvloop resolves it again, and loses its
    scope and flow label.

    Raises: OSError. Cancellation: safe; the socket is still the caller's.
    """
    try:
        sock.connect(address)
        return
    except (BlockingIOError, InterruptedError):
        pass
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"Connect call failed {address}")


class Attempts:
    """The sockets of one race: makes, binds and connects them, and remembers everything that went
    wrong.

    It stands in for the loop, of which the library uses nothing but sock_connect().
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, local: Sequence[AddressInfo] | None
    ) -> None:
        self.loop = loop
        self.local = local
        self.errors: list[Exception] = []

    def make_socket(self, address: AddressInfo) -> socket.socket:
        """Return a socket for *address*, bound to the first local address of its family that is
        free."""
        family, kind, proto = address[:3]
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            self.errors.append(error)
            raise
        try:
            self._bind(sock, family)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, family: int) -> None:
        if self.local is None:
            return
        refused: OSError | None = None
        for where in (info[4] for info in self.local if info[0] == family):
            try:
                sock.bind(where)
                return
            except OSError as error:
                refused = OSError(
                    error.errno,
                    f"error while attempting to bind on address {where!r}: {str(error).lower()}",
                )
                self.errors.append(refused)
        if refused is None:
            refused = OSError(f"no matching local address with {family=} found")
            self.errors.append(refused)
        raise refused

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect *sock*, and remember why it failed."""
        try:
            if sock.family == socket.AF_INET6 and not is_asyncio(self.loop):
                await connect_as_given(self.loop, sock, address)
            else:
                await self.loop.sock_connect(sock, address)
        except Exception as error:
            self.errors.append(error)
            raise

    def forget_frames(self, raised: Exception) -> None:
        """Drop the tracebacks: frames of the library and of the loop hold what they have raised,
        which makes each failure a cycle."""
        raised.__traceback__ = None
        for error in self.errors:
            error.__traceback__ = None

    def failure(self, all_errors: bool) -> Exception | None:
        """Return what a race that nobody won raises, in asyncio's words; None where no attempt was
        made."""
        errors = self.errors
        if not errors:
            return None
        strange = next((error for error in errors if not isinstance(error, OSError)), None)
        if strange is not None:
            # No address' fault: an argument was wrong (a port above 65535 is an OverflowError).
            return strange
        if all_errors:
            return ExceptionGroup("create_connection failed", list(errors))
        messages = [str(error) for error in errors]
        if len(set(messages)) == 1:
            return errors[0]
        return OSError("Multiple exceptions: {}".format(", ".join(messages)))
