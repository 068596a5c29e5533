"""The phases of a connection: the table, the drawing of it, and what refuses a wrong move."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace._server.session import MOVES, Phase, Session

DRAWING = Path(__file__).parents[2] / "docs" / "internals" / "server.md"


def test_the_drawing_is_the_table():
    """docs/internals/server.md draws every move that there is, and no other."""
    drawn = re.findall(r"^    (\w+) --> (\w+)", DRAWING.read_text(), re.MULTILINE)
    moves = {
        (before.name.lower(), after.name.lower())
        for before, afters in MOVES.items()
        for after in afters
    }
    assert set(drawn) == moves
    assert len(drawn) == len(moves)


def test_every_phase_is_reached_and_left():
    """From the first phase every other can be reached, and the last one."""
    assert set(MOVES) == set(Phase)
    reached, new = set(), {Phase.ACCEPTED}
    while new:
        reached |= new
        new = set().union(*(MOVES[each] for each in new)) - reached
    assert reached == set(Phase)
    assert [each for each in Phase if not MOVES[each]] == [Phase.OVER]


@pytest.mark.parametrize("before", Phase)
def test_what_cannot_follow_is_refused(before):
    """move() goes where the table says, and nowhere else."""
    for after in Phase:
        session = Session(None, 1, None, None, None)
        session.phase = before
        if after in MOVES[before]:
            session.move(after)
            assert session.phase is after
        else:
            with pytest.raises(AssertionError, match="cannot be followed"):
                session.move(after)
            assert session.phase is before
