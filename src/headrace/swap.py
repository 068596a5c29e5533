"""install() and uninstall(): asyncio's stream names mean headrace's, for programs that nobody wants
to change.

The names are replaced in the two modules where they are looked up at run time: ``asyncio`` and
``asyncio.streams``. asyncio's subprocess streams look theirs up in the second, and so do the
functions of asyncio that somebody imported by name earlier (``from asyncio import
open_connection``): they go on making streams, which are then headrace's. What stays asyncio's is a
*class* that was imported by name before install(). Most such names are there for annotations and
for isinstance(), where they are right, so that is said by an ImportWarning, which Python shows
where it is asked to (``-X dev``, ``-W default``, pytest).
"""

from __future__ import annotations

import asyncio
import asyncio.streams
import sys
import threading
import types
import warnings

from headrace._streams import connect, reader, reader_protocol, start_server, writer

__all__ = ("install", "uninstall")

_OURS: dict[str, object] = {
    name: getattr(module, name)
    for module, names in (
        (reader, ("StreamReader",)),
        (writer, ("StreamWriter",)),
        (reader_protocol, ("StreamReaderProtocol", "FlowControlMixin")),
        (connect, ("open_connection", "open_unix_connection")),
        (start_server, ("start_server", "start_unix_server")),
    )
    for name in names
}

_CLASSES = tuple(name for name, ours in _OURS.items() if isinstance(ours, type))

_lock = threading.Lock()
_count = 0
_replaced: list[tuple[types.ModuleType, str, object]] = []


class _Installed:
    """What install() returns: leaving its ``with`` block takes back that one install()."""

    def __enter__(self) -> None:
        """Nothing is left to do: install() has done it."""

    def __exit__(self, *exception: object) -> None:
        uninstall()


def install() -> _Installed:
    """Make asyncio's stream names mean headrace's, in this process and for all threads.

    Returns: a context manager that calls uninstall() at its end; it need not be used.

    Calls are counted: only the first changes anything, and the names are asyncio's again after as
    many uninstall(). Streams that exist already stay what they are. Call it before the program
    imports what uses streams: a class that was imported by name (``from asyncio import
    StreamReader``) before stays asyncio's there, of which an ImportWarning tells where those are
    shown. Child processes start without it.
    """
    global _count
    if not installed() and (early := _imported_early()):
        named = ", ".join(early[:5]) + (" and others" if len(early) > 5 else "")
        warnings.warn(
            f"imported by name before headrace.install(), and so still asyncio's: {named}",
            ImportWarning,
            stacklevel=2,
        )
    with _lock:
        _count += 1
        if _count == 1:
            for module in (asyncio, asyncio.streams):
                for name, ours in _OURS.items():
                    if hasattr(
                        module, name
                    ):  # where there are no Unix sockets asyncio lacks the names
                        _replaced.append((module, name, getattr(module, name)))
                        setattr(module, name, ours)
    return _Installed()


def _imported_early() -> list[str]:
    """Return "module.name" of each of asyncio's stream classes that a module has under its own
    name."""
    found = []
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in ("asyncio", "headrace"):
            continue
        try:
            # Not getattr(): a module that is loaded when it is first used would be loaded now.
            attributes = object.__getattribute__(module, "__dict__")
        except AttributeError:  # a None, or an object with slots
            continue
        found += [
            f"{module_name}.{name}"
            for name in _CLASSES
            if attributes.get(name) is getattr(asyncio.streams, name)
        ]
    return found


def uninstall() -> None:
    """Take back one install(); the last one puts back exactly what was there before the first.

    Raises: RuntimeError where no install() is left to take back.
    """
    global _count
    with _lock:
        if _count == 0:
            raise RuntimeError("headrace.uninstall() without headrace.install()")
        _count -= 1
        if _count == 0:
            while _replaced:
                setattr(*_replaced.pop())


def installed() -> bool:
    """Return whether asyncio's names are headrace's now."""
    return _count > 0
