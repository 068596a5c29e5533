"""The tables that say which test pins which fact: every test that they name exists, and every row
names one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MAPS = [name for name in ("hazards.md", "consumers.md", "defects.md") if (TESTS / name).exists()]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table in *text*, which is Markdown; heads and rules
    are left out."""
    found: list[list[str]] = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if (
            not line.startswith("|")
            or set(line) <= set("|-: ")
            or (following.startswith("|") and set(following) <= set("|-: "))
        ):
            continue
        found.append(
            [cell.strip() for cell in line.strip().strip("|").replace(r"\|", "\0").split("|")]
        )
    return found


def named_tests(row: list[str]) -> list[str]:
    """Return the tests that a row names: its last cell, separated by commas."""
    return [name.strip().strip("`") for name in row[-1].split(",") if name.strip().strip("`")]


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


@pytest.mark.parametrize("name", MAPS)
def test_every_named_test_exists(name):
    """Each row names at least one test, or says that it takes a TLS of our own, and each test that
    is named exists."""
    existing = existing_tests()
    table = rows((TESTS / name).read_text())
    assert len(table) > 3
    missing = [
        (row[0], test)
        for row in table
        if not row[-2].startswith("TLS:")
        for test in named_tests(row) or ["no test"]
        if test not in existing
    ]
    assert missing == []


def test_hazards_say_how_bad_they_are():
    """Each hazard has a number of its own, words, a severity from A to C and tests."""
    table = rows((TESTS / "hazards.md").read_text())
    assert len({row[0] for row in table}) == len(table)
    for row in table:
        number, what, severity, _ = row
        assert number.isdigit()
        assert what
        assert severity in ("A", "B", "C")


def test_the_checker_sees_what_is_wrong():
    """The checker reads rows as they are written: heads and rules are none, commas separate, code
    marks do not count."""
    text = (
        "| # | what | tests |\n|---|:--|---|\n"
        "| 1 | a \\| b | `test_x.py::test_a`, test_y.py::test_b |\n| 2 | c | |\ntext"
    )
    table = rows(text)
    assert [row[0] for row in table] == ["1", "2"]
    assert named_tests(table[0]) == ["test_x.py::test_a", "test_y.py::test_b"]
    assert named_tests(table[1]) == []
    assert "test_maps.py::test_the_checker_sees_what_is_wrong" in existing_tests()
    assert "test_maps.py::rows" not in existing_tests()
