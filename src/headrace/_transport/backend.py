"""Which way a connection takes to its socket: chosen here, once, with the reason in words.

native    the socket is ours, and the loop watches one epoll set for all of them (native/): Linux,
          compiled
portable  a protocol over the transport that the loop itself makes (portable.py)
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from typing import Any

from headrace._transport.base import Backend, Choice, Way
from headrace._transport.loops import replaced
from headrace._transport.portable import Portable, form_for
from headrace._transport.tls_options import TLSOptions, is_standard
from headrace._transport.trial import epoll_obstacle

# The module native/backend.py where there is the native way, else None.
native: Any = None
try:
    # Compiled, and so not there elsewhere. What native/backend.py itself imports may come only when
    # it is used (PEP 810).
    importlib.import_module("headrace._transport.native.transport")
    native = importlib.import_module("headrace._transport.native.backend")
except ModuleNotFoundError:  # not compiled, or not on Linux
    pass

WAYS = ("native", "portable")

# Forces a way for all connections that do not ask for one themselves.
VARIABLE = "HEADRACE_WAY"

# What a loop's transport or server would call of a socket, and what we call past the socket object.
SOCKET_CALLS = ("accept", "recv", "recv_into", "send", "sendmsg")

NATIVE = Choice(
    "native",
    "direct",
    "headrace serves the socket itself, which costs less than any transport of a loop and loses "
    "nothing around the end",
)


async def for_loop(
    loop: asyncio.AbstractEventLoop,
    limit: int,
    *,
    tls: TLSOptions | None = None,
    sock: socket.socket | None = None,
    way: Way | None = None,
) -> Backend:
    """Return what serves the connections of *loop*, the running one, whose readers have the buffer
    limit *limit* (bytes).

    Args, raises, cancellation: as for choose(), which chooses the way.
    """
    context = None if tls is None else tls.context
    choice = await choose(loop, limit, tls=context, sock=sock, way=way)
    kind: type[Backend] = Portable if choice.way == "portable" else native.Native
    return kind(loop, limit, choice)


async def choose(
    loop: asyncio.AbstractEventLoop,
    limit: int,
    *,
    tls: object = None,
    sock: socket.socket | None = None,
    way: Way | None = None,
) -> Choice:
    """Return how a connection of *loop*, the running one, is served whose reader has the buffer
    limit *limit* (bytes).

    Args:
        tls: the SSLContext, where there is one.
        sock: the socket, where it is there already.
        way: asks for one way; where it is None the environment variable HEADRACE_WAY does. Whoever
            asks for the native one knows their loop. Where nobody asks, a class of loops that is
            seen for the first time is tried: see trial.py.

    Raises: ValueError where *way* is no way, or cannot be. Cancellation: safe.
    """
    if way is not None and way not in WAYS:
        raise ValueError(f"way must be 'native', 'portable' or None, not {way!r}")
    asked = way or _from_environment()
    obstacle = "it was asked for" if asked == "portable" else _obstacle(tls, sock)
    if obstacle is None and asked is None:
        obstacle = replaced(loop) or await epoll_obstacle(loop)
    if obstacle is None:
        return NATIVE
    if way == "native":
        raise ValueError(f"way='native' cannot be: {obstacle}")
    portable = form_for(loop, limit)
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
    if tls is not None and not is_standard(tls):
        return f"TLS of a {type(tls).__name__} is the loop's"
    if sock is not None:
        for name in SOCKET_CALLS:
            if getattr(type(sock), name) is not getattr(socket.socket, name):
                return f"{type(sock).__name__} has a {name}() of its own"
    return None


def of_transport(transport: asyncio.BaseTransport, tls: TLSOptions | None = None) -> type[Backend]:
    """Return what goes on with *transport*, in TLS where there is *tls*: Native where it is one of
    ours, in plain text."""
    if native is None or not native.is_ours(transport):
        return Portable
    if tls is not None and not is_standard(tls.context):
        return Portable
    kind: type[Backend] = native.Native
    return kind


def unsent_below(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes wait below *transport*, which it does not count."""
    return of_transport(transport).unsent_below(transport)


def linger(transport: asyncio.BaseTransport) -> None:
    """Have close() of *transport* take nothing from a peer that still sends, where it can: see
    SocketTransport.linger()."""
    of_transport(transport).linger(transport)
