"""One run of ``headrace connect``: its options, and what it does one after the other."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys

from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._transport.backend import choose
from headrace.cli.connect.exchange import Exchange
from headrace.cli.connect.opening import opened, secure
from headrace.cli.connect.pipes import Failure
from headrace.cli.connect.target import target_of
from headrace.cli.connect.tls import context_of

DEFAULT_TIMEOUT_SECONDS = 10.0


class Session:
    """One connection, from resolving the name to how it ended. Raises: ValueError for options that
    cannot be."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.host: str
        self.port: str
        self.host, self.port = target_of(options.target, options.port)
        self.name: str | None = options.server_name or self.host or None
        self.context: ssl.SSLContext | None = context_of(options, self.name)
        if options.timeout is not None and not options.timeout > 0:
            raise ValueError("--timeout must be a number of seconds above 0")
        self.timeout: float = options.timeout or DEFAULT_TIMEOUT_SECONDS
        if None in (sys.stdin, sys.stdout, sys.stderr):
            # Their descriptors would be given to the connection.
            raise ValueError("standard input, output or error is closed: give it /dev/null instead")

    def say(self, line: str) -> None:
        """Tell the user, unless told not to; what a peer put into *line* cannot control the
        terminal."""
        if not self.options.quiet:
            print(
                "*",
                "".join(each if each.isprintable() else repr(each)[1:-1] for each in line),
                file=sys.stderr,
                flush=True,
            )

    async def run(self) -> int:
        """Return the exit status."""
        try:
            return await self.connect()
        except Failure as failure:
            self.say(str(failure))
            return 1

    async def connect(self) -> int:
        """Open the connection, go on in TLS if asked to, and exchange; return the exit status."""
        try:
            way = await choose(asyncio.get_running_loop(), DEFAULT_LIMIT)
        except ValueError as error:
            raise Failure(str(error)) from None
        streams, seconds = await opened(self.host, self.port, self.timeout, self.say)
        try:
            if self.options.verbose:
                self.say(f"the {way.way} way, {way.form} form: {way.reason}")
            if self.context is not None:
                await secure(
                    streams,
                    self.context,
                    protocol=self.options.starttls,
                    name=self.name,
                    timeout=self.timeout,
                    say=self.say,
                )
            exchange = Exchange(
                streams,
                self.options,
                secure=self.context is not None,
                timeout=self.timeout,
                connect_seconds=seconds,
                say=self.say,
            )
            return await exchange.run()
        finally:
            # Where it is not closed by now, it shall not wait for a peer.
            streams[1].transport.abort()
