"""One connection, from resolving the name to how it ended."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import socket
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import headrace
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._transport.backend import choose
from headrace.cli.connect.pipes import (
    CHUNK_BYTES,
    Failure,
    in_thread,
    read_input,
    to_crlf,
    write_output,
)
from headrace.cli.connect.tls import (
    broken,
    certificate_words,
    context_of,
    handshake_failure,
    is_alert,
    starttls,
)

DEFAULT_TIMEOUT_SECONDS = 10.0
# How long the end of the input is kept back, besides two ways there and back, for a peer that has
# said nothing to what was sent: who ends the stream meanwhile did not wait for the end, as one who
# only listens does. A server of TLS ends on the first bytes. Not measured.
ANSWER_SECONDS = 0.1

# What to type for a URL of these schemes, where it names no port: the port, and the option.
SCHEMES = {
    "http": ("80", ""),
    "ws": ("80", ""),
    "https": ("443", "--tls "),
    "wss": ("443", "--tls "),
}


def target_of(target: str, port: str | None) -> tuple[str, str]:
    """Return (host, port), or ("", path) of a Unix socket. Raises: ValueError where it is
    neither."""
    if target.startswith("unix:"):
        if port is not None or target == "unix:":
            raise ValueError("unix:PATH takes a path, and no port")
        return "", target.removeprefix("unix:")
    if "://" in target:
        raise ValueError(f"{target}: a URL is no target{_instead_of(target, port)}")
    host = target
    if port is None:
        host, _, port = target.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(
                f"{target}: an IPv6 address with its port is written [ADDRESS]:PORT, or ADDRESS "
                "PORT"
            )
    if not host or not port or "/" in host + port:
        raise ValueError(f"{target}: where to? Give HOST PORT, HOST:PORT or unix:PATH")
    if port.isdecimal() and not 0 < int(port) < 65536:
        raise ValueError(f"port {port}: ports are 1 to 65535")
    return host, port


def _instead_of(url: str, port: str | None) -> str:
    """Return what to type instead of *url* and *port*, as the end of a sentence."""
    try:
        parts = urlsplit(url)
        given = port or parts.port
    except ValueError:  # of a port that is none, or an address
        parts, given = urlsplit(""), None
    if not parts.hostname:
        return ": give HOST PORT, HOST:PORT or unix:PATH"
    usual, option = SCHEMES.get(parts.scheme, ("PORT", ""))
    return f": type headrace connect {option}{parts.hostname} {given or usual}"


class Session:
    """One connection, from resolving the name to how it ended. Raises: ValueError for options that
    cannot be."""

    reader: headrace.StreamReader
    writer: headrace.StreamWriter

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.host, self.port = target_of(options.target, options.port)
        self.name: str | None = options.server_name or self.host or None
        self.context = context_of(options, self.name)
        if options.timeout is not None and not options.timeout > 0:
            raise ValueError("--timeout must be a number of seconds above 0")
        self.timeout = options.timeout or DEFAULT_TIMEOUT_SECONDS
        if None in (sys.stdin, sys.stdout, sys.stderr):
            # Their descriptors would be given to the connection.
            raise ValueError("standard input, output or error is closed: give it /dev/null instead")
        self.received = self.sent = 0
        self.head = b""  # of what has been received
        self.asked = self.half_closed = self.input_ended = self.input_failed = False
        self.connect_seconds = 0.0
        self.heard = asyncio.Event()  # something, or the end
        # How long the peer may be silent, and whether something is due from it.
        self.patience = asyncio.Timeout(None)
        self.is_due = self.is_writing = False

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
            await self.open()
            try:
                if self.context is not None:
                    await self.secure(self.context)
                return await self.exchange()
            finally:
                # Where it is not closed by now, it shall not wait for a peer.
                self.writer.transport.abort()
        except Failure as failure:
            self.say(str(failure))
            return 1

    async def open(self) -> None:
        """Connect to the first address that answers."""
        try:
            way = await choose(asyncio.get_running_loop(), DEFAULT_LIMIT)
        except ValueError as error:
            raise Failure(str(error)) from None
        started = time.monotonic()
        if not self.host:
            await self.attempt(self.port, headrace.open_unix_connection(self.port))
        else:
            addresses = await self.resolve()
            self.say(
                f"{self.host} is {', '.join(address for address, _ in addresses)} "
                f"({_milliseconds(started)})"
            )
            for address, port in addresses:
                # One after the other, so that each can be told what became of it.
                started = time.monotonic()
                if await self.attempt(
                    f"{address} port {port}", headrace.open_connection(address, port)
                ):
                    break
        if not hasattr(self, "writer"):
            raise Failure("no connection")
        self.connect_seconds = time.monotonic() - started
        sockname, peername = (self.writer.get_extra_info(name) for name in ("sockname", "peername"))
        self.say(
            f"connected in {_milliseconds(started)}, from {_address(sockname)} to "
            f"{_address(peername)}"
        )
        if self.options.verbose:
            self.say(f"the {way.way} way, {way.form} form: {way.reason}")

    async def resolve(self) -> list[tuple[str, int]]:
        """Return the addresses of the host and their port, in the system's order of preference."""
        try:
            async with asyncio.timeout(self.timeout):
                found = await in_thread(
                    lambda: socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
                )
        except TimeoutError:
            raise Failure(
                f"{self.host}: the resolver did not answer in {self.timeout:g} s"
            ) from None
        except (OSError, UnicodeError) as error:
            raise Failure(
                f"{self.host} port {self.port} cannot be resolved: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from None
        # The scope of a link-local address is beside it, and belongs into it again.
        addresses = (where for *_, where in found)
        return [
            (
                f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else str(where[0]),
                int(where[1]),
            )
            for where in addresses
        ]

    async def attempt(self, where: str, opening: Any) -> bool:
        """Wait for *opening* a connection to *where*; say why there is none, or return True."""
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                self.reader, self.writer = await opening
            return True
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            if limit.expired():
                why = (
                    f"no answer in {self.timeout:g} s: a firewall may drop what is sent there "
                    "(--timeout T waits longer)"
                )
            elif isinstance(error, ConnectionRefusedError):
                why = "refused: nobody listens there"
            self.say(f"{where}: {why}")
            return False

    async def secure(self, context: ssl.SSLContext) -> None:
        """Go on in TLS, and say what was agreed upon."""
        started = time.monotonic()
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                if self.options.starttls:
                    await starttls(self.options.starttls, self.reader, self.writer)
                await self.writer.start_tls(context, server_hostname=self.name)
        except OSError as error:
            if limit.expired():
                raise Failure(
                    f"no TLS: the peer did not answer in {self.timeout:g} s: does it speak TLS "
                    "here?"
                ) from None
            if certificate := getattr(error, "certificate", None):
                for line in certificate_words(certificate):
                    self.say(line)
            raise Failure(f"no TLS: {handshake_failure(error)}") from None
        session = self.writer.get_extra_info("ssl_object")
        alpn = session.selected_alpn_protocol()
        self.say(
            f"{session.version()} in {_milliseconds(started)}, {session.cipher()[0]}, "
            f"{f'ALPN {alpn}' if alpn else 'no ALPN'}"
        )
        # Python decodes no certificate that it has not verified, but for this private method of the
        # ssl module.
        shown = session.getpeercert() or session._sslobj.get_unverified_chain()[0].get_info()
        for line in certificate_words(shown):
            self.say(line)
        if context.verify_mode is ssl.CERT_NONE:
            self.say(
                "the certificate was NOT verified (--insecure): anybody may be at the other end"
            )

    async def exchange(self) -> int:
        """Send and receive until the peer ends the stream; say how it ended, and return the exit
        status."""
        started = time.monotonic()
        ended, status = "stopped before the peer ended the stream", 130
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self.send())
                ended, status = await self.receive()
                sending.cancel()
            if status == 0:
                ended, status = await self.close(ended)
        finally:
            seconds = time.monotonic() - started
            self.say(f"{ended}; {self.received} bytes in, {self.sent} bytes out, {seconds:.3f} s")
        return 1 if self.input_failed else status

    async def send(self) -> None:
        """Send the standard input, and then the end of it."""
        translate = to_crlf() if self.options.crlf else None
        try:
            while data := await in_thread(read_input):
                if translate is not None:
                    data = translate(data)
                self.asked = True
                self.writer.write(data)
                self.expect(True)
                await self.writer.drain()
                self.expect(False)
                self.sent += len(data)
        except Failure as failure:
            self.input_failed = True
            self.say(str(failure))
        except OSError:
            return  # receive() tells how the connection ended
        self.input_ended = True
        self.expect(True)
        if self.options.no_half_close:
            return
        if not self.writer.can_write_eof():
            self.say(
                "end of the input; TLS cannot close one half here, so this waits for the peer to "
                "end (Ctrl-C stops it)"
            )
            return
        if self.context is None and self.asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS + 2 * self.connect_seconds):
                    await self.heard.wait()
        self.half_closed = True
        with contextlib.suppress(OSError):  # it is lost by now: receive() tells
            self.writer.write_eof()

    def expect(self, is_due: bool | None = None) -> None:
        """Count from now how long the peer does nothing, where *is_due* says (None: as before) that
        it is its turn; else stop counting."""
        if is_due is not None:
            self.is_due = is_due
        if self.options.timeout is not None and not self.patience.expired():
            counts = self.is_due and not self.is_writing
            self.patience.reschedule(
                asyncio.get_running_loop().time() + self.timeout if counts else None
            )

    async def receive(self) -> tuple[str, int]:
        """Write what comes to the standard output, until its end; return how it ended, and the exit
        status."""
        try:
            async with self.patience:
                while data := await self.reader.read(CHUNK_BYTES):
                    self.heard.set()
                    self.received += len(data)
                    self.head = (self.head + data)[:8]
                    self.is_writing = True
                    self.expect()
                    await in_thread(functools.partial(write_output, data))
                    self.is_writing = False
                    self.expect()
        except Failure as failure:
            return str(failure), 1
        except OSError as error:
            if self.patience.expired():
                return f"nothing came or went for {self.timeout:g} s", 1
            return broken(error) + self.unanswered(), 1
        early = "" if self.input_ended else ", before the end of the input"
        if self.context is None:
            unanswered = self.unanswered()
            return f"the peer ended the stream{early}{unanswered}", 1 if unanswered else 0
        notified = self.writer.get_extra_info("close_notify")
        if notified is False:
            return (
                f"the connection ended without TLS's close_notify{early}: somebody may have cut "
                "it, and something may be missing",
                1,
            )
        how = (
            "with close_notify"
            if notified
            else "the portable way cannot tell whether with close_notify"
        )
        return f"the peer ended the stream{early} ({how})", 0

    def unanswered(self) -> str:
        """Return what there is to say of a peer that ends on what was sent in plain text: without a
        byte, or with an alert of TLS."""
        if self.context is not None or not self.asked:
            return ""
        if is_alert(self.head):
            return " with an alert of TLS: does it speak TLS? try --tls"
        return (
            ""
            if self.received or self.half_closed
            else " without a byte: does it speak TLS? try --tls"
        )

    async def close(self, ended: str) -> tuple[str, int]:
        """Send the last bytes and close; return *ended* and 0, or what went wrong and 1."""
        self.writer.close()
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                await self.writer.wait_closed()
        except OSError as error:
            self.writer.transport.abort()
            why = "the peer did not take the last bytes" if limit.expired() else broken(error)
            return f"{ended}; then {why}", 1
        return ended, 0


def _address(address: Any) -> str:
    """Return an address of the socket module in words."""
    return (
        f"{address[0]} port {address[1]}"
        if isinstance(address, tuple)
        else str(address or "an unnamed socket")
    )


def _milliseconds(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.1f} ms"
