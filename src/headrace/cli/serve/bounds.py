"""The options that bound a server, made from what config.py says of each bound."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields

from headrace._server.config import Limits, is_whole, shown_default, summary

GRACE = "grace"


def add_bounds(parser: argparse.ArgumentParser) -> Callable[..., object]:
    """Add them to *parser*, as a group of its help; return what adds further ones to it."""
    add = parser.add_argument_group(
        "bounds", "what a connection may do, with the default; headrace.serve() says why"
    ).add_argument
    for each in fields(Limits):
        add(
            f"--{each.name.replace('_', '-')}",
            type=int if is_whole(each) else float,
            metavar="N" if is_whole(each) else "X",
            help=f"{summary(each)} ({shown_default(each)})",
        )
    add(f"--{GRACE}", type=float, metavar="X", help="seconds to finish in, at the end (20)")
    return add


def given_bounds(options: argparse.Namespace) -> dict[str, float]:
    """Return those that *options* name, as arguments of serve()."""
    names = (*(each.name for each in fields(Limits)), GRACE)
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
