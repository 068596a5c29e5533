"""The loads: what every connection does, and what one unit of the figure is.

Both sides read one table. The runner turns a row into a command line for the load generator, and a
server looks up the row's plain handler.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Shape = Literal["echo", "line", "frame", "split", "discard"]


@dataclass(frozen=True)
class Load:
    """One row: *mode* is the generator's, *shape* the handler's."""

    name: str
    mode: str
    shape: Shape
    about: str
    connections: int = 10
    size: int = 1024
    depth: int = 1
    tls: bool = False
    exchange: bool = False
    unix: bool = False

    @property
    def unit(self) -> str:
        """What one unit of the figure is spent on."""
        return {
            "bulk": "us / MiB",
            "churn": "us / connection",
            "memory": "B / connection",
        }.get(self.mode, "us / message")

    def arguments(self) -> list[str]:
        """The generator's command line, without port and durations."""
        line = [self.mode, "--connections", str(self.connections)]
        line += ["--size", str(self.size), "--depth", str(self.depth)]
        return line + ["--tls"] * self.tls + ["--exchange"] * self.exchange + ["--unix"] * self.unix


KIB = 1024

_PLAIN = (
    Load("echo1", "echo", "echo", "1 KiB there and back, 1 connection", connections=1),
    Load("echo10", "echo", "echo", "1 KiB there and back, 10 connections"),
    Load(
        "echo100",
        "echo",
        "echo",
        "1 KiB there and back, 100 connections",
        connections=100,
    ),
    Load(
        "echo1000",
        "echo",
        "echo",
        "1 KiB there and back, 1000 connections",
        connections=1000,
    ),
    Load(
        "echo10x100k",
        "echo",
        "echo",
        "100 KiB there and back, 10 connections",
        size=100 * KIB,
    ),
    Load(
        "line",
        "line",
        "line",
        "32 lines of 64 B in flight, 10 connections",
        size=64,
        depth=32,
    ),
    Load("line1", "line", "line", "one line of 64 B in flight, 10 connections", size=64),
    Load(
        "frame",
        "frame",
        "frame",
        "16 frames of 4-byte length + 128 B in flight, 10 connections",
        size=4 + 128,
        depth=16,
    ),
    Load(
        "split1",
        "frame",
        "split",
        "one frame in flight, answered by a write of its length and one of its 128 B",
        size=4 + 128,
    ),
    Load(
        "unixline",
        "line",
        "line",
        "32 lines of 64 B in flight, 10 connections, a Unix socket",
        size=64,
        depth=32,
        unix=True,
    ),
    Load(
        "churn",
        "churn",
        "echo",
        "connect, 64 B there and back, close; 10 at a time",
        size=64,
    ),
    # The size is that of the figure's unit; the stream itself has no messages.
    Load(
        "bulk",
        "bulk",
        "discard",
        "one connection sends as fast as it can",
        1,
        KIB * KIB,
    ),
    Load("memory", "memory", "echo", "3000 connections that never spoke", 3000, 64),
    Load(
        "memory-used",
        "memory",
        "echo",
        "3000 idle connections after 64 B there and back",
        connections=3000,
        size=64,
        exchange=True,
    ),
)


def _over_tls(plain: str, name: str, about: str | None = None, **changes: int) -> Load:
    load = next(load for load in _PLAIN if load.name == plain)
    return replace(
        load,
        name=name,
        about=f"{about or load.about}, TLS 1.3",
        tls=True,
        size=changes.get("size", load.size),
        connections=changes.get("connections", load.connections),
    )


_TLS = (
    _over_tls("echo10", "tls10"),
    _over_tls("echo10", "tls10x32k", "32 KiB there and back, 10 connections", size=32 * KIB),
    _over_tls("line", "tlsline"),
    _over_tls("churn", "tlschurn"),
    _over_tls("bulk", "tlsbulk"),
    _over_tls("memory", "tlsmemory", "500 connections that never spoke", connections=500),
)

# For what a server does around its handlers.
_MANY = (
    Load(
        "echo10000",
        "echo",
        "echo",
        "1 KiB there and back, 10,000 connections",
        connections=10_000,
    ),
)

LOADS: dict[str, Load] = {load.name: load for load in _PLAIN + _TLS + _MANY}

GROUPS: dict[str, tuple[str, ...]] = {
    "plain": tuple(load.name for load in _PLAIN if load.mode != "memory"),
    "tls": tuple(load.name for load in _TLS if load.mode != "memory"),
    "resident": tuple(load.name for load in _PLAIN + _TLS if load.mode == "memory"),
    "server": ("echo10000", "echo10", "churn", "memory"),
    "quick": ("echo10", "line", "frame"),
    "all": tuple(LOADS),
}
