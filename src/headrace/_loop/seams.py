"""Where asyncio's loop is overridden, and whether it is there as we know it.

The seams are private names of asyncio's. Where a Python has them otherwise than those that this was
written for, nothing is overridden, and the loop is asyncio's in all its parts.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import base_events, selector_events
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headrace._transport.backend import platform_obstacle

_SECURE = (
    "rawsock",
    "protocol",
    "sslcontext",
    "waiter",
    "server_side",
    "server_hostname",
    "extra",
    "server",
    "ssl_handshake_timeout",
    "ssl_shutdown_timeout",
)
_UPGRADE = (
    "transport",
    "protocol",
    "sslcontext",
    "server_side",
    "server_hostname",
    "ssl_handshake_timeout",
    "ssl_shutdown_timeout",
)
_SERVING = (
    "protocol_factory",
    "sock",
    "sslcontext",
    "server",
    "backlog",
    "ssl_handshake_timeout",
    "ssl_shutdown_timeout",
)
_PLAIN = ("sock", "protocol", "waiter", "extra", "server")

# What is overridden or called, with its parameters as each Python that this is tested on has them:
# 3.15 has added *context*, 3.13 the transport that a server counts.
KNOWN: dict[str, tuple[tuple[str, ...], ...]] = {
    "_make_socket_transport": (_PLAIN, (*_PLAIN, "context")),
    "_make_ssl_transport": (_SECURE, (*_SECURE, "context")),
    "_start_serving": (_SERVING, (*_SERVING, "context")),
    "start_tls": (_UPGRADE,),
    "_accept_connection": (_SERVING, (*_SERVING, "context")),
    "_ensure_fd_no_transport": (("fd",),),
    "_sendfile_native": (("transp", "file", "offset", "count"),),
    "Server._attach": ((), ("transport",)),
    "Server._detach": ((), ("transport",)),
}


def obstacle() -> str | None:
    """Return why the loop's transports are asyncio's here, or None where they are ours."""
    return platform_obstacle() or unknown()


def unknown(
    loop: type = selector_events.BaseSelectorEventLoop, server: type = base_events.Server
) -> str | None:
    """Return what *loop* and *server*, classes of asyncio's, have otherwise than known, or None."""
    for name, is_known in seams(loop, server).items():
        if not is_known:
            return f"this Python's {name}() is not as known"
    return None


def seams(
    loop: type = selector_events.BaseSelectorEventLoop, server: type = base_events.Server
) -> dict[str, bool]:
    """Return, by the names of KNOWN, whether *loop* and *server* have each as known."""
    found = {}
    for name, known in KNOWN.items():
        owner, _, method = name.rpartition(".")
        found[name] = _parameters(getattr(server if owner else loop, method, None)) in known
    return found


def _parameters(method: Any) -> Iterable[str] | None:
    if method is None:
        return None
    return tuple(inspect.signature(method).parameters)[1:]


# Asked once: what a class has, it has for good.
OBSTACLE = obstacle()

# The loop that asyncio.run() takes on this platform.
if TYPE_CHECKING:

    class BASE(asyncio.SelectorEventLoop):
        """asyncio's loop, with its private methods that are overridden or called."""

        def _make_socket_transport(self, *args: Any, **options: Any) -> Any: ...
        def _make_ssl_transport(self, *args: Any, **options: Any) -> Any: ...
        def _start_serving(self, *args: Any, **options: Any) -> None: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...

elif sys.platform == "win32":
    BASE = asyncio.ProactorEventLoop
else:
    BASE = asyncio.SelectorEventLoop
