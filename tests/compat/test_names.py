"""The names of asyncio's classes: each is ours where asyncio has it, none falls through to its
code, and tools see what they expect."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
import weakref
from unittest import mock

import pytest
from support.wires import RecordingTransport, Wire, from_callback, turns

CLASSES = ["StreamReader", "StreamWriter", "StreamReaderProtocol", "FlowControlMixin"]

# Part of how a class was written, not of what it does.
OF_THE_CLASS = {
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__slots__",
    "__firstlineno__",
    "__static_attributes__",
    "__annotations__",
    "__annotations_cache__",  # once somebody has looked at them, on 3.14 and later
}

# asyncio's names that headrace does not have. __del__ silences a future that headrace makes only on
# request, and silences then. _replace_writer and _stream_writer are gone from asyncio in Python
# 3.13; _replace_transport came instead.
LEFT_OUT = {("StreamReaderProtocol", "__del__"), ("StreamReaderProtocol", "_replace_writer")}

# Attributes of asyncio's instances that headrace does not have: the constant result of asyncio's
# drain(), and a flag for readers dropped before there was a connection.
LEFT_OUT_OF_INSTANCES = {
    ("StreamWriter", "_complete_fut"),
    ("StreamReaderProtocol", "_reject_connection"),
    ("StreamReaderProtocol", "_stream_writer"),
}


def _definer(cls: type, name: str) -> type | None:
    """Return the class that *cls* has *name* from."""
    return next((each for each in cls.__mro__ if name in vars(each)), None)


def _names(cls: type) -> set[str]:
    """Return the names that asyncio.streams defines for *cls*, in the class and in those that it
    inherits from."""
    found = set()
    for each in cls.__mro__:
        if each.__module__ == "asyncio.streams":
            found |= set(vars(each))
    return found - OF_THE_CLASS


@pytest.mark.parametrize("name", CLASSES)
def test_no_name_is_inherited_by_omission(ours, name):
    """Every method and property that asyncio.streams defines is defined by headrace, for the same
    kind of thing."""
    from conftest import STOCK

    stock, mine = getattr(STOCK, name), getattr(ours, name)
    names = _names(stock)
    assert len(names) > 5
    for each in sorted(names):
        if (name, each) in LEFT_OUT:
            assert not hasattr(mine, each)
            continue
        if vars(_definer(stock, each))[each] is None:
            # no code: the value that an instance begins with, which test_instance_attributes() asks
            # for
            continue
        definer = _definer(mine, each)
        assert definer is not None, each
        if _definer(stock, each).__module__ == "asyncio.streams":
            assert definer.__module__.split(".")[0] == "headrace", each
        assert callable(getattr(mine, each)) == callable(getattr(stock, each)), each


def test_the_base_classes(ours):
    """Our reader and writer are asyncio's by isinstance(), and our protocol is an
    asyncio.Protocol."""
    from conftest import STOCK

    assert issubclass(ours.StreamReader, STOCK.StreamReader)
    assert issubclass(ours.StreamWriter, STOCK.StreamWriter)
    assert issubclass(ours.StreamReaderProtocol, asyncio.Protocol)
    assert issubclass(ours.StreamReaderProtocol, ours.FlowControlMixin)
    assert issubclass(ours.FlowControlMixin, asyncio.Protocol)


def test_instance_attributes(run, ours):
    """Every attribute that asyncio's instances carry can be read from ours."""
    from conftest import STOCK

    async def main():
        made = {}
        for streams in (STOCK, ours):
            wire = Wire(streams)
            made[streams.name] = {
                "StreamReader": wire.reader,
                "StreamWriter": wire.writer,
                "StreamReaderProtocol": wire.protocol,
            }
            wire.shut()
        for name, stock in made["stock"].items():
            data = {
                each
                for each in _names(type(stock))
                if vars(_definer(type(stock), each))[each] is None
            }
            for attribute in sorted(data | set(vars(stock))):
                if (name, attribute) not in LEFT_OUT_OF_INSTANCES:
                    assert hasattr(made["headrace"][name], attribute), (name, attribute)

    run(main)


@pytest.mark.parametrize("name", ["StreamReader", "StreamWriter"])
def test_signatures(ours, name):
    """Public methods take the parameters of asyncio's newest documented version under the same
    names."""
    from conftest import STOCK

    stock, mine = getattr(STOCK, name), getattr(ours, name)
    for method in sorted(_names(stock)):
        function = vars(_definer(stock, method))[method]
        if method.startswith("_") or not isinstance(function, types.FunctionType):
            continue
        expected = inspect.signature(function).parameters
        try:
            got = inspect.signature(getattr(mine, method)).parameters
        except ValueError:
            continue  # a compiled method without a signature
        assert [each for each in expected if each not in got] == [], method


def test_mock_with_spec(streams):
    """Mocks made from the classes have awaitable methods where asyncio's are coroutine functions,
    and plain ones elsewhere."""
    reader, writer = mock.Mock(spec=streams.StreamReader), mock.Mock(spec=streams.StreamWriter)
    for method in ("read", "readline", "readexactly", "readuntil"):
        assert isinstance(getattr(reader, method), mock.AsyncMock), method
    for method in ("drain", "wait_closed", "start_tls"):
        assert isinstance(getattr(writer, method), mock.AsyncMock), method
    for plain in (reader.at_eof, reader.feed_data, writer.write, writer.close, writer.is_closing):
        assert not isinstance(plain, mock.AsyncMock)
    assert isinstance(reader, streams.StreamReader)
    reader.readline.return_value = b"line\n"

    async def main():
        return await reader.readline()

    assert asyncio.run(main()) == b"line\n"
    with pytest.raises(AttributeError):
        reader.no_such_method  # noqa: B018


@pytest.mark.filterwarnings(
    "ignore:'asyncio.iscoroutinefunction' is deprecated"
)  # from Python 3.14 on
def test_coroutine_functions(streams):
    """asyncio, and from Python 3.12 on inspect, take the waiting methods for coroutine functions,
    and only these."""
    waiting = [
        streams.StreamReader.read,
        streams.StreamReader.readline,
        streams.StreamWriter.drain,
        streams.StreamWriter.wait_closed,
    ]
    for function in waiting:
        assert asyncio.iscoroutinefunction(function)
        if sys.version_info >= (3, 12):
            assert inspect.iscoroutinefunction(function)
    for function in (
        streams.StreamReader.at_eof,
        streams.StreamReader.feed_data,
        streams.StreamWriter.write,
    ):
        assert not asyncio.iscoroutinefunction(function)


def test_a_replaced_transport(run, streams):
    """A protocol that is given another transport passes it on to its reader; the reader refuses one
    where it has none."""
    if not hasattr(streams.StreamReader, "_replace_transport"):
        pytest.skip("new in Python 3.14")

    async def main():
        wire = Wire(streams)
        other = RecordingTransport()
        wire.protocol._replace_transport(other)
        assert wire.reader._transport is other
        assert wire.protocol._transport is other
        with pytest.raises(AssertionError, match="Transport not set"):
            streams.StreamReader()._replace_transport(other)
        wire.shut()

    run(main)


def test_subclasses_in_python(run, streams):
    """Subclasses may add attributes, override methods that asyncio calls, and be referred to
    weakly; their methods are called."""

    class Reader(streams.StreamReader):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.seen = 0

        def feed_data(self, data):
            self.seen += len(data)
            super().feed_data(data.upper())

        async def readuntil(self, separator=b"\n"):
            return b"<" + await super().readuntil(separator) + b">"

    class Protocol(streams.StreamReaderProtocol):
        ended = 0

        def eof_received(self):
            self.ended += 1
            return super().eof_received()

    class Writer(streams.StreamWriter):
        def write(self, data):
            super().write(b"[" + data + b"]")

    async def main():
        loop = asyncio.get_running_loop()
        reader = Reader(loop=loop)
        protocol = Protocol(reader, loop=loop)
        wire = Wire(streams)
        protocol.connection_made(wire.transport)
        writer = Writer(wire.transport, protocol, reader, loop)
        task = asyncio.create_task(reader.readline())
        await turns(2)
        await from_callback(protocol.data_received, b"line\n")
        assert await task == b"<LINE\n>"
        assert reader.seen == 5
        writer.write(b"data")
        assert wire.transport.sent == [b"[data]"]
        await from_callback(protocol.eof_received)
        assert protocol.ended == 1
        assert await reader.read() == b""
        for each in (reader, protocol, writer):
            each.anything = 1
            assert weakref.ref(each)() is each
        wire.shut()

    run(main)


# ---- what is shown


def test_reprs_name_the_method_and_never_the_reader(run, ours):
    """A waiting operation shows its method and state; its task and its reader show it, and nothing
    shows itself again."""

    async def main():
        wire = Wire(ours)
        task = asyncio.create_task(wire.reader.readexactly(3), name="reading")
        await turns(2)
        operation = task.get_coro()
        assert repr(operation) == "<StreamReader.readexactly() waiting>"
        assert "waiter=<StreamReader.readexactly() waiting>" in repr(wire.reader)
        assert "StreamReader.readexactly" in repr(task)
        assert "without __name__" not in repr(task)
        assert repr(wire.reader) in repr(wire.writer)
        wire.reader.feed_data(b"abc")
        assert repr(operation) == "<StreamReader.readexactly() woken>"
        await task
        assert repr(operation) == "<StreamReader.readexactly() done>"
        drain = wire.writer.drain()
        assert repr(drain) == "<StreamWriter.drain() new>"
        assert (drain.__name__, drain.__qualname__) == ("drain", "StreamWriter.drain")
        drain.close()
        with pytest.raises(AttributeError, match="no_such_name"):
            drain.no_such_name  # noqa: B018
        wire.shut()

    run(main)


def test_stacks_of_waiting_tasks(run, streams, capsys):
    """A task that waits in a read prints its stack, and all_tasks() its repr, whether the read is
    its own coroutine or awaited in one."""

    async def main():
        wire, other = Wire(streams), Wire(streams)

        async def a_function_of_ours():
            await other.reader.read(1)

        tasks = [
            asyncio.create_task(wire.reader.read(1)),
            asyncio.create_task(a_function_of_ours()),
        ]
        await turns(2)
        for task in tasks:
            task.print_stack()
        assert "a_function_of_ours" in capsys.readouterr().err
        assert len([repr(task) for task in asyncio.all_tasks()]) >= 3
        for each in (wire, other):
            each.reader.feed_eof()
            each.shut()
        await asyncio.gather(*tasks)

    run(main)


def test_operations_cannot_be_made_by_hand(run, ours):
    """The class of operations is no constructor; its instances come from a stream's methods."""

    async def main():
        wire = Wire(ours)
        drain = wire.writer.drain()
        with pytest.raises(TypeError, match="made by the methods of a stream"):
            type(drain)()
        await drain
        wire.shut()

    run(main)
