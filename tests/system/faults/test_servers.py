"""A server whose accept4() fails, in the shim and in earnest: it goes on, without spinning, and
turns nobody away."""

from __future__ import annotations

import sys

import pytest

from .conftest import HERE, run_program

SCENES = "scenes_servers.py"
OUT_OF_RESOURCE = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]


@pytest.mark.parametrize("lone", ["lone", "beside"])
@pytest.mark.parametrize("error", OUT_OF_RESOURCE)
def test_accepting_fails(scene, error, lone):
    """Reported in asyncio's words, tried again after a pause that costs nothing, with and without a
    connection in the same set."""
    scene("accepting_fails", error, lone)


@pytest.mark.parametrize("error", ["ECONNABORTED", "EINTR", "EPROTO", "EAGAIN"])
def test_accepting_stumbles(scene, error):
    """A hundred failures in a row that are about one connection, or about none, cost no pause, and
    nobody is told."""
    scene("accepting_stumbles", error)


@pytest.mark.parametrize("wait_s", [0, 0.5], ids=["at once", "later"])
def test_closed_while_accepting_is_paused(scene, wait_s):
    """A server that is closed in the pause does not come back, and keeps nothing."""
    scene("closed_while_accepting_is_paused", wait_s)


@pytest.mark.parametrize(
    "plan", ["epoll_create1=EMFILE", "epoll_ctl_add=ENOSPC", "epoll_ctl_add=ENOMEM"]
)
def test_accepting_resumes_late(scene, plan):
    """Where there is no descriptor or memory for the set at the end of the pause, there is another
    pause, and another."""
    scene("accepting_resumes_late", plan)


def test_one_server_pauses(scene):
    """A server that waits for descriptors does not keep another one, or a connection, of the same
    loop waiting."""
    scene("one_server_pauses")


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_an_accepted_connection_cannot_be_watched(scene, error):
    """It is closed and reported; the next one is served, and the server can be closed and waited
    for."""
    scene("an_accepted_connection_cannot_be_watched", error)


def test_descriptors_run_out(scene):
    """Nothing is injected: more connections than descriptors, and all of them are served in the
    end, without spinning."""
    scene("descriptors_run_out", "native")


def test_descriptors_run_out_on_asyncio():
    """asyncio's server does the same and reports it in the same words."""
    pytest.importorskip(
        "headrace._transport.native.listener", reason="the scene needs the native way"
    )
    run_program(
        sys.executable, "-W", "error", HERE / SCENES, "asyncio", "descriptors_run_out", "stock"
    )
