"""The states of a native connection: the drawings in the documents are the table, and what cannot
follow is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from headrace._transport import backend

pytestmark = pytest.mark.skipif(
    backend.native is None, reason="the pure-Python build has the portable way only"
)
if backend.native is not None:
    from headrace._transport.native import states

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "src" / "headrace" / "_transport" / "native"
DOCUMENTS = ROOT / "docs" / "internals"
AXES = ("receiving", "sending", "life", "handshake")


def drawn(text: str) -> dict[str, set[tuple[str, str]]]:
    """Return what the drawings in *text* let follow what, by axis: a line has states with an arrow
    between each two, and several states before one arrow have it each."""
    found: dict[str, set[tuple[str, str]]] = {}
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        axis = ""
        for line in block.splitlines():
            if line in AXES:
                axis = line
                found[axis] = set()
            elif axis and line:
                chain = [each.strip().split(", ") for each in re.split(r"--.*?-->", line)]
                for before, after in itertools.pairwise(chain):
                    found[axis] |= {(old, new) for old in before for new in after}
    return found


def tabled() -> dict[str, set[tuple[str, str]]]:
    """Return the same of the table."""
    return {
        axis: {(old, new) for old, follows in axis_table.items() for new in follows}
        for axis, axis_table in states.TABLE.items()
    }


def test_the_drawings_are_the_table():
    """Each transition of the table is drawn, and no other."""
    pages = [(DOCUMENTS / page).read_text() for page in ("native.md", "tls.md")]
    assert drawn("\n".join(pages)) == tabled()


def test_a_wrong_drawing_is_seen():
    """A chain gives one transition for each arrow, a list one for each state in it."""
    text = "```\nlife\n a --x--> b --y (z)--> c\n c, d --w--> e\n```\n```\nlonely --x--> y\n```\n"
    assert drawn(text) == {"life": {("a", "b"), ("b", "c"), ("c", "e"), ("d", "e")}}


@pytest.mark.parametrize("axis", AXES)
def test_the_table_is_in_the_order_of_the_enum(axis):
    """The numbers that the compiled code uses mean what the table says."""
    source = (NATIVE / "states.pxd").read_text()
    enum = re.search(rf"^cdef enum {axis.title()}:\n((?:    .*\n)+)", source, re.MULTILINE)
    assert enum is not None
    names = re.findall(r"^    (\w+)$", enum[1], re.MULTILINE)
    assert [name.lower() for name in names] == list(states.TABLE[axis])


@pytest.mark.parametrize("axis", AXES)
def test_what_is_not_in_the_table_is_refused(axis):
    """Each pair of states is tried, a state with itself too; where nothing is enforced all may
    follow."""
    names = list(states.TABLE[axis])
    for old, before in enumerate(names):
        for new, after in enumerate(names):
            if after in states.TABLE[axis][before]:
                states.check(axis, old, new)
                continue
            with pytest.raises(AssertionError, match=f"{axis}: {before} cannot become {after}"):
                states.check(axis, old, new)
            states.enforce(False)
            try:
                states.check(axis, old, new)
            finally:
                states.enforce(True)


def test_a_state_is_set_by_its_function_only():
    """No other line of the native way assigns one."""
    setters = [
        f"{axis}: {path.name}"
        for path in NATIVE.glob("*.pyx")
        for axis in re.findall(rf"\.({'|'.join(AXES)}) = ", path.read_text())
    ]
    assert sorted(setters) == sorted(f"{axis}: connected_socket.pyx" for axis in AXES)
