"""Bounds and reasons are said once, in config.py; what repeats them for people is compared."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import headrace
from headrace._server.config import (
    EndReason,
    FailCause,
    Limits,
    RefuseReason,
    description,
    is_whole,
)

GUIDE = (Path(__file__).parents[2] / "docs" / "production.md").read_text()
BOUNDS = fields(Limits)


def words(text):
    """Return *text* without its line ends and indents."""
    return " ".join(text.split())


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_serve_takes_every_bound(bound):
    """The signature has each with its default and its type; the docstring and the guide describe it
    in the same words."""
    parameter = inspect.signature(headrace.serve).parameters[bound.name]
    assert (parameter.default, parameter.annotation) == (bound.default, bound.type)
    assert f"{bound.name}: {words(description(bound))}" in words(headrace.serve.__doc__)
    assert f"- `{bound.name}`: {words(description(bound))}" in words(GUIDE)


def test_the_guide_has_no_other_bound():
    """What was renamed or went is not described any more."""
    section = GUIDE.partition("## Every bound\n")[2].partition("\n## ")[0]
    assert re.findall(r"^- `(\w+)`", section, re.MULTILINE) == [bound.name for bound in BOUNDS]


@pytest.mark.parametrize(
    ("reasons", "where"), [(RefuseReason, "refused"), (EndReason, "ended"), (FailCause, "failed")]
)
def test_the_guide_has_every_reason(reasons, where):
    """Each list in the guide is the enumeration, in its order."""
    section = GUIDE.partition(f"(`Statistics.{where}`")[2].partition("\n\nWhy ")[0]
    assert re.findall(r"^- `([\w ]+)`", section, re.MULTILINE) == [each.value for each in reasons]


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_values_that_are_no_bound(bound):
    """Each bound refuses what is not above 0; one that counts refuses what is not whole."""
    wrong = [0, -1, "1", float("inf"), float("nan"), *([0.5] if is_whole(bound) else [])]
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{bound.name} must be a "):
            Limits(**{bound.name: value})
    assert getattr(Limits(**{bound.name: 1}), bound.name) == 1
