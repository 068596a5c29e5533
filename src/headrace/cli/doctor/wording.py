"""The findings of ``headrace doctor`` in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace._transport.backend import platform_obstacle


def words(found: dict[str, Any]) -> str:
    """Return what *found*, which findings() returns, says to a user."""
    return "\n".join(
        [
            f"headrace {found['headrace']}, in {found['location']}",
            f"{found['python']} ({found['executable']}) on {found['system']}",
            f"{found['openssl']}",
            "",
            *_build(found["build"], found["modules"]),
            *_futures(found["futures"]),
            "",
            *_loops(found["loops"]),
            *_connections(found["connections"]),
            "",
            _installed(found["installed"]),
        ]
    )


def _build(build: str, modules: dict[str, bool]) -> Iterator[str]:
    pure = [name for name, is_compiled in modules.items() if not is_compiled]
    if build == "compiled":
        yield f"Build: compiled. All {len(modules)} modules of the data path are machine code."
    elif build == "pure":
        yield from (
            f"Build: pure Python. None of the {len(pure)} modules of the data path is compiled: "
            "the same behaviour, several times slower.",
            "  Why: there was no C compiler when it was installed, HEADRACE_NO_EXTENSIONS was set, "
            "or this is a source tree.",
            "  What to do: install gcc (or clang) and the Python headers, then",
            "    HEADRACE_REQUIRE_EXTENSIONS=1 pip install --force-reinstall --no-binary headrace "
            "headrace",
            "  which fails with the compiler's own message where it still cannot be compiled.",
            "  On Linux importing it warns once (RuntimeWarning); HEADRACE_NO_EXTENSIONS=1 in the "
            "environment says that it is meant.",
        )
    else:
        yield (
            "Build: mixed, which no installation makes. Old files lie among new ones: uninstall "
            "headrace and install it again."
        )
        yield "  Pure: " + ", ".join(pure)
    for name, is_compiled in modules.items():
        yield f"  {'compiled' if is_compiled else 'pure    '}  {name}"


def _futures(futures: str | None) -> Iterator[str]:
    if futures == "public":
        yield (
            "asyncio's futures are not as expected in this Python: their public methods are used, "
            "which costs a little more."
        )


def _loops(versions: dict[str, str | None]) -> Iterator[str]:
    if versions["uvloop"] is None:
        yield (
            "uvloop: not installed. headrace does not need it; pip install 'headrace[uvloop]' adds "
            "it."
        )
    else:
        yield f"uvloop: {versions['uvloop']}"
    if versions["rloop"] is not None:
        yield f"rloop: {versions['rloop']}"


def _connections(choices: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, choice in choices.items():
        if choice["watches_epoll"]:
            yield (
                f"Tried: {name}'s loop goes on telling of an epoll set while something is left in "
                "it, as the native way needs."
            )
        elif choice["obstacle"] != platform_obstacle():
            yield f"Tried: {name}'s loop cannot take the native way: {choice['obstacle']}."
        yield _way(f"Connections on {name}'s loop", choice)
        yield _way("  With TLS they", choice["tls"])


def _way(which: str, taken: dict[str, Any]) -> str:
    if taken["way"] == "none":
        return f"{which} cannot be made: {taken['reason']}."
    return f"{which} take the {taken['way']} way, {taken['form']} form: {taken['reason']}."


def _installed(installed: bool) -> str:
    if installed:
        return "asyncio's stream names mean headrace's in this process (headrace.install())."
    return (
        "asyncio's stream names are asyncio's own in this process: headrace.install() or "
        "`headrace run` swaps them."
    )
