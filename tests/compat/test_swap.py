"""install() and uninstall(): which names they replace, how they count, and that what looks names up
through asyncio works."""

from __future__ import annotations

import asyncio
import asyncio.streams
import sys
import types
from asyncio import open_connection as imported_early

import pytest
from conftest import Run

import headrace
from headrace.swap import installed

NAMES = (
    "StreamReader",
    "StreamWriter",
    "StreamReaderProtocol",
    "open_connection",
    "start_server",
    "open_unix_connection",
    "start_unix_server",
)


def names() -> dict[str, object]:
    """Return everything public or private in asyncio and asyncio.streams."""
    return {
        f"{module.__name__}.{name}": value
        for module in (asyncio, asyncio.streams)
        for name, value in vars(module).items()
    }


def test_every_name_is_replaced_and_put_back() -> None:
    """install() replaces the documented names in both modules, and FlowControlMixin; nothing else;
    uninstall() undoes it exactly."""
    before = names()
    with headrace.install():
        during = names()
    changed = {name for name in before if during[name] is not before[name]}
    expected = {f"{module}.{name}" for module in ("asyncio", "asyncio.streams") for name in NAMES}
    assert changed == expected | {"asyncio.streams.FlowControlMixin"}
    assert all(during[name] is getattr(headrace, name.rpartition(".")[2]) for name in changed)
    after = names()
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_calls_are_counted() -> None:
    """Only as many uninstall() as install() put asyncio's names back."""
    stock = asyncio.StreamReader
    headrace.install()
    with headrace.install():
        assert asyncio.StreamReader is headrace.StreamReader
    assert asyncio.StreamReader is headrace.StreamReader
    assert installed()
    headrace.uninstall()
    assert asyncio.StreamReader is stock
    assert not installed()


def test_a_class_that_was_imported_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """install() tells of asyncio's classes that a module has by name, and only of those, by a
    warning that Python does not show unasked."""
    early = types.ModuleType("early")
    early.StreamReader = early.other = asyncio.StreamReader
    early.open_connection = asyncio.open_connection
    lazy = LazyModule("lazy")
    for name, module in {"early": early, "lazy": lazy, "nothing": None, "slots": object()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    with (
        pytest.warns(
            ImportWarning,
            match=r"before headrace.install\(\), and so still asyncio's: early.StreamReader$",
        ) as heard,
        headrace.install(),
    ):
        assert len(heard) == 1
        assert heard[0].filename == __file__
        with headrace.install():  # nothing is changed, and nothing told, the second time
            assert issubclass(asyncio.StreamReader, early.StreamReader)
    assert len(heard) == 1
    early.StreamReader = None
    headrace.install()
    headrace.uninstall()


class LazyModule(types.ModuleType):
    """A module that would be loaded by the first look at it."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(name)


def test_an_exception_in_the_block_uninstalls() -> None:
    """Leaving the block by an exception puts the names back and lets the exception pass."""
    stock = asyncio.StreamReader
    with pytest.raises(KeyError), headrace.install():
        raise KeyError
    assert asyncio.StreamReader is stock


def test_uninstall_alone_is_an_error() -> None:
    """uninstall() without install() says so and changes nothing."""
    before = names()
    with pytest.raises(RuntimeError, match="without headrace.install"):
        headrace.uninstall()
    assert names() == before


def test_what_another_library_had_put_there_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """uninstall() restores what was there, which need not be asyncio's own."""
    theirs = object()
    monkeypatch.setattr(asyncio, "open_connection", theirs)
    with headrace.install():
        assert asyncio.open_connection is headrace.open_connection
    assert asyncio.open_connection is theirs


def test_classes_stay_related() -> None:
    """A reader made before install() is still an asyncio.StreamReader after it for isinstance(),
    and ours is one before it."""
    loop = asyncio.new_event_loop()
    try:
        assert isinstance(headrace.StreamReader(loop=loop), asyncio.StreamReader)
        with headrace.install():
            assert isinstance(headrace.StreamReader(loop=loop), asyncio.StreamReader)
    finally:
        loop.close()


def test_a_server_and_a_client_through_asyncio(run: Run) -> None:
    """asyncio.start_server() and asyncio.open_connection() make headrace's streams, and so does a
    function imported before."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert type(reader) is headrace.StreamReader
        assert type(writer) is headrace.StreamWriter
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for connect in (asyncio.open_connection, imported_early):
                reader, writer = await connect("127.0.0.1", port)
                assert type(reader) is headrace.StreamReader
                assert type(writer) is headrace.StreamWriter
                writer.write(b"hello\n")
                assert await reader.read() == b"hello\n"
                writer.close()
                await writer.wait_closed()

    with headrace.install():
        run(main)


def test_subprocess_streams(run: Run) -> None:
    """A subprocess' streams are headrace's, carry more than the pipe holds, and report the end."""
    text = b"line\n" * 40_000

    async def main() -> None:
        code = "import sys; sys.stdout.writelines(sys.stdin); sys.stderr.write('done')"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert type(process.stdin) is headrace.StreamWriter
        assert type(process.stdout) is type(process.stderr) is headrace.StreamReader
        out, errors = await process.communicate(text)
        assert (out, errors, process.returncode) == (text, b"done", 0)

    with headrace.install():
        run(main)
