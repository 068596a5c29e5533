"""The compiled build. Everything else is in pyproject.toml.

HEADRACE_NO_EXTENSIONS=1        build without the compiler: pure Python, slower, the same behaviour;
                                when it runs: do not warn of that
HEADRACE_REQUIRE_EXTENSIONS=1   fail where the extensions cannot be compiled, instead of falling
                                back to pure Python
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
NATIVE = (
    "headrace/_transport/native/outbox.pyx",
    "headrace/_transport/native/pool.pyx",
    "headrace/_transport/native/reactor.pyx",
    "headrace/_transport/native/connection.pyx",
    "headrace/_transport/native/tls_engine.pyx",
    "headrace/_transport/native/tls_connection.pyx",
    "headrace/_transport/native/transport.pyx",
    "headrace/_transport/native/listener.pyx",
)
COMPILED = (
    "headrace/_core/cprims.pyx",
    "headrace/_core/buffer.py",
    "headrace/_transport/future.pyx",
    "headrace/_transport/stepper.py",
    "headrace/_transport/operation.py",
    "headrace/_transport/opslots.pyx",
    "headrace/_transport/sender.py",
    "headrace/_transport/stream_protocol.py",
    *(NATIVE if sys.platform == "linux" else ()),
    "headrace/_streams/read_half.py",
    "headrace/_streams/reads.py",
    "headrace/_streams/reader.py",
    "headrace/_streams/writer.py",
    "headrace/_streams/reader_protocol.py",
)


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


def extensions() -> list[Extension]:
    """Return the extension modules, translated by Cython."""
    from Cython.Build import cythonize

    flags = ["-O0", "-g3", "-UNDEBUG"] if DEBUG else ["-O1", "-g"] if SANITIZE else ["-O2"]
    modules = [
        Extension(
            path.rpartition(".")[0].replace("/", "."),
            [str(SOURCE / path)],
            extra_compile_args=[*flags, *SANITIZE, "-Wno-unreachable-code"],
            extra_link_args=SANITIZE,
        )
        for path in COMPILED
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
            # a subclass may forget super().__init__(): an error then, not a crash
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
