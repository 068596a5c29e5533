"""docs/scale.md keeps what it says: its programs run, and print what is written beside them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
TIMEOUT_S = 20


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str) -> None:
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
    assert done.stdout.splitlines() == promised
