"""The README keeps what it says: its programs run, its commands and files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", blocks("python"))
def test_its_programs_run(program: str) -> None:
    """Each Python block is a whole program, which ends without an error or a warning and prints
    what its comments say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", program)


def test_its_commands_are_understood() -> None:
    """Each `headrace …` line of its console blocks is a command line that the headrace command
    takes."""
    lines = [
        line
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ headrace ")
    ]
    assert len(lines) >= 3
    for line in lines:
        ours, rest = cli._split(shlex.split(line)[2:])
        options = cli._parser(ours[0]).parse_args(ours)
        assert options.command != "run" or rest or options.module


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "examples/README.md",
        "docs/production.md",
        "docs/comparison.md",
        "docs/stream.md",
    ],
)
def test_links_lead_to_files(name: str) -> None:
    """What the documents link to in this project is there."""
    text = (ROOT / name).read_text()
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert [target for target in targets if not ((ROOT / name).parent / target).exists()] == []


def test_make_targets_exist() -> None:
    """Every `make …` that the documents name is a target, and every target says what it does."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)).split())
    assert targets == phony
    named = {
        word
        for name in ("README.md", "CONTRIBUTING.md")
        for word in re.findall(r"(?:`|\$ )make ([a-z-]+)", (ROOT / name).read_text())
    }
    assert named <= targets
