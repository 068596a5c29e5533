"""The ``headrace`` command: run a program with headrace in it, say what is installed, show what it
is worth.

Each command imports what it needs when it is chosen, so that ``headrace run`` puts nothing in front
of the program.
"""

from __future__ import annotations

import argparse
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

RUN = """\
Run a Python program as python itself would, with asyncio's stream names meaning headrace's.

sys.argv, sys.path, __main__ and the exit status are what they would be under python. Everything
after the script or the module belongs to the program. Processes that the program starts do not
inherit headrace.

examples:
  headrace run server.py --port 8888
  headrace run -m aiosmtpd -n -l localhost:8025
  headrace run --loop uvloop server.py      also make uvloop the event loop
                                            (pip install 'headrace[uvloop]')
  python -X dev -m headrace run server.py   with options of python's own
"""

DOCTOR = """\
Say in words what is installed here: versions, whether headrace runs compiled and what to do if
not, event loops, OpenSSL, and which way a connection takes on each loop.

examples:
  headrace doctor
  headrace doctor --json                 the same for programs
  headrace doctor --require-compiled     exit with status 1 if any part runs as pure Python
                                         (for a container's build)
"""

DEMO = """\
Show headrace at work on real sockets of this machine's loopback: the three programs of asyncio's
Streams documentation, TLS, unix sockets and start_tls, then a table of what a message costs a
server with asyncio's streams and with headrace.

Needs the extra packages of headrace[demo] (rich; trustme for the certificate; uvloop to have it in
the table).

examples:
  headrace demo
  headrace demo --quick            a few seconds: rougher figures
  headrace demo --no-table         only the programs
  headrace demo --loop asyncio     only one event loop in the table
"""


TOP = """\
Show what the servers behind a metrics endpoint do: connections, rates, bytes, what was refused,
ended and failed, and why.

The endpoint is that of headrace.metrics.serve_metrics(), or of headrace serve --metrics. Needs the
extra packages of headrace[cli] (rich, prometheus_client); those of headrace[metrics]
(prometheus_client) are enough for --once.

examples:
  headrace top
  headrace top http://10.0.0.5:9464/metrics --interval 5
  headrace top --once                one plain table, for scripts
"""


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="headrace", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")

    run = commands.add_parser(
        "run", help="run an unmodified program with headrace", description=RUN, formatter_class=raw,
        usage="headrace run [--loop asyncio|uvloop] SCRIPT|-m MODULE [ARGS...]",
    )  # fmt: skip
    run.add_argument(
        "--loop",
        choices=("asyncio", "uvloop"),
        default="asyncio",
        help="event loop (default: asyncio, as it is)",
    )
    run.add_argument("-m", dest="module", metavar="MODULE", help="run a module instead of a script")

    doctor = commands.add_parser(
        "doctor",
        help="say what is installed and how it runs",
        description=DOCTOR,
        formatter_class=raw,
    )
    doctor.add_argument("--json", action="store_true", help="print JSON instead of words")
    doctor.add_argument(
        "--require-compiled",
        action="store_true",
        help="exit with status 1 if any part is pure Python",
    )

    demo = commands.add_parser(
        "demo", help="see it work, and what it costs", description=DEMO, formatter_class=raw
    )
    demo.add_argument(
        "--quick", action="store_true", help="one short round of measuring instead of three"
    )
    demo.add_argument("--no-table", action="store_true", help="do not measure")
    demo.add_argument(
        "--loop",
        choices=("asyncio", "uvloop"),
        action="append",
        help="measure only on this loop (may be repeated)",
    )
    # What these take is known where they are.
    serve = commands.add_parser(
        "serve", help="a server to try a client on: echo, sink or a file", formatter_class=raw
    )
    connect = commands.add_parser(
        "connect",
        help="talk to a server by hand, and see what the connection does",
        formatter_class=raw,
    )
    top = commands.add_parser(
        "top", help="what a running server does, live", description=TOP, formatter_class=raw
    )
    if chosen == "serve":
        from headrace.cli import serve as serving

        serve.description = serving.DESCRIPTION
        serving.add_arguments(serve)
    elif chosen == "connect":
        from headrace.cli import connect as connecting

        connect.description = connecting.DESCRIPTION
        connecting.add_arguments(connect)
    elif chosen == "top":
        from headrace.cli import top as watching

        watching.add_arguments(top)
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
    parser = _parser(ours[0] if ours else None)
    options = parser.parse_args(ours)
    if options.command == "run":
        from headrace.cli.run import run

        if options.module is None and not rest:
            parser.error("run: what? Give a SCRIPT or -m MODULE; headrace run --help has examples")
        return run(rest, module=options.module, loop=options.loop)
    if options.command == "doctor":
        from headrace.cli.doctor import doctor

        return doctor(as_json=options.json, require_compiled=options.require_compiled)
    if options.command == "demo":
        from headrace.cli.demo import demo

        return demo(quick=options.quick, table=not options.no_table, loops=options.loop)
    if options.command == "serve":
        from headrace.cli.serve import serve

        return serve(options)
    if options.command == "connect":
        from headrace.cli.connect import connect

        return connect(options)
    if options.command == "top":
        from headrace.cli.top import top

        return top(options)
    parser.print_help()
    return 2
