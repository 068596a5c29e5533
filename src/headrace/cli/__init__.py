"""The ``headrace`` command: run a program with headrace in it, say what is installed, show what it
is worth.

Each command is a module or a folder of its name, with a DESCRIPTION, add_arguments(), and a
function of that name too, which takes the options and returns the exit status. Only the one that is
chosen is imported, so that ``headrace run`` puts nothing in front of the program.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import headrace

__all__ = ("main",)

DESCRIPTION = """\
asyncio Streams built again: the same names, on any event loop, several times faster.

examples:
  headrace run server.py      run an unmodified program with headrace instead of asyncio's streams
  headrace doctor             say what is installed, what runs compiled, and which way connections
                              take
  headrace demo               see it work on real sockets, and what a message costs (a minute)
  headrace serve echo :8888   a server to try a client on: TCP, TLS, STARTTLS, Unix sockets
  headrace connect HOST PORT  talk to a server by hand, and see what the connection does
  headrace top                what a running server does, live
"""

COMMANDS = {
    "run": "run an unmodified program with headrace",
    "doctor": "say what is installed and how it runs",
    "demo": "see it work, and what it costs",
    "serve": "a server to try a client on: echo, sink or a file",
    "connect": "talk to a server by hand, and see what the connection does",
    "top": "what a running server does, live",
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the arguments of the *chosen* command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="headrace", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, formatter_class=raw)
        if name == chosen:
            module = importlib.import_module(f"headrace.cli.{name}")
            command.description = module.DESCRIPTION
            module.add_arguments(command)
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments that are ours and those of the program that ``run`` runs: nothing of the
    latter is interpreted."""
    ours = list(arguments)
    if ours[:1] != ["run"]:
        return ours, []
    at = 1
    while at < len(ours):
        if ours[at] == "--":
            return ours[:at], ours[at + 1 :]
        if ours[at] == "-m":
            return ours[: at + 2], ours[at + 2 :]
        if ours[at].startswith("-m") and not ours[at].startswith("--"):
            return ours[: at + 1], ours[at + 1 :]
        if ours[at] == "--loop":
            at += 1
        elif not ours[at].startswith("-"):
            return ours[:at], ours[at:]
        at += 1
    return ours, []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (default: sys.argv[1:]) and return the exit status.

    Raises: SystemExit for wrong arguments and --help; what the program of ``run`` raises,
    SystemExit included.
    """
    ours, rest = _split(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(next((word for word in ours if not word.startswith("-")), None))
    options = parser.parse_args(ours)
    if options.command is None:
        parser.print_help()
        return 2
    if options.command == "run":
        if options.module is None and not rest:
            parser.error("run: what? Give a SCRIPT or -m MODULE; headrace run --help has examples")
        options.arguments = rest
    module = importlib.import_module(f"headrace.cli.{options.command}")
    status: int = getattr(module, options.command)(options)
    return status
