"""serve_metrics(): a small HTTP server that answers scrapes."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from asyncio.log import logger
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from headrace._streams.asyncio_server import Server
from headrace._streams.reader import StreamReader
from headrace._streams.start_server import start_server
from headrace._streams.writer import StreamWriter
from headrace.metrics._collector import Measured, StatisticsCollector
from headrace.metrics._http import END_OF_HEAD, parsed, response

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

# The default port of OpenTelemetry's Prometheus exporters (OpenTelemetry specification,
# OTEL_EXPORTER_PROMETHEUS_PORT).
PORT = 9464
PATH = "/metrics"
# Enough for what Prometheus and browsers send, and what a stranger can make this process keep. Not
# measured.
HEAD_BYTES = 8192
# For the request, and then for the answer: Prometheus gives a scrape 10 s by default (its
# configuration, scrape_timeout).
PATIENCE_S = 10.0


async def serve_metrics(
    *servers: Measured, host: str = "127.0.0.1", port: int = PORT, registry: Collector | None = None
) -> Server:
    """Answer Prometheus' scrapes of *servers* at ``http://host:port/metrics``; return the Server,
    which is the caller's to close.

    The text is OpenMetrics or Prometheus' own, as the Accept header asks. A client has 10 seconds
    to send its request, of at most 8 KiB, and 10 to take the answer. It is plain HTTP without
    passwords: leave it on loopback or on a network that is yours.

    Args:
        servers: what has a ``name`` and ``statistics()``. Each name must be there once.
        host, port: where to listen, as for start_server(); port 0 for one that is free.
        registry: further metrics to answer, for example ``prometheus_client.REGISTRY``; it is not
            changed. It is asked in the loop's thread, and must not hold a StatisticsCollector of
            the same servers. What it raises is logged and answered with status 500.

    Raises: ImportError where prometheus_client is not installed; ValueError for no server, or two
    of one name; OSError where the address cannot be bound.
    Cancellation: safe; nothing is left listening.
    """
    collector = StatisticsCollector(*servers)
    from prometheus_client import CollectorRegistry

    both = CollectorRegistry()
    both.register(collector)
    if registry is not None:
        both.register(registry)
    try:
        # A reader's limit does not count the separator.
        return await start_server(
            functools.partial(_serve, both), host, port, limit=HEAD_BYTES - len(END_OF_HEAD)
        )
    except socket.gaierror:  # it names the host, and its number is none of errno's
        raise
    except OSError as error:
        if error.errno is None:
            raise
        # The program has other ports, and the message is often all that is read.
        raise OSError(
            error.errno,
            f"the metrics cannot be served on {host} port {port}: {os.strerror(error.errno)}",
        ) from error


async def _serve(registry: Collector, reader: StreamReader, writer: StreamWriter) -> None:
    """Answer one request and close."""
    try:
        answer = await _answer(registry, reader)
        async with asyncio.timeout(PATIENCE_S):
            writer.write(answer)
            # To close while bytes of the client are unread would reset the connection, and it might
            # lose the answer (RFC 9112, 9.6).
            writer.write_eof()
            while await reader.read(HEAD_BYTES):
                pass
            writer.close()
            await writer.wait_closed()
    except OSError:  # gone, or too slow with the answer: there is nobody to tell
        writer.transport.abort()
    finally:
        writer.close()


async def _answer(registry: Collector, reader: StreamReader) -> bytes:
    """Return the answer to what comes from *reader*, b"" where nothing came."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(END_OF_HEAD)
        request = parsed(head)
    except TimeoutError:
        return _status(HTTPStatus.REQUEST_TIMEOUT)
    except asyncio.LimitOverrunError:
        return _status(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    except asyncio.IncompleteReadError as error:
        return _status(HTTPStatus.BAD_REQUEST) if error.partial else b""
    except ValueError:
        return _status(HTTPStatus.BAD_REQUEST)
    with_body = request.method != "HEAD"
    if request.path != PATH:
        return _status(HTTPStatus.NOT_FOUND, with_body=with_body)
    if request.method not in ("GET", "HEAD"):
        return _status(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    encode, content_type = _encoder(",".join(request.fields.get("accept", [])))
    try:
        body = encode(registry)
    except Exception:  # of somebody's collector, whatever it may be
        logger.exception("the metrics could not be collected")
        return _status(HTTPStatus.INTERNAL_SERVER_ERROR, with_body=with_body)
    return response(HTTPStatus.OK, body, content_type, with_body=with_body)


def _status(status: HTTPStatus, *, allow: str | None = None, with_body: bool = True) -> bytes:
    """Return the response that says *status* in words."""
    words = f"{status.value} {status.phrase}: the figures are at GET {PATH}\n".encode()
    return response(status, words, allow=allow, with_body=with_body)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return what makes the text that *accept* asks for, and its content type."""
    from prometheus_client.exposition import choose_encoder

    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # A version that is no number; Accept may be disregarded (RFC 9110, 12.4.1).
        return choose_encoder("")
