"""ReadBuffer beside plain bytes: whatever is appended, searched, taken, held and changed in place,
in any order, the two are equal."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.properties import SHRINKING_S, examples

from headrace._core.buffer import ReadBuffer

pytestmark = pytest.mark.timeout(SHRINKING_S)

# Few letters, so that separators are often there, and often in two pieces; and now and then enough
# bytes to move.
pieces = st.one_of(
    st.lists(st.sampled_from(b"ab\n"), max_size=12).map(bytes),
    st.integers(1, 9000).map(lambda size: b"ab" * size),
)
separator = st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=4).map(bytes)
several = st.lists(separator, min_size=1, max_size=4).map(
    lambda found: tuple(sorted(found, key=len))
)


class BufferMachine(RuleBasedStateMachine):
    """ReadBuffer beside a plain bytes object; ``held`` is the exposed bytearray while this program
    holds it."""

    def __init__(self):
        super().__init__()
        self.buffer = ReadBuffer()
        self.model = b""
        self.held = None

    @rule(data=pieces)
    def append(self, data):
        self.buffer.append(data)
        self.model += data

    @rule(data=pieces, more=pieces)
    def append_front(self, data, more):
        scratch = bytearray(data + more)
        self.buffer.append_front(scratch, len(data))
        scratch[:] = bytes(len(scratch))
        self.model += data

    @rule(data=st.data())
    def take(self, data):
        size = data.draw(st.integers(0, len(self.model)))
        taken = self.buffer.take(size)
        assert type(taken) is bytes
        assert taken == self.model[:size]
        self.model = self.model[size:]

    @rule()
    def take_all(self):
        assert self.buffer.take(len(self.model)) == self.model
        self.model = b""

    @rule(data=st.data())
    def skip(self, data):
        size = data.draw(st.integers(0, len(self.model)))
        self.buffer.skip(size)
        self.model = self.model[size:]

    @rule(separator=separator)
    def find_one(self, separator):
        assert self.buffer.find_one(separator) == self.model.find(separator)

    @rule()
    def take_line(self):
        before = self.buffer.find_one(b"\n")
        assert before == self.model.find(b"\n")
        if before >= 0:
            assert self.buffer.take(before + 1) == self.model[: before + 1]
            self.model = self.model[before + 1 :]

    @rule(separators=several)
    def find_first(self, separators):
        assert self.buffer.find_first(separators) == first_of(self.model, separators)

    @rule(take=st.booleans())
    def find_a_constant_tuple(self, take):
        found = self.buffer.find_first((b"\n", b"ba", b"bbb"))
        assert found == first_of(self.model, (b"\n", b"ba", b"bbb"))
        if take and found[1] > 0:
            assert self.buffer.take(found[1]) == self.model[: found[1]]
            self.model = self.model[found[1] :]

    @rule(more=st.one_of(st.integers(0, 100), st.integers(0, 100_000)))
    def reserve(self, more):
        self.buffer.reserve(len(self.model) + more)

    @rule()
    def spare(self):
        self.buffer.spare()

    @rule()
    def expose(self):
        exposed = self.buffer.expose()
        assert self.held is None or self.held is exposed
        self.held = exposed
        assert exposed == self.model

    @rule()
    def expose_for_a_moment(self):
        assert self.buffer.expose() == self.model

    @precondition(lambda self: self.held is not None)
    @rule(data=st.data(), by=pieces)
    def change_in_place(self, data, by):
        start = data.draw(st.integers(0, len(self.model)))
        end = data.draw(st.integers(start, len(self.model)))
        self.held[start:end] = by
        self.model = self.model[:start] + by + self.model[end:]

    @precondition(lambda self: self.held is not None)
    @rule()
    def let_go(self):
        self.held = None

    @rule(data=pieces, keep=st.booleans())
    def replace(self, data, keep):
        old, self.held = self.held, bytearray(data)
        before = None if old is None else bytes(old)
        self.buffer.replace(self.held)
        self.model = data
        if old is not None:
            old += b"no longer ours"
            assert old == before + b"no longer ours"
        if not keep:
            self.held = None

    @invariant()
    def as_long(self):
        assert self.buffer.length() == len(self.model)

    @invariant()
    def what_is_held_is_the_buffer(self):
        assert self.held is None or self.held == self.model

    def teardown(self):
        self.held = None
        assert self.buffer.take(len(self.model)) == self.model
        assert self.buffer.length() == 0


def first_of(data, separators):
    """Return where the match of *separators* in *data* that ends first begins and ends; of several
    the shortest; else (-1, -1)."""
    ends = [(data.find(each) + len(each), len(each)) for each in separators if each in data]
    end, size = min(ends, default=(-1, 0))
    return end - size, end


TestAnyOrder = BufferMachine.TestCase
TestAnyOrder.settings = examples(100, steps=40)
