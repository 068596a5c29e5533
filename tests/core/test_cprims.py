"""The C leaf and its Python twin: the same functions with the same meaning, whichever of the two a
build uses."""

from __future__ import annotations

import ast
import contextvars
import importlib.util
import inspect
import re
import sys
import time
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.properties import SHRINKING_S, examples

from headrace._core import cprims_py
from headrace._core.buffer import ReadBuffer

try:
    from headrace._core import cprims
except ImportError:  # the pure build has the twin only
    cprims = None

pytestmark = pytest.mark.timeout(SHRINKING_S)

LEAVES = [
    pytest.param(leaf, id=leaf.__name__.rpartition(".")[2])
    for leaf in (cprims_py, cprims)
    if leaf is not None
]
SOURCE = (
    Path(importlib.util.find_spec("headrace._core").submodule_search_locations[0]) / "cprims.pyx"
)

# Few letters, so that a needle is often there, often nearly there, and often there twice.
few_letters = st.lists(st.sampled_from(b"ab\n\0"), max_size=40).map(bytes)
any_bytes = st.one_of(few_letters, st.binary(max_size=2000))


@st.composite
def slices(draw):
    """Bytes, and where a part of them starts and how long it is."""
    data = draw(any_bytes)
    start = draw(st.integers(0, len(data)))
    return data, start, draw(st.integers(0, len(data) - start))


@st.composite
def searches(draw):
    """Bytes, something to look for (often a part of them), and two places in them, in either
    order."""
    data = draw(any_bytes)
    needle = draw(few_letters.filter(len))
    if data and draw(st.booleans()):
        start = draw(st.integers(0, len(data) - 1))
        needle = data[start : start + draw(st.integers(1, 5))]
    return data, needle, draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))


def storage_of(leaf, content):
    """Return a storage of *leaf* that holds *content*."""
    storage = leaf.allocate(len(content))
    leaf.put(storage, 0, content, 0, len(content))
    return storage


@pytest.mark.parametrize("leaf", LEAVES)
@examples(100)
@given(slices())
def test_piece_and_front(leaf, case):
    """piece() and front() return exact bytes, equal to a slice, of immutable data, of a storage, or
    of a bytearray."""
    data, start, size = case
    for whole in (data, storage_of(leaf, data)):
        part = leaf.piece(whole, start, size)
        assert type(part) is bytes
        assert part == data[start : start + size]
    mutable = bytearray(data)
    first = leaf.front(mutable, size)
    mutable[:] = bytes(len(mutable))
    assert type(first) is bytes
    assert first == data[:size]
    mutable.clear()  # no view of it is left


@pytest.mark.parametrize("leaf", LEAVES)
@examples(300)
@given(searches())
def test_find(leaf, case):
    """find() is bytes.find(): only what lies wholly between start and end counts, the first one,
    and nothing where they cross."""
    data, needle, start, end = case
    for whole in (data, storage_of(leaf, data)):
        assert leaf.find(whole, needle, start, end) == data.find(needle, start, end)


@pytest.mark.parametrize("leaf", LEAVES)
@examples(100)
@given(slices(), any_bytes, any_bytes)
def test_put_and_put_front(leaf, case, before, after):
    """put() and put_front() write the bytes they are told to, where they are told to, and no byte
    beside."""
    data, start, size = case
    part = data[start : start + size]
    storage = storage_of(leaf, before + bytes(size) + after)
    leaf.put(storage, len(before), data, start, size)
    assert storage == before + part + after
    storage = storage_of(leaf, before + bytes(size) + after)
    leaf.put_front(storage, len(before), bytearray(part + b"more"), size)
    assert storage == before + part + after
    leaf.put(storage, 0, storage_of(leaf, after), 0, 0)
    assert storage == before + part + after


@pytest.mark.parametrize("leaf", LEAVES)
def test_allocate(leaf):
    """A storage has the size that was asked for and belongs to who asked: not even one of a single
    byte is shared."""
    for size in (0, 1, 2, 100, 5000):
        assert len(leaf.allocate(size)) == size
    letters = [bytes([number]) for number in range(256)]
    storages = [storage_of(leaf, b"x") for _ in range(3)]
    for storage in storages:
        leaf.put(storage, 0, b"y", 0, 1)
    assert [bytes([number]) for number in range(256)] == letters
    assert letters == [number.to_bytes() for number in range(256)]
    assert storages == [b"y"] * 3
    assert b"x" != b"y"
    storage = storage_of(leaf, b"x")
    leaf.put(storages[0], 0, b"z", 0, 1)
    assert storage == b"x"


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize(
    "size", [2**47, 2**62, sys.maxsize - 100], ids=["2**47", "2**62", "nearly sys.maxsize"]
)
def test_allocate_more_than_there_is(leaf, size):
    """Asking for more memory than a machine has is a MemoryError, which who reserves for a read of
    that size expects."""
    with pytest.raises(MemoryError):
        leaf.allocate(size)


@pytest.mark.parametrize("leaf", LEAVES)
def test_references(leaf):
    """references() grows by one with each reference, and does not add one itself."""
    data = bytearray(b"data")
    alone = leaf.references(data)
    held = [data]
    assert leaf.references(data) == alone + 1
    held.append(data)
    assert leaf.references(data) == alone + 2
    del held
    assert leaf.references(data) == alone


@pytest.mark.parametrize("leaf", LEAVES)
def test_seconds(leaf):
    """seconds() is the clock of time.monotonic(): the same zero and the same pace."""
    before = time.monotonic()
    now = leaf.seconds()
    after = time.monotonic()
    assert type(now) is float
    # The twins round to a float in different places.
    assert before - 1e-6 <= now <= after + 1e-6


@pytest.mark.parametrize("leaf", LEAVES)
def test_bound_to(leaf):
    """bound_to() tells the object of a C method, and None of whatever is no bound C function, even
    where it has a __self__."""

    class WithSelf:
        __self__ = "somebody"

        def method(self):
            return self

        def __call__(self):
            return self

    items = [1]
    # A function of a C module has the module for its object.
    for callback in (items.append, items.__len__, dict.fromkeys, len):
        expected = callback.__self__ if type(callback) is type(len) else None
        assert leaf.bound_to(callback) is expected
    for callback in (
        WithSelf().method,
        WithSelf(),
        WithSelf,
        lambda: None,
        None,
        1,
        items,
        str.upper,
        "text".__class__,
    ):
        assert leaf.bound_to(callback) is None


@pytest.mark.parametrize("leaf", LEAVES)
def test_referent(leaf):
    """referent() returns what a weak reference refers to, and None once that is gone."""

    class Referred:
        pass

    referred = Referred()
    reference = weakref.ref(referred)
    assert leaf.referent(reference) is referred
    del referred
    assert leaf.referent(reference) is None


@pytest.mark.parametrize("leaf", LEAVES)
def test_set_attribute(leaf):
    """set_attribute() sets what object.__setattr__() would, past a __setattr__ of the class, and
    raises what that raises."""

    class Closed:
        __slots__ = ("__dict__", "slot")

        def __setattr__(self, name, value):
            raise AssertionError("never called")

        @property
        def fixed(self):
            return 1

        @property
        def counted(self):
            return self.__dict__["count"]

        @counted.setter
        def counted(self, value):
            self.__dict__["count"] = value + 1

    closed = Closed()
    value = object()
    before = leaf.references(value)
    assert leaf.set_attribute(closed, "free", value) is None
    leaf.set_attribute(closed, "slot", value)
    leaf.set_attribute(closed, "counted", 1)
    assert closed.free is closed.slot is value
    assert closed.counted == 2
    assert leaf.references(value) == before + 2
    for target, name in ((closed, "fixed"), (object(), "free"), (1, "real")):
        with pytest.raises(AttributeError):
            leaf.set_attribute(target, name, 1)


@pytest.mark.parametrize("leaf", LEAVES)
def test_hide_vtable(leaf):
    """hide_vtable() takes Cython's table from a compiled class and nothing from any other, as often
    as it is called; the methods go on working."""

    class Plain:
        pass

    before = dict(vars(Plain))
    leaf.hide_vtable(Plain)
    assert dict(vars(Plain)) == before
    cls = ReadBuffer
    for _ in range(2):
        leaf.hide_vtable(cls)
        assert leaf is cprims_py or "__pyx_vtable__" not in dir(cls)
        buffer = cls()
        buffer.append(b"abc")
        assert buffer.take(2) == b"ab"


# ---- enter


@pytest.mark.parametrize("leaf", LEAVES)
def test_enter(leaf):
    """enter() calls once, with the argument, in the context: what is set there stays there, and it
    can be entered again."""
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.Context()
    seen = []

    def callback(argument):
        seen.append((argument, variable.get()))
        variable.set(variable.get() + 1)
        return "dropped"

    assert leaf.enter(context, callback, "first") is True
    assert leaf.enter(context, callback, "second") is True
    assert seen == [("first", 0), ("second", 1)]
    assert context[variable] == 2
    assert variable.get() == 0


@pytest.mark.parametrize("leaf", LEAVES)
def test_enter_what_is_entered(leaf):
    """Of a context that is entered already enter() returns False: nothing was called, no exception
    is left, the context is whole."""
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.Context()
    called = []

    def inside():
        variable.set(1)
        assert leaf.enter(context, called.append, None) is False
        assert sys.exc_info() == (None, None, None)
        # Others can be entered from here.
        assert leaf.enter(contextvars.Context(), called.append, variable) is True
        variable.set(variable.get() + 1)

    context.run(inside)
    assert called == [variable]
    assert context[variable] == 2
    assert leaf.enter(context, called.append, "free again") is True
    assert called == [variable, "free again"]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt, SystemExit])
def test_enter_and_fail(leaf, error):
    """What the callback raises comes out of enter(), a RuntimeError too, and the context has been
    left."""
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.Context()
    raised = error("why")

    def callback(argument):
        variable.set(1)
        raise argument

    with pytest.raises(error) as caught:
        leaf.enter(context, callback, raised)
    assert caught.value is raised
    assert variable.get() == 0
    assert leaf.enter(context, lambda _: None, None) is True


# ---- both


def declared_in_c(text):
    """Return what every cpdef function of the C leaf in *text* is called, and what its arguments
    are called."""
    found = {}
    for name, arguments in re.findall(r"^cpdef [\w ]*?(\w+)\(([^)]*)\)", text, re.MULTILINE):
        found[name] = [
            argument.split()[-1] for argument in arguments.split(",") if argument.strip()
        ]
    return found


def declared_in_python(text):
    """Return what every public function of the twin in *text* is called, and what its arguments are
    called."""
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_the_twins_have_the_same_functions():
    """C leaf, its .pxd and the twin declare the same functions with the same arguments in the same
    order, and document them alike."""
    twin = declared_in_python(Path(inspect.getsourcefile(cprims_py)).read_text())
    assert len(twin) > 8
    assert declared_in_c(SOURCE.read_text()) == twin
    assert declared_in_c(SOURCE.with_suffix(".pxd").read_text()) == twin
    described = r'^cpdef [\w ]*?(\w+)\([^)]*\)[^\n]*:\n    """(.*?)"""'
    documented = dict(re.findall(described, SOURCE.read_text(), re.MULTILINE | re.DOTALL))
    for name in twin:
        ours = inspect.cleandoc(documented[name])
        theirs = inspect.getdoc(getattr(cprims_py, name))
        assert ours.partition(":")[0].rstrip(".") == theirs.partition(":")[0].rstrip("."), name


@pytest.mark.skipif(cprims is None, reason="the pure build has no C leaf")
def test_the_extension_has_the_same_functions():
    """The compiled leaf has every function of the twin, and no other."""
    public = {
        name for name, each in vars(cprims).items() if callable(each) and not name.startswith("_")
    }
    assert public == set(declared_in_python(Path(inspect.getsourcefile(cprims_py)).read_text()))


@pytest.mark.parametrize("leaf", LEAVES)
@given(
    number=st.one_of(
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([sys.maxsize, sys.maxsize + 1, -sys.maxsize - 2]),
    )
)
@examples(100)
def test_clipped(leaf, number):
    """Of any integer the nearest one that a size can be; of anything else, TypeError."""
    assert leaf.clipped(number) == max(-sys.maxsize - 1, min(number, sys.maxsize))
    with pytest.raises(TypeError):
        leaf.clipped(str(number))
