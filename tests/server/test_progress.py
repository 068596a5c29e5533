"""The monitor's core: figures and times in, a verdict out; no socket, no loop, no clock."""

from __future__ import annotations

import pytest

from headrace._server.config import EndReason, Limits
from headrace._server.progress import RATE_SECONDS, Progress
from headrace._server.session import Figures

NONE = dict.fromkeys(("handshake_timeout", "first_byte_timeout", "stall_timeout"))


def verdicts(limits, seen, began=0.0):
    """Return what a Progress says of *seen*: (time, figures, unacknowledged)."""
    progress = Progress(began)
    found = [progress.look(figures, queued, now, limits) for now, figures, queued in seen]
    return [each and each.reason for each in found]


def test_first_byte():
    """Silence of both sides is ended at its time, not before; one byte of either is enough."""
    limits = Limits(**NONE | {"first_byte_timeout": 5})
    waiting = Figures(waits=True)
    silent = [(now, waiting, 0) for now in (104.9, 105, 106)]
    assert verdicts(limits, silent, 100) == [None, EndReason.FIRST_BYTE, EndReason.FIRST_BYTE]
    for spoken in (Figures(received=1, waits=True), Figures(written=1, waits=True)):
        assert verdicts(limits, [(200, spoken, 0), (900, spoken, 0)], 100) == [None, None]


def test_idle():
    """Only a handler that waits while nothing moves is idle."""
    limits = Limits(**NONE, idle_timeout=5)
    some = Figures(received=9, waits=True)
    assert verdicts(limits, [(1, some, 0), (5.9, some, 0), (6, some, 0)]) == [
        None,
        None,
        EndReason.IDLE,
    ]
    busy = some._replace(waits=False)
    assert verdicts(limits, [(1, busy, 0), (50, busy, 0), (54, some, 0)]) == [None] * 3
    sending = Figures(9, 0, True, 50, 50)
    assert verdicts(limits, [(1, sending, 0), (50, sending, 0)]) == [None, None]
    more = some._replace(received=10)
    assert verdicts(limits, [(1, some, 0), (5, more, 0), (9.9, more, 0)]) == [None] * 3


def test_stalled():
    """A peer that takes nothing is ended; what the system alone took does not count as taken."""
    limits = Limits(**NONE | {"stall_timeout": 5})
    stuck = Figures(written=100, unsent=60)
    assert verdicts(limits, [(1, stuck, 40), (5.9, stuck, 40), (6, stuck, 40)]) == [
        None,
        None,
        EndReason.STALLED,
    ]
    # The system has all of it by now, and the peer none.
    taken = stuck._replace(unsent=20)
    assert verdicts(limits, [(1, stuck, 40), (6, taken, 80)])[1] is EndReason.STALLED
    # The peer took ten bytes.
    assert verdicts(limits, [(1, stuck, 40), (6, stuck, 30), (10, stuck, 30)]) == [None] * 3
    # Nothing is unsent any more, then something again.
    empty = Figures(written=100)
    assert verdicts(limits, [(1, stuck, 0), (5, empty, 0), (6, stuck, 0), (10, stuck, 0)]) == (
        [None] * 4
    )


@pytest.mark.parametrize(("bytes_", "ended"), [(49, True), (50, False)])
def test_rate_of_a_message(bytes_, ended):
    """A message that comes below the rate over the whole time is ended; at the rate it is not."""
    limits = Limits(**NONE, minimum_rate=5)
    begun = Figures(received=10, unread=10, waits=True)
    later = Figures(received=10 + bytes_, unread=10 + bytes_, waits=True)
    seen = [(1, begun, 0), (1 + RATE_SECONDS - 0.1, begun, 0), (1 + RATE_SECONDS, later, 0)]
    assert verdicts(limits, seen) == [None, None, EndReason.RATE if ended else None]


def test_rate_begins_with_each_message():
    """Another message has the whole time again; so has one after the handler worked."""
    limits = Limits(**NONE, minimum_rate=5)
    first = Figures(received=10, unread=10, waits=True)
    second = Figures(received=20, unread=10, waits=True)
    busy = Figures(received=10, unread=10, waits=False)
    late = 1 + RATE_SECONDS
    assert verdicts(limits, [(1, first, 0), (late, second, 0), (late + 5, second, 0)]) == [None] * 3
    assert verdicts(limits, [(1, first, 0), (late, busy, 0), (late + 5, first, 0)]) == [None] * 3


@pytest.mark.parametrize(("gone", "ended"), [(49, True), (50, False)])
def test_rate_of_what_is_sent(gone, ended):
    """What is written has to leave at the rate, too."""
    limits = Limits(**NONE, minimum_rate=5)
    before = Figures(written=1000, unsent=900)
    after = before._replace(unsent=900 - gone)
    assert verdicts(limits, [(1, before, 0), (1 + RATE_SECONDS, after, 0)]) == [
        None,
        EndReason.RATE if ended else None,
    ]


def test_no_bound_no_end():
    """Without bounds nothing is ever too late."""
    stuck = Figures(received=5, unread=5, waits=True, written=9, unsent=9)
    assert verdicts(Limits(**NONE), [(0, stuck, 0), (1e9, stuck, 0)]) == [None, None]
