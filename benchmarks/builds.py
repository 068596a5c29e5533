"""Which build of a package this process runs: its imported files decide."""

from __future__ import annotations

import importlib.machinery
import sys


def build_of(package: str) -> str:
    """Say "compiled" when any imported module of *package* is an extension.

    The package must have been imported. One is enough to ask for: where extensions are
    built they shadow the sources of the same name, and nothing else shows it.
    """
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    files = [
        getattr(module, "__file__", None) or ""
        for name, module in list(sys.modules.items())
        if name == package or name.startswith(package + ".")
    ]
    return "compiled" if any(file.endswith(suffixes) for file in files) else "pure"
