"""serve() and its siblings: wrong arguments are refused at the call, by an error that names the
argument."""

from __future__ import annotations

import functools
import inspect
import logging
import ssl

import pytest
from support.connections import LOOPBACK
from support.wires import connected

import headrace
from headrace._server.options import ServeOptions


async def nothing(reader, writer):
    """A handler."""


def plain(reader, writer):
    """A function that nobody can await."""


class Callable:
    async def __call__(self, reader, writer):
        """A handler that is an object."""


def wrapped(handler):
    @functools.wraps(handler)
    def wrapper(reader, writer):
        return handler(reader, writer)

    return wrapper


@pytest.mark.parametrize("handler", [plain, functools.partial(plain), None, "module:handler"])
def test_handlers_that_are_none(handler):
    """What is surely no coroutine function is refused at the call."""
    with pytest.raises(TypeError, match="handler must be a coroutine function"):
        headrace.serve(handler, LOOPBACK, 0)


@pytest.mark.parametrize(
    "handler",
    [
        nothing,
        functools.partial(nothing),
        Callable(),
        Callable().__call__,
        wrapped(nothing),
        lambda reader, writer: nothing(reader, writer),
    ],
)
def test_handlers_that_are_some(handler):
    """Whatever may return a coroutine is taken."""
    headrace.serve(handler, LOOPBACK, 0)


def test_what_type_checkers_know():
    """Type checkers see every argument of serve(), in the order of its signature."""
    parameters = inspect.signature(headrace.serve).parameters.values()
    keywords = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    assert list(ServeOptions.__annotations__) == keywords


@pytest.mark.parametrize("wrong", ["server.pem", True, ("pem", "key"), 1])
def test_no_context_of_tls(wrong):
    """What is no context is a TypeError at the call."""
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
        headrace.serve(nothing, LOOPBACK, 0, ssl=wrong)


def test_a_clients_context():
    """A client's context is a ValueError at the call."""
    with pytest.raises(ValueError, match="client's context"):
        headrace.serve(nothing, LOOPBACK, 0, ssl=ssl.create_default_context())


def test_a_context_without_a_certificate(tls, caplog):
    """A context that no client could be shown a certificate of is a warning; others are none."""
    headrace.serve(nothing, LOOPBACK, 0, ssl=tls.server)
    by_name = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by_name.sni_callback = lambda *_: None
    headrace.serve(nothing, LOOPBACK, 0, ssl=by_name)
    assert caplog.records == []
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        headrace.serve(nothing, LOOPBACK, 0, ssl=context)
    assert [
        (record.levelno, "has no certificate" in record.getMessage()) for record in caplog.records
    ] == [(logging.WARNING, True)] * 2


@pytest.mark.parametrize("wrong", [["localhost"], ["10.0.0.1/8"], ["unix", ""]])
def test_networks_that_are_none(wrong):
    """The error about a network names the argument."""
    with pytest.raises(ValueError, match="proxies must be networks"):
        headrace.serve(nothing, LOOPBACK, 0, proxies=wrong)
    with pytest.raises(TypeError, match="proxies must be a list"):
        headrace.serve(nothing, LOOPBACK, 0, proxies="10.0.0.0/8")


def test_no_context_elsewhere(run, ours, tmp_path):
    """open_connection(), start_server(), their Unix variants and start_tls() name what is wrong,
    too."""

    async def main():
        for start in (
            ours.open_connection(LOOPBACK, 1, ssl="x", server_hostname="x"),
            ours.open_unix_connection(str(tmp_path / "socket"), ssl="x", server_hostname="x"),
            ours.start_server(nothing, LOOPBACK, 0, ssl="x"),
            ours.start_unix_server(nothing, str(tmp_path / "socket"), ssl="x"),
        ):
            with pytest.raises(TypeError, match="ssl argument must be an SSLContext"):
                await start
        async with connected(ours) as (_, writer, _):
            with pytest.raises(TypeError, match="sslcontext is expected"):
                await writer.start_tls("x")

    run(main)
