"""Negotiation: what comes before a handler: the PROXY header, then TLS; and why it fails, in one
word.

negotiate() is the whole of it; what follows are its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
from collections.abc import Callable
from typing import Any

from headrace._server.config import FailCause
from headrace._server.options import Options
from headrace._server.proxy import V2_SIGNATURE, ProxyError, ProxyHeader, parse
from headrace._server.session import Session
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter

# The signature of version 2, which is shorter than any header of version 1; and what follows it up
# to the length.
HEAD_BYTES = 12
LENGTH_BYTES = 4
# The type of the record that a ClientHello comes in (RFC 8446, 5.1).
HANDSHAKE = b"\x16"
# How much of what is not TLS is shown in the error.
SHOWN_BYTES = 40
# How long to wait for what a proxy's own connection (a LOCAL header) brings, in seconds. One that
# only looks whether the server is there ends at once; the server of a protocol in which it speaks
# first greets the others after this.
CHECK_SECONDS = 0.1
# What OpenSSL calls the want of a certificate, before TLS 1.3 and in it.
NO_CERTIFICATE = ("NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_CERTIFICATE_SET")

# What the ssl module calls the reasons of a handshake that failed, by what is behind them.
_CAUSES = {
    "NO_SHARED_CIPHER": FailCause.CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": FailCause.CIPHER,
    "NO_SUITABLE_KEY_SHARE": FailCause.CIPHER,
    "UNSUPPORTED_PROTOCOL": FailCause.VERSION,
    "VERSION_TOO_LOW": FailCause.VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": FailCause.VERSION,
    "HTTP_REQUEST": FailCause.NOT_TLS,
    "HTTPS_PROXY_REQUEST": FailCause.NOT_TLS,
    "WRONG_VERSION_NUMBER": FailCause.NOT_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": FailCause.CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": FailCause.CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": FailCause.CERTIFICATE,
}


class Outcome(enum.Enum):
    """What comes of a negotiation that does not fail."""

    # A handler may have it; its peer has too many; a proxy only looked whether the server is there.
    ADMITTED = "admitted"
    TOO_MANY = "too many"
    CHECK = "check"


async def negotiate(
    session: Session, proxied: bool, options: Options, admit_peer: Callable[[Session], bool]
) -> Outcome:
    """Read the PROXY header where *session* is *proxied*, then do the handshake that *options* say.

    Raises: TimeoutError, ProxyError, NotTLSError, ssl.SSLError, ConnectionError or
    asyncio.IncompleteReadError; cause_of() puts each in a word. Cancellation: the connection is
    between two protocols, and can only be closed.
    """
    reader, writer = session.reader, session.writer
    assert reader is not None
    assert writer is not None
    async with asyncio.timeout(options.limits.handshake_timeout):
        if proxied:
            session.phase_begins("proxy header")
            header = session.proxy = await read_proxy_header(reader)
            if header.local and await is_over(reader):
                return Outcome.CHECK
            extra: dict[str, Any] = {"proxy": header}
            writer._h_know(extra)
            if header.source is not None:
                extra |= {"peername": header.source, "sockname": header.destination}
                session.know_peername(header.source)
                # (Of a client that the proxy does not know, nothing can be counted.)
                if not admit_peer(session):
                    return Outcome.TOO_MANY
        context = options.context
        if context is not None:
            session.phase_begins("handshake")
            below = writer.transport
            await secure(reader, writer, context, options.shutdown_timeout, proxied)
            if writer.transport is not below:
                session.below = below
            if session.proxy is not None and session.proxy.local and await is_over(reader):
                return Outcome.CHECK
    return Outcome.ADMITTED


async def read_proxy_header(reader: StreamReader) -> ProxyHeader:
    """Return the PROXY header that the stream begins with, and leave what is behind it.

    Raises: ProxyError where there is none, or a wrong one; asyncio.IncompleteReadError or
    ConnectionError where the stream ends in it.
    """
    data = b""
    while (
        parsed := parse(data)
    ) is None:  # it raises what cannot become a header, as early as that is clear
        # Never more than any header still has: what is behind it stays in the stream.
        if len(data) < HEAD_BYTES:
            wanted = HEAD_BYTES - len(data)
        elif data[:1] == b"P":
            wanted = 1 if data[-1:] == b"\r" else 2
        elif len(data) < HEAD_BYTES + LENGTH_BYTES:
            wanted = HEAD_BYTES + LENGTH_BYTES - len(data)
        else:
            wanted = HEAD_BYTES + LENGTH_BYTES + int.from_bytes(data[14:16]) - len(data)
        part = await reader.read(wanted)
        if not part:
            raise asyncio.IncompleteReadError(data, None)
        data += part
    return parsed[0]


async def secure(
    reader: StreamReader,
    writer: StreamWriter,
    context: ssl.SSLContext,
    shutdown_timeout: float | None,
    proxied: bool,
) -> None:
    """Do a server's handshake. Raises what StreamWriter.start_tls() does, and NotTLSError where the
    peer speaks something else."""
    opening = await first_bytes(reader)
    try:
        # The time of both, the header and the handshake, is bounded by the caller.
        await writer.start_tls(
            context, ssl_handshake_timeout=_NO_LIMIT, ssl_shutdown_timeout=shutdown_timeout
        )
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError) as error:
        if opening[:1] in (b"", HANDSHAKE):
            raise
        raise NotTLSError(describe(opening, proxied)) from error


async def first_bytes(reader: StreamReader) -> bytes:
    """Wait for the first bytes, or the end, and return up to SHOWN_BYTES of them without taking
    them."""
    buffer: Any = reader
    if not buffer._buffer and not buffer._eof and reader.exception() is None:
        await buffer._wait_for_data("serve")
    return bytes(buffer._buffer[:SHOWN_BYTES])


async def is_over(reader: StreamReader) -> bool:
    """Tell whether the peer ends the connection without another byte, within CHECK_SECONDS: a
    proxy's health check does."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return not await first_bytes(reader)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def is_a_check(header: ProxyHeader | None, error: BaseException) -> bool:
    """Tell whether *error* ended a connection by which a proxy only looks whether the server is
    there (a LOCAL header)."""
    return header is not None and header.local and cause_of(error) is FailCause.CLOSED


class NotTLSError(ssl.SSLError):
    """What came where a handshake was due is not TLS; the message says what it is."""


def describe(opening: bytes, proxied: bool) -> str:
    """Return what a connection that begins with *opening*, and not with TLS, seems to be."""
    if opening.startswith((b"PROXY ", V2_SIGNATURE)):
        return (
            "there are two PROXY headers"
            if proxied
            else "begins with a PROXY header: is proxies= missing?"
        )
    printable = all(0x20 <= byte < 0x7F or byte in b"\r\n\t" for byte in opening)
    return f"that is {'plain text' if printable else 'not TLS'}: {opening!r}"


def lacks_certificate(context: ssl.SSLContext) -> bool:
    """Tell whether a handshake with *context*, a server's, fails for want of a certificate. One
    that chooses by name is not tried."""
    if context.sni_callback is not None:
        return False
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    anybody.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    anybody.set_ciphers("ALL:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        anybody.wrap_bio(to_client, to_server).do_handshake()
    try:
        context.wrap_bio(to_server, to_client, server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError as error:
        return error.reason in NO_CERTIFICATE
    return False


# In seconds: a day.
_NO_LIMIT = 86400.0


def cause_of(error: BaseException) -> FailCause:
    """Return why a negotiation failed that raised *error*."""
    if isinstance(error, TimeoutError):
        return FailCause.TIMEOUT
    if isinstance(error, ProxyError):
        return FailCause.PROXY
    if isinstance(error, NotTLSError):
        return FailCause.NOT_TLS
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "CERTIFICATE" in reason:
            return FailCause.CERTIFICATE
        return _CAUSES.get(reason, FailCause.OTHER)
    if isinstance(error, (ConnectionError, asyncio.IncompleteReadError)):
        return FailCause.CLOSED
    return FailCause.OTHER
