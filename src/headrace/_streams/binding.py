"""Binding: the sockets that start_server() and serve() listen on."""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio.log import logger
from collections.abc import Iterable
from typing import Any

from headrace._streams.arguments import check_port
from headrace._streams.resolve import resolve


async def bound_sockets(
    loop: asyncio.AbstractEventLoop,
    host: Any,
    port: int | str | None,
    family: int,
    flags: int,
    reuse_address: bool | None,
    reuse_port: bool | None,
    each_host: bool = False,
) -> list[socket.socket]:
    """Return a socket for each address that *host*, a name, an iterable of names, None or "",
    stands for, bound to it and to *port*.

    Addresses that this machine does not have are left out, as asyncio leaves them out. Raises:
    OSError where one is taken or forbidden, or none is left, of all or, where *each_host* matters,
    of one name; OverflowError where *port* is no port.
    """
    check_port(port, "bind")
    names = (
        [host or None]
        if isinstance(host, (str, bytes)) or not isinstance(host, Iterable)
        else list(host)
    )
    hints = {"family": family, "type": socket.SOCK_STREAM, "proto": 0, "flags": flags}
    found = await asyncio.gather(*[_resolved(loop, name, port, hints, each_host) for name in names])
    # Each once, in the order in which they were named.
    addresses = dict.fromkeys(
        (info[0], info[1], info[2], info[4]) for infos in found for info in infos
    )
    sockets: list[socket.socket] = []
    wrong: dict[Any, str] = {}
    try:
        for of_family, kind, proto, address in addresses:
            try:
                sock = socket.socket(of_family, kind, proto)
            except OSError as error:  # a family that the system does not have
                wrong[address] = f"no socket for {address!r}: {str(error).lower()}"
                logger.debug("start_server() makes %s", wrong[address])
                continue
            sockets.append(sock)
            if reuse_address or reuse_address is None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            if reuse_port:
                _set_reuse_port(sock)
            if of_family == socket.AF_INET6:
                # Or it would take the IPv4 address as well, which is bound by its own socket.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            try:
                sock.bind(address)
            except OSError as error:
                message = (
                    f"error while attempting to bind on address {address!r}: {str(error).lower()}"
                )
                if error.errno != errno.EADDRNOTAVAIL:
                    raise OSError(error.errno, message) from None
                sockets.pop().close()
                wrong[address] = message
                logger.debug(message)
        if not sockets:
            raise OSError(
                f"could not bind on any address out of {[address for *_, address in addresses]!r}"
            )
        for name, infos in zip(names, found, strict=True):
            if each_host and all(info[4] in wrong for info in infos):
                reasons = "; ".join(dict.fromkeys(wrong[info[4]] for info in infos))
                raise OSError(errno.EADDRNOTAVAIL, f"could not listen at {name!r}: {reasons}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


async def _resolved(
    loop: asyncio.AbstractEventLoop,
    name: Any,
    port: int | str | None,
    hints: dict[str, Any],
    say_which: bool,
) -> Any:
    """Return what resolve() does; where it finds nothing and one is to *say_which* name that is,
    the error does."""
    try:
        return await resolve(loop, name, port, hints)
    except socket.gaierror as error:
        if say_which:
            raise socket.gaierror(error.errno, f"{error.strerror}: {name!r}") from None
        raise


def _set_reuse_port(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    except OSError:
        raise ValueError(
            "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented."
        ) from None
