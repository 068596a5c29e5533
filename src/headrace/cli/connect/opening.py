"""A connection, from resolving the name to where it is one: addresses tried in turn, then TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import headrace
from headrace.cli.connect.pipes import Failure, in_thread
from headrace.cli.connect.tls import (
    certificate_words,
    handshake_failure,
    starttls,
    unverified_certificate,
)

# Tells the user a line.
Say = Callable[[str], None]
Streams = tuple[headrace.StreamReader, headrace.StreamWriter]


async def opened(host: str, port: str, timeout: float, say: Say) -> tuple[Streams, float]:
    """Connect to the first address that answers; return the streams, and the seconds it took.

    *host*: "" where *port* is the path of a Unix socket. *timeout*: seconds for the name and for
    each address. Raises: Failure where there is no connection.
    """
    started = time.monotonic()
    streams = None
    if not host:
        streams = await _attempt(port, headrace.open_unix_connection(port), timeout, say)
    else:
        addresses = await _resolved(host, port, timeout)
        say(
            f"{host} is {', '.join(address for address, _ in addresses)} ({_milliseconds(started)})"
        )
        for address, number in addresses:
            # One after the other, so that each can be told what became of it.
            started = time.monotonic()
            opening = headrace.open_connection(address, number)
            streams = await _attempt(f"{address} port {number}", opening, timeout, say)
            if streams is not None:
                break
    if streams is None:
        raise Failure("no connection")
    seconds = time.monotonic() - started
    sockname, peername = (streams[1].get_extra_info(name) for name in ("sockname", "peername"))
    say(f"connected in {_milliseconds(started)}, from {_address(sockname)} to {_address(peername)}")
    return streams, seconds


async def _resolved(host: str, port: str, timeout: float) -> list[tuple[str, int]]:
    """Return the addresses of *host* and their port, in the system's order of preference."""
    try:
        async with asyncio.timeout(timeout):
            found = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise Failure(f"{host}: the resolver did not answer in {timeout:g} s") from None
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(f"{host} port {port} cannot be resolved: {why}") from None
    # The scope of a link-local address is beside it, and belongs into it again.
    return [
        (
            f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else str(where[0]),
            int(where[1]),
        )
        for *_, where in found
    ]


async def _attempt(
    where: str, opening: Awaitable[Streams], timeout: float, say: Say
) -> Streams | None:
    """Wait for *opening* a connection to *where*; say why there is none, or return its streams."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await opening
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if limit.expired():
            why = (
                f"no answer in {timeout:g} s: a firewall may drop what is sent there "
                "(--timeout T waits longer)"
            )
        elif isinstance(error, ConnectionRefusedError):
            why = "refused: nobody listens there"
        say(f"{where}: {why}")
        return None


async def secure(
    streams: Streams,
    context: ssl.SSLContext,
    *,
    protocol: str | None,
    name: str | None,
    timeout: float,
    say: Say,
) -> None:
    """Go on in TLS, and say what was agreed upon.

    *protocol*: whose STARTTLS leads to it, or None. *name*: to ask for and to verify. Raises:
    Failure where there is no TLS.
    """
    reader, writer = streams
    started = time.monotonic()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            if protocol:
                await starttls(protocol, reader, writer)
            await writer.start_tls(context, server_hostname=name)
    except OSError as error:
        if limit.expired():
            raise Failure(
                f"no TLS: the peer did not answer in {timeout:g} s: does it speak TLS here?"
            ) from None
        if certificate := getattr(error, "certificate", None):
            for line in certificate_words(certificate):
                say(line)
        raise Failure(f"no TLS: {handshake_failure(error)}") from None
    session = writer.get_extra_info("ssl_object")
    alpn = session.selected_alpn_protocol()
    say(
        f"{session.version()} in {_milliseconds(started)}, {session.cipher()[0]}, "
        f"{f'ALPN {alpn}' if alpn else 'no ALPN'}"
    )
    for line in certificate_words(session.getpeercert() or unverified_certificate(session)):
        say(line)
    if context.verify_mode is ssl.CERT_NONE:
        say("the certificate was NOT verified (--insecure): anybody may be at the other end")


def _address(address: Any) -> str:
    """Return an address of the socket module in words."""
    return (
        f"{address[0]} port {address[1]}"
        if isinstance(address, tuple)
        else str(address or "an unnamed socket")
    )


def _milliseconds(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.1f} ms"
