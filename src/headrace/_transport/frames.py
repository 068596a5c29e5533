"""What tools see of an operation, which has neither code nor frame: those of the method that made
it, as of an asyncio coroutine.

asyncio.print_call_graph(), Task.print_stack() and the repr of a task ask for them; nothing is made
until somebody does.
"""

from __future__ import annotations

import builtins
import functools
import os
import sys
import types
from typing import Any


class Frame:
    """Answers what is asked of a frame; it begins, and stays, at the first line of its method."""

    f_back = None
    f_trace = None
    f_lasti = -1
    f_builtins = vars(builtins)

    def __init__(self, generator: object, code: types.CodeType) -> None:
        self.f_generator = generator
        self.f_code = code
        self.f_lineno = code.co_firstlineno
        self.f_globals: dict[str, Any] = {
            "__name__": os.path.splitext(os.path.basename(code.co_filename))[0]
        }
        self.f_locals: dict[str, Any] = {}

    def __repr__(self) -> str:
        code = self.f_code
        where = f"file {code.co_filename!r}, line {self.f_lineno}"
        return f"<frame of an operation, {where}, code {code.co_name}>"


@functools.cache
def code_of(name: str) -> types.CodeType:
    """Return the code of the method of headrace that is called *name*, class and method, with the
    file and the line where its text is."""
    cls, method = name.split(".")
    public: type = getattr(sys.modules["headrace"], cls)
    function: Any = getattr(public, method)
    # It stands in the text of the last class that has it: see publish().
    home = next(base for base in reversed(public.__mro__) if vars(base).get(method) is function)
    module = sys.modules[home.__module__]
    code: types.CodeType = getattr(function, "__code__", nothing.__code__)
    # Compiled, the module is another file beside the text, and its code names the place where it
    # was built.
    text = os.path.join(
        os.path.dirname(str(module.__file__)), f"{module.__name__.rpartition('.')[2]}.py"
    )
    first = (
        code.co_firstlineno if code is not nothing.__code__ else _line_of(text, f"def {method}(")
    )
    return code.replace(co_filename=text, co_name=method, co_qualname=name, co_firstlineno=first)


def _line_of(text: str, beginning: str) -> int:
    try:
        with open(text, encoding="utf-8") as lines:
            return next(
                (
                    number
                    for number, line in enumerate(lines, 1)
                    if line.lstrip().startswith(beginning)
                ),
                1,
            )
    except OSError:  # the source is not installed
        return 1


async def nothing() -> None:
    """Be a coroutine of Python's own."""
