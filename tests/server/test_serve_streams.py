"""serve() with a handler of one argument, which gets a Stream."""

from __future__ import annotations

import functools
import logging

import pytest
from support.connections import LOOPBACK, until
from support.serving import connected, receive, serve

import headrace


async def pair(reader, writer):
    """A handler of a pair."""


async def stream_of(stream):
    """A handler of a Stream."""


async def with_more(stream, more=None):
    """Can take two, and so gets the pair."""


class Methods:
    async def of_stream(self, stream):
        """A handler of a Stream."""

    async def __call__(self, reader, writer):
        """A handler of a pair."""


@pytest.mark.parametrize(
    ("handler", "kinds"),
    [
        (lambda *given: None, ["StreamReader", "StreamWriter"]),
        (lambda reader, writer: None, ["StreamReader", "StreamWriter"]),
        (lambda stream, more=None: None, ["StreamReader", "StreamWriter"]),
        (
            functools.partial(lambda first, reader, writer: None, 1),
            ["StreamReader", "StreamWriter"],
        ),
        (lambda stream: None, ["Stream"]),
        (lambda stream, *, option=1: None, ["Stream"]),
        (functools.partial(lambda option, stream: None, 1), ["Stream"]),
        (functools.partial(lambda stream, option: None, option=1), ["Stream"]),
    ],
)
def test_what_a_handler_gets(run, ours, handler, kinds):
    """What can take two positional arguments gets the pair, what takes exactly one a Stream."""
    got = []

    @functools.wraps(handler)
    async def noting(*given):
        got.append([type(each).__name__ for each in given])
        handler(*given)

    async def main():
        async with serve(noting) as server:
            peer = await connected(server)
            await until(lambda: got)
            peer.close()

    run(main)
    assert got == [kinds]


@pytest.mark.parametrize(
    "handler",
    [lambda: None, lambda one, two, three: None, lambda *, stream: None, Methods.__call__],
)
def test_handlers_that_take_neither(handler):
    """A handler that takes neither one nor two positional arguments is refused at the call."""
    with pytest.raises(TypeError, match="handler must take a Stream, or a reader and a writer"):
        headrace.serve(handler, LOOPBACK, 0)


@pytest.mark.parametrize("handler", [pair, stream_of, with_more, Methods(), Methods().of_stream])
def test_handlers_that_take_one_of_them(handler):
    """Functions, methods and objects are all right."""
    headrace.serve(handler, LOOPBACK, 0)


def test_a_conversation(run, ours):
    """A handler talks through its Stream, knows its connection, and what it wrote arrives when it
    returns."""

    async def handler(stream):
        async for line in stream:
            number = headrace.current_connection().id
            await stream.write(b"%d: " % number, line)
        await stream.write(b"bye")

    async def main():
        async with serve(handler) as server:
            peer = await connected(server)
            peer.send(b"one\ntwo\n")
            assert await receive(peer, 14) == b"1: one\n1: two\n"
            peer.shutdown(1)
            assert await receive(peer, 3) == b"bye"
            peer.close()

    run(main)


def test_a_timeout_is_the_peers(run, ours, caplog):
    """A handler that lets its own stream's timeout through is no failure of the program: one line
    says what the peer did, and nothing is counted as an error."""

    async def handler(stream):
        stream.read_timeout = 0.01
        await stream.readline()

    async def main():
        async with serve(handler) as server:
            peer = await connected(server)
            assert await receive(peer, 1) == b""
            await until(lambda: server.statistics().handled == 1)
            assert server.statistics().errors == {}
            peer.close()

    with caplog.at_level(logging.INFO, "headrace.server"):
        run(main)
    (line,) = [record for record in caplog.records if "ReadTimeout" in record.getMessage()]
    assert line.levelno == logging.INFO
