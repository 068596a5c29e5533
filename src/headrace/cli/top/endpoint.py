"""The figures of a metrics endpoint: asked for by one GET, and taken out of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import email
import math
import re
from urllib.parse import urlsplit

import headrace

DEFAULT_URL = "http://127.0.0.1:9464/metrics"
# How long an endpoint may take, and how much it may send: a thousand servers' figures are well
# below. Not measured.
PATIENCE_S = 5.0
LARGEST_RESPONSE = 16 * 1024 * 1024

# One server's figures: by the name of the metric, then by reason; "" where it has none.
Figures = dict[str, dict[str, float]]


class Unavailable(Exception):
    """There are no figures; the text says why, in one line."""


def checked(url: str) -> str:
    """Return *url*; raise ValueError where it is none of http or https."""
    try:
        parts = urlsplit(url)
        right = (
            re.fullmatch(r"https?://[!-~]+", url)
            and parts.hostname
            and parts.port != 0
            and "@" not in parts.netloc
        )
    except ValueError:  # no port, or no IPv6 address
        right = False
    if not right:
        raise ValueError(f"not an http or https URL: {url!r}; it should look like {DEFAULT_URL}")
    return url


async def fetch(url: str) -> dict[str, Figures]:
    """Return the figures at *url*, by server; raise Unavailable where there are none."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            response = await _get(url)
        found = figures(_body(response))
    except TimeoutError:
        raise Unavailable(f"no answer within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise Unavailable(_clean(error.strerror or str(error))) from error
    except ValueError as error:
        raise Unavailable(_clean(f"not what a metrics endpoint answers: {error}")) from error
    if not found:
        raise Unavailable("it answers, but has no figures of a headrace server")
    return found


async def _get(url: str) -> bytes:
    """Return all that *url* answers."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    target = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await headrace.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=secure
    )
    try:
        # HTTP/1.0: the response ends with the connection, and never comes in chunks.
        writer.write(
            f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: text/plain; "
            "version=0.0.4\r\n\r\n".encode()
        )
        response = bytearray()
        while data := await reader.read(65536):
            response += data
            if len(response) > LARGEST_RESPONSE:
                raise ValueError(f"more than {LARGEST_RESPONSE} bytes")
        return bytes(response)
    finally:
        writer.transport.abort()
        # All that matters has come, or its own error is on its way.
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _body(response: bytes) -> str:
    """Return the text of an HTTP response; raise ValueError where it is none with status 200, or
    cut off."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, _, fields = head.decode("latin-1").partition("\r\n")
    if not re.match(r"HTTP/1\.\d 200\b", status):
        raise ValueError(status[:100] or "nothing")
    length = int(email.message_from_string(fields).get("Content-Length", len(body)))
    if len(body) < length:
        raise ValueError(f"it ends after {len(body)} of {length} bytes")
    return body.decode()


def figures(text: str) -> dict[str, Figures]:
    """Return the figures of headrace's servers in a *text* of metrics, by server; raise ValueError
    where it is none."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Figures] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name.startswith("headrace_") and "server" in labels and math.isfinite(value):
                reason = next((text for label, text in labels.items() if label != "server"), "")
                found.setdefault(_clean(labels["server"]), {}).setdefault(
                    name.removeprefix("headrace_"), {}
                )[_clean(reason)] = value
    return found


def _clean(text: str) -> str:
    """Return *text* of a stranger without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
