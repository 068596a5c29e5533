"""Names and ports -> addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any

AddressInfo = tuple[int, int, int, str, Any]


async def resolve(
    loop: asyncio.AbstractEventLoop, host: Any, port: Any, hints: dict[str, int]
) -> Sequence[AddressInfo]:
    """Return what getaddrinfo() says of *host* and *port* with *hints*, its other arguments.

    Returns: never nothing. Raises: OSError (socket.gaierror where the name is unknown).
    Cancellation: safe.
    """
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


async def unique_hosts(
    loop: asyncio.AbstractEventLoop, hosts: Iterable[Any], port: Any, family: int, flags: int
) -> list[str]:
    """Return the numeric addresses that *hosts* stand for, each once: uvloop would bind them as
    often as they are named.

    Args: as for start_server(). Raises: OSError. Cancellation: safe.
    """
    hints = {"family": family, "type": socket.SOCK_STREAM, "proto": 0, "flags": flags}
    found: dict[str, None] = {}
    for host in hosts:
        for address in await resolve(loop, host or None, port, hints):
            found[
                socket.getnameinfo(address[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
            ] = None
    return list(found)
