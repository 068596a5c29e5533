"""Opening a connection or a server where there is no descriptor or memory for the set: an error,
and nothing is left."""

from __future__ import annotations

import pytest

SCENES = "scenes_opening.py"
OPENINGS = [
    "open_connection",
    "open_connection, sock",
    "open_unix_connection",
    "start_server",
    "start_server, sock",
    "start_unix_server",
]
PLANS = ["epoll_create1=EMFILE", "epoll_ctl_add=ENOSPC", "add_reader=ENOSPC"]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("opening", OPENINGS)
def test_opening_fails(scene, opening, plan):
    """The system's error is raised, no descriptor and no socket file is left, the peer sees the
    end, and the next attempt succeeds."""
    scene("opening_fails", opening, plan)


def test_a_socket_that_was_not_adopted(scene):
    """Closing a socket that was passed in vain does no harm: the next owner of its number stays
    open."""
    scene("a_socket_that_was_not_adopted")


def test_a_socket_without_options(scene):
    """Where a given socket has no TCP_NODELAY its descriptor is not closed behind its back."""
    scene("a_socket_without_options")


def test_no_descriptor_for_the_set(scene):
    """Nothing is injected: the last descriptor went to the socket; open_connection() raises and
    gives it back."""
    scene("no_descriptor_for_the_set")
