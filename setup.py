"""The compiled build. Everything else is in pyproject.toml.

HEADRACE_NO_EXTENSIONS=1        build without the compiler: pure Python, slower, the same behaviour;
                                when it runs: do not warn about that
HEADRACE_REQUIRE_EXTENSIONS=1   fail if the extensions cannot be compiled, instead of falling back
                                to pure Python
HEADRACE_DEBUG=1                compile for a debugger (-O0 -g3, C assertions on)
HEADRACE_SANITIZE=1             compile with gcc's address and undefined-behaviour sanitizers:
                                `make test-sanitizers` runs that
HEADRACE_ANNOTATE=1             write Cython's annotated HTML beside the sources
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("src")
PACKAGE = SOURCE / "headrace"
# What only Linux has.
NATIVE = PACKAGE / "_transport" / "native"


def switch(name: str) -> bool:
    """Return whether the environment variable *name* is set to anything but an empty string or
    0."""
    return os.environ.get(name, "") not in ("", "0")


NONE = switch("HEADRACE_NO_EXTENSIONS")
REQUIRED = switch("HEADRACE_REQUIRE_EXTENSIONS")
DEBUG = switch("HEADRACE_DEBUG")
SANITIZE = (
    ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    if switch("HEADRACE_SANITIZE")
    else []
)


class BuildOrFallBack(build_ext):
    """build_ext that goes on without the extensions, and says so in one line, unless they are
    required."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if REQUIRED:
                raise
            self.extensions.clear()
            print(
                f"headrace: not compiled, the pure-Python build is installed: {error}",
                file=sys.stderr,
            )


def compiled() -> list[Path]:
    """Return the sources that are compiled: each .pyx, and each .py with a .pxd beside it."""
    return sorted(
        path
        for path in PACKAGE.rglob("*.py*")
        if (path.suffix == ".pyx" or (path.suffix == ".py" and path.with_suffix(".pxd").exists()))
        and (sys.platform == "linux" or NATIVE not in path.parents)
    )


def extensions() -> list[Extension]:
    """Return the extension modules, translated by Cython."""
    from Cython.Build import cythonize

    flags = ["-O0", "-g3", "-UNDEBUG"] if DEBUG else ["-O1", "-g"] if SANITIZE else ["-O2"]
    modules = [
        Extension(
            ".".join(path.relative_to(SOURCE).with_suffix("").parts),
            [str(path)],
            extra_compile_args=[*flags, *SANITIZE, "-Wno-unreachable-code"],
            extra_link_args=SANITIZE,
        )
        for path in compiled()
    ]
    return cythonize(
        modules,
        build_dir="build/cython",
        include_path=[str(SOURCE)],
        annotate=switch("HEADRACE_ANNOTATE"),
        compiler_directives={
            "language_level": 3,
            "annotation_typing": False,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            # If a subclass forgets super().__init__(), that is an error, not a crash.
            "nonecheck": True,
            "auto_pickle": False,
            "embedsignature": False,
        },
    )


if NONE and REQUIRED:
    raise SystemExit(
        "HEADRACE_NO_EXTENSIONS and HEADRACE_REQUIRE_EXTENSIONS contradict each other: set one of "
        "them"
    )

setup(ext_modules=[] if NONE else extensions(), cmdclass={"build_ext": BuildOrFallBack})
