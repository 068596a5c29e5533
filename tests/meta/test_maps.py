"""The lists that say which test pins which fact: each test that they name exists, and each entry
names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# How an entry of each list begins.
SHAPES = {
    "hazards.md": re.compile(r"\*\*(\d+), [ABC]\*\*: \S.*"),
    "consumers.md": re.compile(r"\*\*(\S.*)\*\* \([^;]+\)"),
    "defects.md": re.compile(r"\*\*(\S.*)\*\* \([^;]+; .+\)"),
}


def entries(text: str) -> list[tuple[str, list[str]]]:
    """Return the entries of *text*, which is Markdown: what each says, and the tests that it names.

    An entry is a list item. The items below it name a file, then its tests:
    - what the entry says
      - `test_file.py`: `test_one`, `test_two`
    """
    found: list[tuple[str, list[str]]] = []
    for item in re.findall(r"^- (.*\n(?:  .*\n)*)", text, re.MULTILINE):
        what, *files = re.split(r"\n +- ", item)
        tests = []
        for each in files:
            file, _, names = each.partition(":")
            tests += [f"{file.strip('`')}::{name.strip().strip('`')}" for name in names.split(",")]
        found.append((" ".join(what.split()), tests))
    return found


def existing_tests() -> set[str]:
    """Return file::function, or file::Class::method, of every test. What is in a package goes by
    its name too: faults/test_tls.py."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        file = (
            f"{path.parent.name}/{path.name}"
            if (path.parent / "__init__.py").exists()
            else path.name
        )
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test"
            ):
                found.add(f"{file}::{node.name}")
            elif isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(
                        each, ast.FunctionDef | ast.AsyncFunctionDef
                    ) and each.name.startswith("test"):
                        found.add(f"{file}::{node.name}::{each.name}")
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_every_named_test_exists(name):
    """Each entry names at least one test, and each test that is named exists."""
    existing = existing_tests()
    listed = entries((TESTS / name).read_text())
    assert len(listed) > 3
    missing = [
        (what, test)
        for what, tests in listed
        for test in tests or ["no test"]
        if test not in existing
    ]
    assert missing == []


@pytest.mark.parametrize("name", SHAPES)
def test_every_entry_is_complete(name):
    """Each hazard has a number of its own, a severity from A to C, and words. Each use of released
    programs says whose it is. Each defect has its report, and where it is fixed."""
    listed = [what for what, _ in entries((TESTS / name).read_text())]
    shaped = {what: SHAPES[name].fullmatch(what) for what in listed}
    assert [what for what, match in shaped.items() if match is None] == []
    assert len({match[1] for match in shaped.values() if match}) == len(listed)


def test_the_checker_sees_what_is_wrong():
    """The checker reads entries as they are written: over several lines, files with their tests
    below, tests of a class; other text is none."""
    text = (
        "# Title\n\ntext\n\n- **1, A**: a\n  b\n"
        "  - `test_x.py`: `test_a`,\n    `TestB::test_b`\n  - `test_y.py`: `test_c`\n"
        "- **2, B**: c\n\n## Section\n\n- **3, C**: d\n  - `test_z.py`:\n"
    )
    listed = entries(text)
    assert [what for what, _ in listed] == ["**1, A**: a b", "**2, B**: c", "**3, C**: d"]
    assert listed[0][1] == ["test_x.py::test_a", "test_x.py::TestB::test_b", "test_y.py::test_c"]
    assert listed[1][1] == []
    assert not existing_tests() & set(listed[2][1])
    assert SHAPES["hazards.md"].fullmatch("**1, D**: a") is None
    assert SHAPES["defects.md"].fullmatch("**a** (gh-1)") is None
    assert "test_maps.py::test_the_checker_sees_what_is_wrong" in existing_tests()
    assert "test_maps.py::entries" not in existing_tests()
