"""ARCHITECTURE.md and the pages of docs/: its tree is the true one, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "tests/*.md", "benchmarks/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)


def drawn(text: str) -> set[str]:
    """Return the paths below src/headrace that the tree in *text* names, but those of cli/."""
    block = next(each for each in text.split("```\n") if each.startswith("src/headrace/"))
    found = set()
    folders: list[tuple[int, str]] = []
    for line in block.splitlines()[1:]:
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        if folder := re.match(r"(\w+)/\s", line.strip()):
            folders.append((indent, folder[1]))
        if not any(name == "cli" for _, name in folders):
            where = "/".join(name for _, name in folders)
            found |= {
                f"{where}/{name}".lstrip("/") for name in re.findall(r"\w+\.p(?:y|yx|xd)\b", line)
            }
    return found


def test_the_tree_is_the_one_that_is_there():
    """Every module but those of the command is drawn where it is, and nothing else is drawn."""
    sources = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.p*")
        if path.suffix in (".py", ".pyx", ".pxd")
    }
    there = {
        name
        for name in sources
        if not name.startswith("cli/")
        and not name.endswith("/__init__.py")
        and not (
            name.endswith(".pxd")
            and {name.replace(".pxd", ".py"), name.replace(".pxd", ".pyx")} & sources
        )
    }
    assert drawn(TEXT) == there - {"__main__.py"}


def test_it_is_short():
    """A newcomer reads it in one go: the details are in docs/internals."""
    assert len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file that is there."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_no_section_is_empty(page):
    """Every heading of a page has something below it: half a page was lost once, unseen."""
    text = re.sub(r"```.*?```", "code", (ROOT / page).read_text(), flags=re.DOTALL)
    headings = re.findall(r"^(#+) .*\n+(?=(#+) |\Z)", text, re.MULTILINE)
    assert [one for one, next_ in headings if len(next_) <= len(one)] == []
