"""Negotiation: what comes before a handler: the PROXY header, then TLS; and why it fails, in one word."""

from __future__ import annotations

import asyncio
import ssl

from headrace.server.proxy import ProxyError, ProxyHeader, parse
from headrace.streams.reader import StreamReader
from headrace.streams.writer import StreamWriter

# The signature of version 2, which is shorter than any header of version 1; and what follows it up to the length.
HEAD_BYTES = 12
LENGTH_BYTES = 4

# What the ssl module calls the reasons of a handshake that failed, by what is behind them.
_CAUSES = {
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "version",
    "HTTP_REQUEST": "not TLS",
    "HTTPS_PROXY_REQUEST": "not TLS",
    "WRONG_VERSION_NUMBER": "not TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate",
    "CERTIFICATE_VERIFY_FAILED": "certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "certificate",
}


async def read_proxy_header(reader: StreamReader) -> ProxyHeader:
    """Return the PROXY header that the stream begins with, and leave what is behind it.

    Raises: ProxyError where there is none, or a wrong one; asyncio.IncompleteReadError or ConnectionError where the stream ends in it.
    """
    data = b""
    while (parsed := parse(data)) is None:  # it raises what cannot become a header, as early as that is clear
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


async def secure(writer: StreamWriter, context: ssl.SSLContext, shutdown_timeout: float | None) -> None:
    """Do a server's handshake. Raises what StreamWriter.start_tls() does."""
    # The time of both, the header and the handshake, is bounded by the caller.
    await writer.start_tls(context, ssl_handshake_timeout=_NO_LIMIT, ssl_shutdown_timeout=shutdown_timeout)


# In seconds: a day.
_NO_LIMIT = 86400.0


def cause_of(error: BaseException) -> str:
    """Return why a negotiation failed that raised *error*, as Statistics.failed names it."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ProxyError):
        return "proxy"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "CERTIFICATE" in reason:
            return "certificate"
        return _CAUSES.get(reason, "other")
    if isinstance(error, (ConnectionError, asyncio.IncompleteReadError)):
        return "closed"
    return "other"
