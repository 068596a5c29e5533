"""The states of connections and workers: the tables, the drawings of them, and what refuses a wrong
move."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace._server import session
from headrace._server.session import Phase, Session
from headrace._server.workers import handle
from headrace._server.workers.handle import Process, Role, Said, WorkerHandle

PAGE = (Path(__file__).parents[2] / "docs" / "internals" / "server.md").read_text()
DRAWINGS = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)
FIRST_OF = {
    Phase: Phase.ACCEPTED,
    Said: Said.NOTHING,
    Process: Process.RUNNING,
    Role: Role.CANDIDATE,
}


@pytest.mark.parametrize(
    ("moves", "drawing"), [(session.MOVES, DRAWINGS[0]), (handle.MOVES, DRAWINGS[1])]
)
def test_a_drawing_is_its_table(moves, drawing):
    """docs/internals/server.md draws every move that there is, and no other."""
    drawn = re.findall(r"^    (\w+) --> (\w+)", drawing, re.MULTILINE)
    table = [(before.name, after.name) for before, afters in moves.items() for after in afters]
    assert sorted((a.upper(), b.upper()) for a, b in drawn) == sorted(table)


@pytest.mark.parametrize("states", FIRST_OF)
def test_every_state_is_reached(states):
    """From the first state of each axis every other can be reached; one at least is the last."""
    moves = session.MOVES | handle.MOVES
    reached, new = set(), {FIRST_OF[states]}
    while new:
        reached |= new
        new = set().union(*(moves[each] for each in new)) - reached
    assert reached == set(states)
    assert [each for each in states if not moves[each]]


@pytest.mark.parametrize("before", Phase)
def test_what_cannot_follow_is_refused(before):
    """Session.move() goes where the table says, and nowhere else."""
    for after in Phase:
        each = Session(None, 1, None, None)
        each.phase = before
        if after in session.MOVES[before]:
            each.move(after)
            assert each.phase is after
        else:
            with pytest.raises(AssertionError, match="cannot be followed"):
                each.move(after)
            assert each.phase is before


@pytest.mark.parametrize("before", handle.MOVES)
def test_what_no_worker_does_is_refused(before):
    """WorkerHandle.move() refuses what its table does not have, and changes nothing then."""
    axis = type(before).__name__.lower()
    worker = WorkerHandle.__new__(WorkerHandle)
    setattr(worker, axis, before)
    for after in set(type(before)) - handle.MOVES[before]:
        with pytest.raises(AssertionError, match="cannot be followed"):
            worker.move(after)
        assert getattr(worker, axis) is before
