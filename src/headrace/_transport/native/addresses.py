"""Addresses as the socket module writes them, of what the system writes them in: for connections
that have no socket object."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any


def address_of(raw: bytes) -> Any:
    """Return the address in *raw*, a ``struct sockaddr`` of Linux, as socket.getpeername() would.

    TCP: (host, port), for IPv6 with flow information and scope; a Unix socket: its path, '' where
    it has none, bytes where it is abstract.
    """
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET:
        port, host = struct.unpack_from("!H4s", raw, 2)
        return socket.inet_ntop(family, host), port
    if family == socket.AF_INET6:
        port, flow, host = struct.unpack_from("!HI16s", raw, 2)
        (scope,) = struct.unpack_from("=I", raw, 24)
        return socket.inet_ntop(family, host), port, flow, scope
    path = raw[2:]
    if path[:1] == b"\0":
        return path
    return os.fsdecode(path.partition(b"\0")[0])
