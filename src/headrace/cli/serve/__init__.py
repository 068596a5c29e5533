"""``headrace serve``: a server to try a client on: it echoes, swallows what comes, or sends a
file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import headrace
from headrace.cli.options import add_loop, add_tls, fail, loop_factory, port
from headrace.cli.serve.bounds import add_bounds, given_bounds
from headrace.cli.serve.certificates import certificates_of
from headrace.cli.serve.handlers import STARTTLS, Handler, upgraded
from headrace.cli.serve.places import DEFAULT_PLACE, place_words, what_and_where

DESCRIPTION = """\
Serve until Ctrl-C or SIGTERM: echo what comes, swallow it, or send a file; and say who comes and
how it ended.

The first Ctrl-C lets connections finish, for --grace seconds; the second cancels their handlers,
the third cuts them off. SIGHUP reads the certificate again, or replaces the --workers.

examples:
  headrace serve                                     echo on 127.0.0.1:8888
  headrace serve sink 0.0.0.0:9000                   swallow, and count
  headrace serve file ./page.html :8080              send the file to whoever connects
  headrace serve echo :8443 unix:/tmp/echo --tls --cert chain.pem --key key.pem
  headrace serve echo :2525 --starttls smtp          with a certificate made for the occasion
                                                     (needs headrace[demo])
  headrace serve echo :8888 --workers 4 --metrics 9464     then, elsewhere: headrace top
  headrace serve echo :8888 --proxy 127.0.0.0/8 --idle-timeout 60 --max-connections 1000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what serve() takes to *parser*."""
    add: Callable[..., object] = parser.add_argument
    add(
        "what",
        nargs="?",
        default="echo",
        metavar="echo|sink|file PATH",
        help="what to do with a connection (echo)",
    )
    add(
        "places",
        nargs="*",
        metavar="[HOST]:PORT|unix:PATH",
        help=f"where to listen ({DEFAULT_PLACE}); without HOST on all addresses",
    )
    add("-q", "--quiet", action="store_true", help="say only what is wrong")
    add_loop(parser)
    add("--workers", type=int, metavar="N", help="serve from N processes")
    add(
        "--metrics",
        type=port,
        metavar="PORT",
        help="figures for Prometheus and headrace top, on 127.0.0.1:PORT (headrace[metrics])",
    )
    add = add_tls(
        parser,
        STARTTLS,
        cert="certificate chain (PEM); default: one made for the occasion, for localhost",
        alpn="protocols to agree on, the best first",
    )
    add(
        "--client-ca",
        metavar="FILE",
        help="ask clients for a certificate that one of these authorities has signed (PEM)",
    )
    add = add_bounds(parser)
    add(
        "--proxy",
        action="append",
        default=[],
        metavar="NETWORK",
        help="connections from there begin with a PROXY header",
    )


def serve(options: argparse.Namespace) -> int:
    """Serve as *options* say, which add_arguments() defines; return the exit status: 0, 1 where it
    cannot listen, 2 for wrong arguments."""
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    if not options.quiet:
        logging.getLogger("headrace.server").setLevel(logging.DEBUG)
    with contextlib.ExitStack() as stack:
        try:
            factory = loop_factory(options.loop)
            what, handler, places = what_and_where([options.what, *options.places])
            certificates = certificates_of(options, stack)
            if options.starttls and certificates is not None:
                handler = partial(upgraded, options.starttls, certificates, handler)
                certificates = None
        except (ValueError, OSError) as error:
            return fail("serve", str(error), 2)
        common = {
            "ssl": certificates,
            "proxies": options.proxy,
            "workers": options.workers,
            **given_bounds(options),
        }
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(_run(options, what, handler, [place | common for place in places]))
        except OSError as error:
            # The number means nothing to a user, and asyncio's message has it once more inside.
            return fail("serve", re.sub(r"\[errno \d+\] ", "", str(error), flags=re.IGNORECASE), 1)
        except RuntimeError as error:  # a worker does not start
            return fail("serve", str(error), 1)
        except (ValueError, ImportError) as error:
            return fail("serve", str(error), 2)
        except KeyboardInterrupt:
            return 130
    return 0


async def _run(
    options: argparse.Namespace, what: str, handler: Handler, arguments: list[dict[str, Any]]
) -> None:
    """Serve with *handler* at each place that *arguments* of headrace.serve() name."""
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for place in arguments:
            server = await stack.enter_async_context(headrace.serve(handler, **place))
            servers.append(server)
            for sock in server.sockets:
                _say(options, f"{what} on {place_words(sock.getsockname())}")
        if options.metrics is not None:
            from headrace.metrics import serve_metrics

            figures = await serve_metrics(*servers, port=options.metrics)
            stack.callback(figures.close)
            bound = figures.sockets[0].getsockname()[1]
            _say(options, f"metrics on http://127.0.0.1:{bound}/metrics")
        # Each takes the signals: a second Ctrl-C hurries all of them, SIGHUP renews all.
        reports = await asyncio.gather(*(server.serve_forever() for server in servers))
        for server, report in zip(servers, reports, strict=True):
            _say(options, f"{server.name}: {report}")


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)
