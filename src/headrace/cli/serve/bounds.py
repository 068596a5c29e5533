"""The bounds of a server as options of ``headrace serve``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

# By the name that serve() has for it: what it is read as, and what its help calls that. serve()
# says what each means, and its default.
BOUNDS: dict[str, tuple[type[int] | type[float], str]] = {
    "max_connections": (int, "N"),
    "max_connections_per_peer": (int, "N"),
    "accept_rate": (float, "X"),
    "handshake_timeout": (float, "X"),
    "first_byte_timeout": (float, "X"),
    "idle_timeout": (float, "X"),
    "stall_timeout": (float, "X"),
    "minimum_rate": (float, "X"),
    "grace": (float, "X"),
}


def add_bounds(parser: argparse.ArgumentParser) -> Callable[..., object]:
    """Add an option for each bound to *parser*; return what adds further ones to the group."""
    group = parser.add_argument_group(
        "bounds", "see headrace.serve() for what they mean, and their defaults"
    )
    for name, (kind, metavar) in BOUNDS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar)
    return group.add_argument


def given_bounds(options: argparse.Namespace) -> dict[str, Any]:
    """Return those that *options* give, as keyword arguments of serve()."""
    given = {name: getattr(options, name) for name in BOUNDS}
    return {name: value for name, value in given.items() if value is not None}
