"""Which way a connection takes to its socket, and why, in words.

native         the socket is ours, and the loop watches one epoll set for all of them (native/):
               Linux, compiled
portable       a protocol over the transport that the loop itself makes, in one of two forms:
  buffered       the transport receives into one buffer that all connections of the loop share
                 (asyncio.BufferedProtocol)
  data_received  the transport hands over a new bytes object for every receive (asyncio.Protocol)
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import ssl
import sys
from asyncio import constants
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from headrace._transport.receive import is_small
from headrace._transport.trial import epoll_obstacle, watcher_of

native: Any = None
_listener: Any = None
_tls: Any = None
try:
    native = importlib.import_module("headrace._transport.native.transport")
    _listener = importlib.import_module("headrace._transport.native.listener")
    _tls = importlib.import_module("headrace._transport.native.tls_engine")
except ModuleNotFoundError:  # not compiled, or not on Linux
    pass

Way = Literal["native", "portable"]
WAYS = ("native", "portable")

# Forces a way for all connections that do not ask for one themselves.
VARIABLE = "HEADRACE_WAY"

# What a loop's transport or server would call of a socket, and what we call past the socket object.
SOCKET_CALLS = ("accept", "recv", "recv_into", "send", "sendmsg")

# What of a loop makes its transports: who overrides one means to see every connection.
LOOP_CALLS = ("create_connection", "create_server", "create_unix_connection", "create_unix_server")


class Choice(NamedTuple):
    """How a connection is served: the *way* to the socket, the *form* of the protocol, and the
    *reason*, one sentence."""

    way: Way
    form: Literal["direct", "buffered", "data_received"]
    reason: str


NATIVE = Choice(
    "native",
    "direct",
    "headrace serves the socket itself, which costs less than any transport of a loop and loses "
    "nothing around the end",
)
SELECTOR = Choice(
    "portable",
    "buffered",
    "asyncio's selector loop allocates 256 KiB for every receive unless the protocol brings a "
    "buffer",
)
LIBUV = Choice(
    "portable",
    "data_received",
    "uvloop receives into a buffer of its own, and handing over bytes is its fastest path",
)
LIBUV_SMALL = Choice(
    "portable",
    "buffered",
    "the limit is below 64 KiB: uvloop would receive 256,000 bytes at a time, and a buffer of ours "
    "keeps a receive small",
)
UNKNOWN = Choice(
    "portable",
    "data_received",
    "this loop may fill a buffer while others run, as a proactor does, so that connections cannot "
    "share one",
)


async def choose(
    loop: asyncio.AbstractEventLoop,
    limit: int,
    *,
    tls: object = None,
    sock: socket.socket | None = None,
    way: Way | None = None,
) -> Choice:
    """Return what a connection of *loop*, the running one, gets whose reader has the buffer limit
    *limit* (bytes).

    *tls* is the SSLContext where there is one. *way* asks for one way, else the environment
    variable HEADRACE_WAY does; whoever asks for the native one knows his loop, and where nobody
    asks a class of loops that is seen for the first time is tried: see trial.py.
    Raises: ValueError where *way* is no way, or cannot be. Cancellation: safe.
    """
    if way is not None and way not in WAYS:
        raise ValueError(f"way must be 'native', 'portable' or None, not {way!r}")
    asked = way or _from_environment()
    obstacle = "it was asked for" if asked == "portable" else _obstacle(tls, sock)
    if obstacle is None and asked is None:
        obstacle = _replaced(loop) or await epoll_obstacle(loop)
    if obstacle is None:
        return NATIVE
    if way == "native":
        raise ValueError(f"way='native' cannot be: {obstacle}")
    portable = _form(loop, limit)
    return Choice("portable", portable.form, f"{portable.reason} (not the native way: {obstacle})")


def _from_environment() -> str | None:
    asked = os.environ.get(VARIABLE) or None
    if asked is not None and asked not in WAYS:
        raise ValueError(
            f"the environment variable {VARIABLE} must be 'native' or 'portable', not {asked!r}"
        )
    return asked


def platform_obstacle() -> str | None:
    """Return why there is no native way here at all, or None where there is."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux"
    if native is None:
        return "this is the pure-Python build"
    return None


def _obstacle(tls: object, sock: socket.socket | None) -> str | None:
    """Return why a connection cannot take the native way on any loop, or None where it can."""
    obstacle = platform_obstacle()
    if obstacle is not None:
        return obstacle
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        return f"TLS of a {type(tls).__name__} is the loop's"
    if sock is not None:
        for name in SOCKET_CALLS:
            if getattr(type(sock), name) is not getattr(socket.socket, name):
                return f"{type(sock).__name__} has a {name}() of its own"
    return None


def _replaced(loop: asyncio.AbstractEventLoop) -> str | None:
    """Return why *loop* may mean to see every connection, or None where it does not.

    It does where a method that the native way does without is overridden, on the object or in a
    class that is not from the package which made the loop, or is that of a loop in front of another
    one.
    """
    watcher = watcher_of(loop)
    attributes = loop.__dict__
    kind = type(watcher)
    theirs = _theirs(kind)
    for name in LOOP_CALLS:
        if (
            name in attributes
            or getattr(kind, name, None) is not getattr(theirs, name, None)
            or (
                watcher is not loop
                and getattr(getattr(loop, name, None), "__self__", watcher) is not watcher
            )
        ):
            return f"somebody has put a {name}() of his own into this loop"
    return None


def _theirs(kind: type) -> type:
    """Return the class of the loops of *kind* that they had before somebody derived his own from
    it."""
    try:
        return _made[kind]
    except KeyError:
        pass
    classes = [cls for cls in kind.__mro__ if cls is not asyncio.AbstractEventLoop]
    # Who first defined add_reader() has made the loop.
    maker = next((_package(cls) for cls in reversed(classes) if "add_reader" in cls.__dict__), "")
    theirs = _made[kind] = next(
        (cls for cls in classes if _package(cls) == maker), asyncio.AbstractEventLoop
    )
    return theirs


_made: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _form(loop: asyncio.AbstractEventLoop, limit: int) -> Choice:
    if isinstance(loop, BaseSelectorEventLoop):
        return SELECTOR
    if is_libuv(loop):
        return LIBUV_SMALL if is_small(limit) else LIBUV
    return UNKNOWN


def is_libuv(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether *loop* is uvloop's, or of a class derived from it."""
    return any(_package(cls) == "uvloop" for cls in type(loop).__mro__)


class Secure(NamedTuple):
    """How connections are secured: what the functions that open them are given as ssl=…,
    server_hostname=… and the rest."""

    context: ssl.SSLContext
    # The name that a client verifies; None on a server, or for no name.
    server_hostname: str | None = None
    handshake_timeout: float | None = None
    shutdown_timeout: float | None = None
    # A session to resume, which a client has from an earlier connection. No loop's transport takes
    # one.
    resume: ssl.SSLSession | None = None

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds for the handshake and for the shutdown: asyncio's where none are given."""
        handshake, shutdown = self.handshake_timeout, self.shutdown_timeout
        return (
            constants.SSL_HANDSHAKE_TIMEOUT if handshake is None else handshake,
            constants.SSL_SHUTDOWN_TIMEOUT if shutdown is None else shutdown,
        )

    def session(self, server_side: bool) -> Any:
        """Return a new session of ours, for the native way: see tls.pyx."""
        return _tls.TLS(
            self.context,
            server_side,
            None if server_side else self.server_hostname or None,
            self.resume,
        )


async def adopt(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: Any,
    receive_bytes: int,
    secure: Secure | None = None,
) -> Any:
    """Return a transport of ours for the connected *sock*, after the handshake where it is to be
    *secure*: see socket.pyx."""
    if secure is None:
        return native.adopt(loop, sock, protocol, receive_bytes)
    return await native.adopt_secure(
        loop, sock, protocol, receive_bytes, secure.session(server_side=False), *secure.timeouts
    )


def is_native(transport: asyncio.BaseTransport) -> bool:
    """Tell whether *transport* is one of ours, in plain text."""
    return (
        native is not None
        and type(transport) is native.SocketTransport
        and transport.get_extra_info("sslcontext") is None
    )


def linger(transport: Any) -> None:
    """Have close() take nothing from a peer that still sends: see SocketTransport.linger(). A
    transport of a loop's cannot."""
    if is_native(transport):
        transport.linger()


async def start_tls(transport: Any, secure: Secure, early: bytes, server_side: bool) -> None:
    """Go on in TLS with *transport*, which is_native(): see socket.pyx."""
    await transport.start_tls(secure.session(server_side), early, *secure.timeouts)


def make_listener(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    factory: Any,
    receive_bytes: int,
    secure: Secure | None = None,
) -> Any:
    """Return a Listener for the bound *sock*: see listener.pyx."""
    return _listener.Listener(
        loop,
        sock,
        factory,
        receive_bytes,
        None if secure is None else (secure.context, *secure.timeouts),
    )
