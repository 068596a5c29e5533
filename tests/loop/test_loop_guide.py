"""docs/loop.md keeps what it says: its programs run, and its list is the true one."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace._loop import event_loop
from headrace._transport import backend

GUIDE = (Path(__file__).parents[2] / "docs" / "loop.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
TIMEOUT_S = 20


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program):
    """A program ends without an error or a warning and prints what its comments say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    promised = re.findall(r"print\(.*\)  # (.*)", program)
    assert promised
    if backend.native is None:
        promised = [each.replace("Sock", "_SelectorSock") for each in promised]
    assert done.stdout.splitlines() == promised


def test_every_overridden_method_is_listed():
    """The table names the methods of asyncio's loop that ours overrides, all of them."""
    listed = set(re.findall(r"^\| `(\w+)\(\)`", GUIDE, re.MULTILINE))
    assert listed == {
        name
        for name in vars(event_loop.EventLoop)
        if hasattr(asyncio.SelectorEventLoop, name) and not name.startswith("__")
    }
