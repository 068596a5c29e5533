"""Whom a connection is from: its IP address, its network, and sets of networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

# What one customer of a provider is given of IPv6 (RFC 6177): they can come from any address in it.
PEER_PREFIX = 64


def ip_of(peername: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address of *peername*, of IPv4 also where the socket is one of IPv6; None for
    those that have none."""
    if not isinstance(peername, tuple):
        return None
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def peer_key(peername: Any) -> str | None:
    """Return whom a connection from *peername* counts for: the address, of IPv6 its network; None
    for those that have none."""
    address = ip_of(peername)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, PEER_PREFIX), strict=False))
    return None if address is None else str(address)


class Networks:
    """A set of networks; Unix sockets are in it by the name "unix"."""

    def __init__(self, networks: Iterable[str]) -> None:
        if isinstance(networks, str):
            raise TypeError(f"proxies must be a list of networks, not the string {networks!r}")
        names = list(networks)
        self._unix = "unix" in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names if name != "unix"]
        except ValueError as error:
            raise ValueError(
                f"proxies must be networks, such as '10.0.0.0/8', '::1' and 'unix': {error}"
            ) from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peername: Any) -> bool:
        address = ip_of(peername)
        if address is None:
            return self._unix
        return any(
            address in network for network in self._networks if network.version == address.version
        )
