"""Arguments that contradict each other, the errors that asyncio raises for them, and the check."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"
# Stands for a socket of the test's, in the arguments.
SOME = object()
# For each function with a host and a port, of a client or of a server.
OF_TCP = [
    (
        dict(host=LOOPBACK, port=0, sock=SOME),
        ValueError,
        "host/port and sock can not be specified at the same time",
    ),
    (
        dict(host=LOOPBACK, port=0, ssl_handshake_timeout=1),
        ValueError,
        "ssl_handshake_timeout is only meaningful with ssl",
    ),
    (
        dict(host=LOOPBACK, port=0, ssl_shutdown_timeout=1),
        ValueError,
        "ssl_shutdown_timeout is only meaningful with ssl",
    ),
    (dict(host=LOOPBACK, port=0, colour="red"), TypeError, "colour"),
]
# For each function with a path.
OF_UNIX = [
    (
        dict(path="x", sock=SOME),
        ValueError,
        "path and sock can not be specified at the same time",
    ),
    (dict(sock=socket.AF_INET), ValueError, "A UNIX Domain Stream Socket was expected"),
    (dict(path="x", ssl_handshake_timeout=1), ValueError, "only meaningful with ssl"),
    (dict(path="x", ssl_shutdown_timeout=1), ValueError, "only meaningful with ssl"),
    (dict(path="x", colour="red"), TypeError, "colour"),
]


async def refuses(
    call: Callable[..., Awaitable[Any]],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    family: socket.AddressFamily = socket.AF_INET,
) -> None:
    """Check that call(**options) raises *error*, whose text matches *message*, and that a socket
    that was passed stays open. The option ``sock`` is SOME, for a socket of *family*, or the family
    of the socket."""
    passed = options.get("sock", SOME)
    with socket.socket(family if passed is SOME else passed) as sock:
        arguments = options | ({"sock": sock} if "sock" in options else {})
        with pytest.raises(error, match=message):
            await call(**arguments)
        assert sock.fileno() >= 0
