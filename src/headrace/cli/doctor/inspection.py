"""What is installed here: versions, what runs compiled, and which way connections take."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import platform
import ssl
import sys
import warnings
from pathlib import Path
from typing import Any

import headrace
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._transport.backend import choose, platform_obstacle
from headrace._transport.trial import epoll_obstacle
from headrace.swap import installed

# The loops beside asyncio's that headrace is tested on; each has a new_event_loop().
OTHER_LOOPS = ("uvloop", "rloop")


def modules() -> dict[str, bool]:
    """Return, by module name, whether each module that can be compiled is: each ``.pyx``, and each
    ``.py`` with a ``.pxd`` beside it."""
    root = Path(headrace.__file__).parent
    sources = [
        *root.glob("**/*.pyx"),
        *(path for path in root.glob("**/*.py") if path.with_suffix(".pxd").exists()),
    ]
    stems = {path.relative_to(root).with_suffix("") for path in sources}
    if not sys.platform.startswith("linux"):
        stems = {stem for stem in stems if "native" not in stem.parts}
    found = {}
    for stem in sorted(stems):
        name = ".".join(("headrace", *stem.parts))
        spec = importlib.util.find_spec(name)
        found[name] = spec is not None and not str(spec.origin).endswith(".py")
    return found


def build() -> str:
    """Return "compiled", "pure" or "mixed"."""
    states = set(modules().values())
    return "mixed" if len(states) > 1 else "compiled" if states == {True} else "pure"


def futures() -> str | None:
    """Return "fields" where asyncio's futures are as expected, "public" where their public methods
    have to do; None uncompiled."""
    if importlib.util.find_spec("headrace._transport.future") is None:
        return None
    return (
        "fields" if importlib.import_module("headrace._transport.future").is_known() else "public"
    )


def _loops() -> dict[str, str | None]:
    """Return the event loops headrace is tested on, with their version, or None where one is not
    installed."""
    versions: dict[str, str | None] = {"asyncio": platform.python_version()}
    for name in OTHER_LOOPS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _choices() -> dict[str, dict[str, Any]]:
    """Return, by loop, which way a connection takes there, without and with TLS, and why; and what
    was found by trying the loop."""
    found = {}
    for name, loop_version in _loops().items():
        if loop_version is None:
            continue
        module = asyncio if name == "asyncio" else importlib.import_module(name)
        loop = module.new_event_loop()
        with warnings.catch_warnings():
            # rloop does not close the sockets by which it is woken.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                found[name] = loop.run_until_complete(_choices_on(loop))
            finally:
                loop.close()
    return found


async def _choices_on(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    obstacle = platform_obstacle() or await epoll_obstacle(loop)
    tls = await _choice(loop, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return await _choice(loop) | {
        "tls": tls,
        "watches_epoll": obstacle is None,
        "obstacle": obstacle,
    }


async def _choice(
    loop: asyncio.AbstractEventLoop, *, tls: ssl.SSLContext | None = None
) -> dict[str, Any]:
    try:
        choice = await choose(loop, DEFAULT_LIMIT, tls=tls)
    except ValueError as error:  # what the environment variable says
        return {"way": "none", "form": "none", "reason": str(error)}
    return {"way": str(choice.way), "form": str(choice.form), "reason": choice.reason}


def findings() -> dict[str, Any]:
    """Return everything doctor says, as JSON can hold it."""
    return {
        "headrace": headrace.__version__,
        "location": str(Path(headrace.__file__).parent),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "system": platform.platform(),
        "build": build(),
        "modules": modules(),
        "futures": futures(),
        "loops": _loops(),
        "openssl": ssl.OPENSSL_VERSION,
        "connections": _choices(),
        "installed": installed(),
    }
