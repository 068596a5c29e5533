"""No line of the project has more than a hundred columns. The linter measures Python only."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATTERNS = (
    "*.md",
    "*.py",
    "*.toml",
    "Makefile",
    ".ci/*",
    ".github/**/*.yml",
    "benchmarks/*.[chp]*",
    "benchmarks/*.md",
    "docs/**/*.md",
    "examples/*.*",
    "src/**/*.p*",
    "tests/**/*.[cp]*",
    "tests/**/*.md",
)
COLUMNS = 100


def too_long(text: str) -> list[int]:
    """Return the numbers of the lines of *text* that are too long. As for the linter, a comment for
    the type checker at the end does not count."""
    return [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if len(re.sub(r"  # type: ignore\[[\w, -]+\]$", "", line)) > COLUMNS
    ]


def test_no_line_is_too_long():
    """Code, Cython, C, scripts, configuration and prose, tables too, fit in a hundred columns."""
    files = {
        path
        for pattern in PATTERNS
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(files) > 300
    long = {path.relative_to(ROOT).as_posix(): too_long(path.read_text()) for path in files}
    assert {name: lines for name, lines in long.items() if lines} == {}


def test_what_is_too_long():
    """A hundred characters fit, also if they take more bytes; a type checker's comment is extra."""
    fits = "…" * COLUMNS
    ignored = f"{fits}  # type: ignore[misc, arg-type]"
    assert too_long(f"{fits}\n{ignored}\n{fits}.\n{ignored}.\n") == [3, 4]
