"""Public names as users know them: help(), tracebacks and pickle say where a name is found, not
where its code is."""

import re
import sys
from types import FunctionType
from typing import Any

try:
    from headrace._core.cprims import hide_vtable
except ModuleNotFoundError:
    from headrace._core.cprims_py import hide_vtable

# headrace._streams.reader, headrace.framing._codec
PRIVATE = re.compile(r"headrace\.(.*\.)?_")

# Where Python imports everything lazily (PEP 810), compiled modules are still to be loaded, and
# need the vtables of their bases: help() shows them there.
_HIDES = getattr(sys, "get_lazy_imports", lambda: "normal")() != "all"


def publish(value: Any, module: str) -> None:
    """Have *value*, a function or a class of headrace's, be a name of *module*; a class also owns
    the methods of its private bases.

    A lookup finds the very same functions as before, in the class itself. All modules that are
    compiled have to be loaded: see hide_vtable().
    """
    if not value.__module__.startswith("headrace."):
        return
    value.__module__ = module
    if not isinstance(value, type):
        return
    for base in value.__mro__:
        if PRIVATE.match(base.__module__):
            if _HIDES:
                hide_vtable(base)
            _lend(base, value)
    generic: Any = value
    if "__orig_bases__" in vars(value):  # what typing notes of a generic class
        bases = [base for base in generic.__orig_bases__ if not PRIVATE.match(base.__module__)]
        generic.__orig_bases__ = tuple(bases)
    for name, member in list(vars(value).items()):
        _rename(member, f"{value.__qualname__}.{name}", module)


def _lend(base: type, public: type) -> None:
    """Make the methods of *base* attributes of *public*, but for those that it has from a class
    before *base*; special ones stay, since a read would cost 1 % more."""
    for name, member in list(vars(base).items()):
        first = next(cls for cls in public.__mro__ if name in vars(cls))
        if first is base and not name.startswith("_"):
            setattr(public, name, member)


def _rename(member: Any, qualified: str, module: str) -> None:
    """Have *member*, a function or what is made of some, say that it is *qualified* in *module*."""
    if isinstance(member, property):
        for each in (member.fget, member.fset):
            _rename(each, qualified, module)
        return
    function = getattr(member, "__func__", member)
    is_ours = (getattr(function, "__module__", None) or "").startswith("headrace.")
    if is_ours and (isinstance(function, FunctionType) or "cython" in type(function).__name__):
        function.__module__ = module
        function.__qualname__ = qualified
