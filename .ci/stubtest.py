"""Compare what type checkers read of the installed headrace with what is there: mypy's stubtest.

They read the .py of a compiled module, or the .pyi of what is written in Cython alone. Of a .py,
the .pxd beside it makes some names C's: for Python they are not there. Which ones, is read from the
.pxd; everything else that may differ stands in EXCEPTIONS, with its reason. Status: 0 or 1.
"""

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

# mypy's own errors are those of the session `types`. `compiled` is false for it there, too.
CONFIG = """
[mypy]
ignore_errors = true
always_false = compiled
"""

# Regular expressions for lines of stubtest's, without "headrace." in front.
EXCEPTIONS = r"""
# Cython's words; at run time they are gone.
\S+\.cython is not present at runtime
# Methods that return operations are marked for inspect as what is awaited: see coroutines.py.
\S+ is an "async def" function at runtime, but not in the stub
# @cython.final is in the .pxd.
\S+ cannot be subclassed at runtime, but isn't marked with @final in the stub
# Slots of C types take anything, or their arguments have no names.
\S+\.__init__ is inconsistent, stub does not have \*args parameter "args"
_streams\.reader\.Reader\.__setattr__ is inconsistent, .* should be positional-only .*
# These override what is C's in Waitable, whose .pxd is another.
_transport\.stream_protocol\.\w+\._h_(attempt|detach|wait) is not present at runtime
# What stubtest does not understand: an alias of a Literal, functools.cache, a partial, a class that
# a function is narrowed to.
(_transport\.base\.Way|_duplex\.relay\.Reason) is not a Union
_transport\.frames\.code_of is inconsistent, .*
_transport\.portable\.Portable\.start_tls variable differs .*
# Nor a TypedDict of keyword arguments; test_serve_arguments.py compares that with the signature.
_server\.api\.serve is inconsistent, (stub does not have parameter|runtime .* \*\*kwargs).*
_server\.api\.<callable subtype of object> is not present at runtime
# asyncio's private names, which programs call and nobody sets.
_streams\.asyncio_server\.Server\.(_start_serving|_wakeup) is read-only at runtime .*
"""

# In a .pxd: a class; and what is C's in it or in the module, a function or a variable.
CLASS = re.compile(r"cdef class (\w+)")
IN_C = re.compile(r"(    )?cdef (?:inline )?(?!class |enum|extern)[^(=#]*?(\w+)(?:\(|$| =)")


def names_in_c(package: Path) -> set[str]:
    """Return each name that a .pxd of *package* takes from Python, from its module on."""
    found = set()
    for path in package.rglob("*.pxd"):
        if not path.with_suffix(".py").exists():
            continue
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        owner = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line[:1].strip():
                begun = CLASS.match(line)
                owner = begun[1] if begun else ""
            name = IN_C.match(line)
            if name and bool(name[1]) == bool(owner):
                found.add(".".join(filter(None, (module, owner, name[2]))))
    return found


def main() -> int:
    """Run stubtest, and print what is not excepted."""
    spec = find_spec("headrace")
    assert spec is not None
    assert spec.origin is not None
    in_c = names_in_c(Path(spec.origin).parent)
    lines = [line for line in EXCEPTIONS.splitlines() if line and line[0] != "#"]
    excepted = re.compile("|".join(f"(?:{line})" for line in lines))
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as config:
        config.write(CONFIG)
        config.flush()
        # A .pyi says what Python code may use, which is not all.
        options = ["--concise", "--ignore-disjoint-bases", "--ignore-missing-stub"]
        command = [sys.executable, "-m", "mypy.stubtest", "headrace", *options]
        done = subprocess.run(
            [*command, "--mypy-config-file", config.name], stdout=subprocess.PIPE, text=True
        )
    said = [line.removeprefix("headrace.") for line in done.stdout.splitlines()]
    left = [
        line
        for line in said
        if not excepted.fullmatch(line)
        and not (line.endswith(" is not present at runtime") and line.split()[0] in in_c)
    ]
    print(*left, f"stubtest: {len(said) - len(left)} excepted, {len(left)} wrong", sep="\n")
    return int(bool(left) or done.returncode not in (0, 1))


if __name__ == "__main__":
    raise SystemExit(main())
