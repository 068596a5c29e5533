"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence


def names_of(
    known: Collection[str], groups: Mapping[str, Sequence[str]]
) -> Callable[[str], list[str]]:
    """Parse names with commas between them: of *known*, or of *groups* of those."""

    def parse(text: str) -> list[str]:
        chosen: list[str] = []
        for word in filter(None, (part.strip() for part in text.split(","))):
            if word not in known and word not in groups:
                choices = ", ".join([*groups, *known])
                raise argparse.ArgumentTypeError(f"{word!r} is none of: {choices}")
            chosen += groups.get(word, (word,))
        if not chosen:
            raise argparse.ArgumentTypeError("names nothing")
        return list(dict.fromkeys(chosen))

    return parse


def positive(kind: type[int | float]) -> Callable[[str], float]:
    """Parse a number of *kind* above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return parse
