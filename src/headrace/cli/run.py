"""``headrace run``: an unmodified program, as python itself would run it, with headrace in it."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import runpy
import sys
import types
import warnings
import zipfile
from importlib.machinery import SourceFileLoader

from headrace.cli.options import add_loop, fail
from headrace.swap import install

DESCRIPTION = """\
Run a Python program as python itself would, with asyncio's stream names meaning headrace's.

sys.argv, sys.path, __main__ and the exit status are what they would be under python. Everything
after the script or the module belongs to the program. Processes that the program starts do not
inherit headrace.

examples:
  headrace run server.py --port 8888
  headrace run -m aiosmtpd -n -l localhost:8025
  headrace run --loop uvloop server.py      also make uvloop the event loop
                                            (pip install 'headrace[uvloop]')
  python -X dev -m headrace run server.py   with options of python's own
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what run() takes to *parser*, but for the program and its own arguments."""
    parser.usage = "headrace run [--loop asyncio|uvloop] SCRIPT|-m MODULE [ARGS...]"
    add_loop(parser, default="asyncio, as it is")
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", help="run a module instead of a script"
    )


def run(options: argparse.Namespace) -> int:
    """Run the program that *options* name as python itself would, until it comes to its end.

    *options*: ``module`` to run, or None; ``arguments``, the program's own, where the first is the
    script unless there is a module. A script may be a directory or an archive with a
    ``__main__.py``. ``loop``: "asyncio" or "uvloop".

    Returns: 0; 2 where the script or uvloop is not there. Raises: whatever the program raises.
    headrace stays installed: threads and atexit functions of the program may outlive its last line.
    """
    module, arguments = options.module, options.arguments
    if options.loop == "uvloop" and not _use_uvloop():
        return fail("run", "uvloop is not installed: pip install 'headrace[uvloop]'", 2)
    if module is None and not os.path.exists(arguments[0]):
        return fail("run", f"can't open {arguments[0]!r}: no such file", 2)
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
