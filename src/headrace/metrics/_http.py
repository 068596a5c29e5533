"""A request without a body, and the response to it: as much of HTTP/1.1 as one GET needs.

Python's own HTTP server reads from a blocking file, and takes requests that RFC 9112 wants to be
refused. prometheus_client's applications for WSGI and ASGI need a server in front of them, and
answer on every path.
"""

from __future__ import annotations

import email.utils
import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

END_OF_HEAD = b"\r\n\r\n"
# RFC 9112, 3 and 5, with tokens as in RFC 9110, 5.6.2. The target and the values are looked at
# where they are used.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([!-~]+) HTTP/1\.(\d)")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([ \t!-~\x80-\xff]*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the method, the path without a query, and the fields by lower-case name."""

    method: str
    path: str
    fields: dict[str, list[str]]


def parsed(head: bytes) -> Request:
    """Return the request whose *head* this is, with the empty line at its end.

    Raises: ValueError where it is none that may be answered: status 400.
    """
    line, *lines = head.removesuffix(END_OF_HEAD).decode("latin-1").split("\r\n")
    request = REQUEST_LINE.fullmatch(line)
    fields: dict[str, list[str]] = {}
    for each in lines:
        field = FIELD.fullmatch(each)
        if field is None:
            raise ValueError(f"no field: {each!r}")
        fields.setdefault(field[1].lower(), []).append(field[2])
    # RFC 9112, 3.2: a request of HTTP/1.1 without Host is to be refused.
    if request is None or (request[3] != "0" and len(fields.get("host", [])) != 1):
        raise ValueError(f"no request: {line!r}")
    # A target may be a whole URL (RFC 9112, 3.2.2).
    return Request(request[1], urlsplit(request[2]).path, fields)


def response(
    status: HTTPStatus,
    body: bytes,
    content_type: str = "text/plain; charset=utf-8",
    *,
    allow: str | None = None,
    with_body: bool = True,
) -> bytes:
    """Return a whole response, after which the connection ends; without *body* for HEAD."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *([f"Allow: {allow}"] if allow else []),
    ]
    return "\r\n".join(lines).encode("latin-1") + END_OF_HEAD + (body if with_body else b"")
