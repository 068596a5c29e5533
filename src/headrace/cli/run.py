"""``headrace run``: an unmodified program, as python itself would run it, with headrace in it."""

from __future__ import annotations

import builtins
import io
import os
import runpy
import sys
import types
import warnings
import zipfile
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader

from headrace.swap import install


def run(arguments: Sequence[str], *, module: str | None, loop: str) -> int:
    """Run the script arguments[0], or *module*, with the rest of *arguments* as its own; return 0
    when it comes to its end.

    *arguments*: of the program; the first is the script unless *module* names a module. A script
    may be a directory or an archive with a ``__main__.py``. *loop*: "asyncio" or "uvloop".

    Returns: 2 where the script or uvloop is not there. Raises: whatever the program raises.
    headrace stays installed: threads and atexit functions of the program may outlive its last line.
    """
    if loop == "uvloop" and not _use_uvloop():
        print(
            "headrace run: uvloop is not installed: pip install 'headrace[uvloop]'", file=sys.stderr
        )
        return 2
    if module is None and not os.path.exists(arguments[0]):
        print(f"headrace run: can't open {arguments[0]!r}: no such file", file=sys.stderr)
        return 2
    install()
    # A new module, which stays: the program may pickle what it defines, or look its names up when
    # its last line has run.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    if module is not None:
        sys.argv[:] = [module, *arguments]
        _set_first_path(os.getcwd())
        _run_module_as_main(module)
        return 0
    sys.argv[:] = arguments
    path = os.path.join(os.getcwd(), arguments[0])
    if os.path.isfile(path) and not zipfile.is_zipfile(path):
        _set_first_path(os.path.dirname(os.path.realpath(path)))
        _run_script(path, main)
    else:
        if sys.flags.safe_path:
            sys.path.insert(0, path)
        else:
            sys.path[0] = path
        _run_module_as_main("__main__", False)
    return 0


def _run_module_as_main(name: str, alter_argv: bool = True) -> None:
    """Run a module as ``python -m`` does, by the function that the interpreter itself calls for it.

    runpy's public functions are not enough: they put the program's ``__main__`` away when its last
    line has run.
    """
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_script(path: str, main: types.ModuleType) -> None:
    """Run the source file *path* in the module *main*."""
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _set_first_path(directory: str) -> None:
    """Put *directory* where python puts the program's, in place of what stands there for the
    headrace command."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _use_uvloop() -> bool:
    """Make uvloop the event loop of asyncio.run(); return False where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return False
    import asyncio

    with warnings.catch_warnings():
        # Python 3.14 and uvloop prefer a loop factory, which an unmodified program does not pass.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return True
