"""The same script of feeds and reads with asyncio's reader and with ours: nothing that a program
can see differs."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest
from conftest import OURS, STOCK, new_loop
from hypothesis import given
from hypothesis import strategies as st
from support.properties import SHRINKING_S, examples
from support.reader_model import directly, ended, piece, reads, single_reads
from support.wires import turns

pytestmark = pytest.mark.timeout(SHRINKING_S)

# Enough for a wake and what follows from it.
SETTLE_TURNS = 4

# asyncio's readuntil() takes a tuple from Python 3.13 on.
common_reads = reads if sys.version_info >= (3, 13) else single_reads


@st.composite
def scripts(draw):
    """A limit, and the actions on a reader that has it: bytes come, often about as many as the
    limit, then reads, and rarely an end."""
    limit = draw(st.integers(1, 30))
    about = st.integers(-1, 1).map(lambda more: b"a" * (limit + more))
    feeds = st.tuples(
        st.just("feed"), st.one_of(piece, piece, about, about.map(lambda data: data + b"\n"))
    )
    steps = st.one_of(*[feeds] * 5, *[st.tuples(st.just("read"), common_reads)] * 5)
    script = draw(st.lists(steps, max_size=20))
    if draw(st.booleans()):
        script += [
            (draw(st.sampled_from(["eof", "eof", "fail"])),),
            *draw(st.lists(steps, min_size=1, max_size=5)),
        ]
    return limit, script


def reads_all(read):
    return read.name == "read" and (read.argument is None or read.argument < 0)


async def play(
    streams: types.SimpleNamespace, limit: int, script: list[tuple[Any, ...]]
) -> list[object]:
    """Do what *script* says with a reader of *streams*, and return everything that can be seen from
    outside."""
    reader = streams.StreamReader(limit, asyncio.get_running_loop())
    seen: list[object] = []
    task = None
    eof = False
    # asyncio's read(-1) takes what there is while it waits, and loses it if it fails; ours leaves
    # it in the buffer.
    greedy = False
    for step, *arguments in script:
        if step == "feed" and not eof:
            reader.feed_data(*arguments)
        elif step == "eof":
            reader.feed_eof()
            eof = True
        elif step == "fail" and not greedy:
            reader.set_exception(KeyError("why"))
        elif step == "read" and task is None:
            task = asyncio.ensure_future(directly(arguments[0], reader))
            greedy = reads_all(arguments[0])
        await turns(SETTLE_TURNS)
        if task is not None and task.done():
            seen.append(described(*ended(task)))
            task = None
            greedy = False
        seen.append((step, task is None, repr(reader.exception()), greedy or reader.at_eof()))
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
    seen.append(greedy or bytes(reader._buffer))
    return seen


def described(value, error):
    """Return what is the same in asyncio and headrace of a read's result: not the figures behind
    the words of an error."""
    if error is None:
        return type(value), value
    words = (
        error.args[0].partition(" (")[0] if error.args and isinstance(error.args[0], str) else None
    )
    context = type(error.__context__) if isinstance(error, ValueError) else None
    return type(error), words, vars(error), context


@examples(350)
@given(scripts())
def test_the_same_as_asyncio(case):
    """The same script of feeds and reads gives the same results, errors and rests with asyncio's
    reader and with ours."""
    limit, script = case
    with asyncio.Runner(loop_factory=lambda: new_loop("asyncio")) as runner:
        stock = runner.run(play(STOCK, limit, script))
        ours = runner.run(play(OURS, limit, script))
    assert ours == stock


@pytest.mark.parametrize("order", [1, -1])
def test_a_tuple_of_separators_in_any_order(run, streams, order):
    """The order of the separators does not matter: of those that end at one place the shortest
    counts, and the longest may yet come."""
    if streams.name == "stock" and sys.version_info < (3, 13):
        pytest.skip("asyncio's readuntil() takes a tuple from Python 3.13 on")

    async def main():
        reader = streams.StreamReader(limit=4)
        reader.feed_data(b"abcd\r\n")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil((b"\n", b"\r\n")[::order])
        assert caught.value.consumed == 5
        assert await reader.readexactly(6) == b"abcd\r\n"
        reader.feed_data(b"abcdef")
        reading = asyncio.create_task(reader.readuntil((b"!", b"def!")[::order]))
        await turns(3)
        assert not reading.done()
        reader.feed_data(b"!")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reading
        assert caught.value.consumed == 6

    run(main)


@pytest.mark.parametrize("again", [False, True])
def test_a_tuple_of_separators_that_change(run, streams, again):
    """A tuple may hold separators that are changed between two reads; each read looks for what they
    are when it starts."""
    if streams.name == "stock" and sys.version_info < (3, 13):
        pytest.skip("asyncio's readuntil() takes a tuple from Python 3.13 on")

    async def main():
        reader = streams.StreamReader()
        reader.feed_data(b"a-b+c-d+")
        separators = (bytearray(b"-"), b"==")
        assert await reader.readuntil(separators) == b"a-"
        separators[0][:] = b"+"
        assert await reader.readuntil(separators if again else (*separators, b"===")) == b"b+"
        assert await reader.readuntil((bytearray(b"d+"), b"-")) == b"c-"

    run(main)


@pytest.mark.parametrize("name", ["read", "readexactly"])
@pytest.mark.parametrize("wrong", [None, "3", b"3", 1.5, [], int])
def test_what_is_no_number_is_refused_at_the_await(run, streams, name, wrong):
    """The call returns an awaitable, and that raises; the buffer is as it was."""

    async def main():
        reader = streams.StreamReader()
        reader.feed_data(b"hello")
        waiting = getattr(reader, name)(wrong)
        with pytest.raises(TypeError):
            await waiting
        assert await reader.read(10) == b"hello"

    run(main)


@pytest.mark.parametrize("wanted", [7, 2**63 - 1, 2**63, 2**100])
def test_what_was_expected(run, streams, wanted):
    """At the end the error says what was asked for, however large."""

    async def main():
        reader = streams.StreamReader()
        reader.feed_data(b"hello")
        reader.feed_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(wanted)
        assert (caught.value.partial, caught.value.expected) == (b"hello", wanted)

    run(main)
