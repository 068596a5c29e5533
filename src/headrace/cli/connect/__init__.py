"""``headrace connect``: standard input and output on one connection, with what happens to it told
in words."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable

from headrace.cli.connect.session import DEFAULT_TIMEOUT_SECONDS, Session
from headrace.cli.connect.tls import STARTTLS
from headrace.cli.options import add_loop, add_tls, fail, loop_factory

DESCRIPTION = """\
Connect to a server: standard input is sent, what comes goes to standard output, byte for byte. What
happens is told on standard error: addresses, times, TLS and certificates, and how it ended.

At the end of the input the sending half is closed; what the peer still sends is read until it ends
the stream. Exit status: 0 for a clean end, 1 where the connection failed or broke, where --timeout
has ended it, or where the peer has ended it on plain text, before the end of that, and without a
byte, 2 for wrong arguments, 130 after Ctrl-C.

examples:
  headrace connect localhost 8888
  printf 'GET / HTTP/1.0\\n\\n' | headrace connect --crlf example.org:80
  headrace connect --tls --alpn h2,http/1.1 example.org 443 </dev/null
                                    which certificate, and how long it is valid
  headrace connect --starttls smtp --crlf mail.example.org 25
  headrace connect unix:/run/server.sock
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what connect() takes to *parser*."""
    add: Callable[..., object] = parser.add_argument
    add(
        "target",
        metavar="HOST|HOST:PORT|unix:PATH",
        help="where to; an IPv6 address with its port is [ADDRESS]:PORT",
    )
    add(
        "port",
        metavar="PORT",
        nargs="?",
        help="a number or the name of a service, where the target is a HOST",
    )
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="say nothing on standard error, errors included: see the exit status",
    )
    loud.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say also which way headrace takes to the socket, and why",
    )
    add(
        "--no-half-close",
        action="store_true",
        help="keep the sending half open at the end of the input",
    )
    add("--crlf", action="store_true", help="send CR LF for each LF of the input that has no CR")
    add(
        "--timeout",
        type=float,
        metavar="T",
        help="seconds for each address, for TLS, and for the last bytes at the end (default: "
        f"{DEFAULT_TIMEOUT_SECONDS:g}); "
        "given, also for a peer that sends nothing after the end of the input, or takes nothing",
    )
    add_loop(parser)
    add = add_tls(
        parser,
        STARTTLS,
        cert="certificate to show to the server (PEM)",
        alpn="protocols to offer, the best first",
    )
    add("--insecure", action="store_true", help="do not verify the certificate")
    add(
        "--ca",
        metavar="FILE",
        help="trust the authorities in this file (PEM) instead of the system's",
    )
    add("--server-name", metavar="NAME", help="name to ask for and to verify (default: HOST)")


def connect(options: argparse.Namespace) -> int:
    """Run one connection as *options* say, which add_arguments() defines; return the exit status,
    see DESCRIPTION.

    Ctrl-C ends it with 130. Nothing is raised for what goes wrong on the network, or with standard
    input and output.
    """
    try:
        factory = loop_factory(options.loop)
        session = Session(options)
    except (ValueError, OSError) as error:
        return fail("connect", str(error), 2)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(session.run())
    except KeyboardInterrupt:
        return 130
