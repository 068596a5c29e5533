"""What several commands have in common: options that mean the same, numbers, and how to fail."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Iterable

LOOPS = ("asyncio", "uvloop")


def add_loop(parser: argparse.ArgumentParser, default: str = "asyncio") -> None:
    """Add ``--loop`` to *parser*; *default* is how its help calls asyncio's loop."""
    parser.add_argument(
        "--loop",
        choices=LOOPS,
        default="asyncio",
        help=f"event loop (default: {default})",
    )


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that ``--loop`` names: None for asyncio's default one.

    Raises: ValueError without uvloop.
    """
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        raise ValueError("uvloop is not installed: pip install 'headrace[uvloop]'") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def add_tls(
    parser: argparse.ArgumentParser, protocols: Iterable[str], *, cert: str, alpn: str
) -> Callable[..., object]:
    """Add to *parser* the options of TLS that clients and servers share.

    *protocols*: those of ``--starttls``. *cert* and *alpn*: the help of those options.

    Returns: what adds further options to the same group, as add_argument() does.
    """
    group = parser.add_argument_group("TLS")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--tls", action="store_true", help="speak TLS from the beginning")
    how.add_argument(
        "--starttls",
        choices=tuple(protocols),
        help="begin in plain text and upgrade, as this protocol does",
    )
    group.add_argument("--cert", metavar="FILE", help=cert)
    group.add_argument(
        "--key", metavar="FILE", help="its private key (PEM), unless that is in the same file"
    )
    group.add_argument("--alpn", metavar="A,B", help=alpn)
    return group.add_argument


def seconds(text: str) -> float:
    """Return *text* as a number of seconds above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds above 0: {text!r}")
    return value


def port(text: str) -> int:
    """Return *text* as the number of a port, for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def fail(command: str, why: str, status: int) -> int:
    """Say on standard error *why* the *command* fails; return *status*, its exit status."""
    print(f"headrace {command}: {why}", file=sys.stderr)
    return status
