"""What a server must stand in production, for a few seconds each. ``python -m
tests.system.production`` plays the scenes for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

ROOT = Path(__file__).parents[2]
LOOPS = ["asyncio", "uvloop"]

pytestmark = pytest.mark.timeout(180)


def play(*arguments: object) -> str:
    """Run tests.system.production in a process of its own, on *this* headrace; it has to end well.
    Return what it prints."""
    source = str(Path(headrace.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-m", "tests.system.production", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("loop", LOOPS)
def test_rolling_restart(loop: str) -> None:
    """Workers are replaced under load, and no request fails."""
    assert "failed requests: none" in play("rolling", "--seconds", 4, "--loop", loop)


def test_a_worker_is_killed() -> None:
    """A killed worker takes only its own connections with it, and another takes its place. (On an
    idle machine no other connection waits for more than 0.3 s; that is not checked here.)"""
    play("kill", "--seconds", 4, "--longest", 3)


def test_slow_loris() -> None:
    """Connections that send a byte now and then are ended, while an honest client is served."""
    play("loris", "--seconds", 4, "--connections", 300)


@pytest.mark.parametrize("loop", LOOPS)
def test_drain(loop: str) -> None:
    """SIGTERM under load: all that was acknowledged has arrived, and nothing is half answered."""
    play("drain", "--seconds", 5, "--loop", loop)


def test_new_certificates() -> None:
    """Certificates are renewed under load, and no connection fails."""
    play("renew", "--seconds", 4)
