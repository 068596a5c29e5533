"""The soak tests, for a few seconds each: nothing is lost, hangs or stays behind. ``python -m
tests.system.soak`` runs them for longer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 50
LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]


def soak(*arguments: object) -> None:
    """Run tests.system.soak in a process of its own, on *this* headrace and its best way to the
    socket; it has to end well."""
    environment = {**os.environ, "PYTHONPATH": str(Path(headrace.__file__).parent.parent)}
    command = [sys.executable, "-m", "tests.system.soak", *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"


@pytest.mark.parametrize("loop", LOOPS)
def test_chaos(loop: str) -> None:
    """Hostile peers, random cancellations and servers that restart: every byte is in its place, and
    everything is given back."""
    soak(
        "chaos", "--seconds", 8, "--loop", loop, "--seed", 1, "--connections", 30, "--patience", 20
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_many(loop: str) -> None:
    """Hundreds of connections echo at once while others come and go: every byte is in its place,
    and everything is given back."""
    soak("many", "--connections", 500, "--echoes", 20, "--churn", "--loop", loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_mangled(loop: str) -> None:
    """TLS records that are damaged on their way: bytes from before the damage arrive, then an
    error, and nothing hangs."""
    soak("mangled", "--seconds", 5, "--loop", loop, "--seed", 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_handshakes(loop: str) -> None:
    """TLS handshakes of both versions, resumed, mutual, upgraded, refused, given up and cut off
    leave nothing behind."""
    soak("handshakes", "--handshakes", 1500, "--loop", loop, "--seed", 1)
