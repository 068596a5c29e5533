"""The words of the command line: what to serve, and where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headrace.cli.serve.handlers import Handler, echo, send_file, sink

DEFAULT_PLACE = "127.0.0.1:8888"


def what_and_where(words: Sequence[str]) -> tuple[str, Handler, list[dict[str, Any]]]:
    """Return what *words* ask for: its name, its handler, and arguments of serve() for each place.

    Raises: ValueError where they ask for nothing that can be; OSError for a bad file.
    """
    what, *rest = words
    handlers: dict[str, Handler] = {"echo": echo, "sink": sink}
    if what in handlers:
        handler = handlers[what]
    elif what == "file":
        if not rest:
            raise ValueError("file: which one? headrace serve file PATH [[HOST]:PORT…]")
        path = Path(rest.pop(0))
        with path.open("rb"):  # says what is wrong with it, now and not to every client
            pass
        handler = partial(send_file, path)
    elif ":" in what:
        what, handler, rest = "echo", echo, list(words)
    else:
        raise ValueError(
            f"{what!r} is nothing that can be served: echo, sink or file PATH, then where: "
            "[HOST]:PORT or unix:PATH"
        )
    return what, handler, [_place(word) for word in rest or [DEFAULT_PLACE]]


def _place(word: str) -> dict[str, Any]:
    """Return the arguments of serve() for the place that *word* names."""
    if word.startswith("unix:"):
        return {"path": word.removeprefix("unix:")}
    host, colon, port = word.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{word!r} is no place to listen at: [HOST]:PORT or unix:PATH")
    return {"host": host.strip("[]") or None, "port": int(port)}


def place_words(name: Any) -> str:
    """Return where a socket listens, from its *name*, as a user would type it."""
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
