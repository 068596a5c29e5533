"""Checks that everything is here that the Makefile needs; if not, one line says what is missing and
how to get it. Status: 0 or 1.

`python3 .ci/ready.py`. The Makefile runs it before it makes anything. Older Pythons can run it
too, and say that they are too old.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile

OLDEST = (3, 11)
PROGRAM = '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'


def compiles(compiler):
    """Return None if *compiler*, a command line, compiles and links a program that uses the C
    library; otherwise "absent" or "fails"."""
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "program.c")
        with open(source, "w") as file:
            file.write(PROGRAM)
        command = [*shlex.split(compiler), source, "-o", os.path.join(scratch, "program")]
        try:
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
        except OSError:
            return "absent"
        return "fails" if done.returncode else None


def missing():
    """Return what is missing for this interpreter, each as what it is and the Debian package that
    has it."""
    # Debian's packages of the version that python3 means are named python3-…
    python = (
        "python3"
        if os.path.basename(sys.executable) == "python3"
        else f"python{sys.version_info[0]}.{sys.version_info[1]}"
    )
    found = []
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        found.append(("ensurepip", python + "-venv"))
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        found.append(("Python.h", python + "-dev"))
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    name = shlex.split(compiler)[0]
    state = compiles(compiler)
    if state == "absent":
        found.append((f"the C compiler {name}", "gcc libc6-dev"))
    elif state == "fails":
        found.append((f"what {name} needs to compile and link", "libc6-dev"))
    return found


def main():
    """Say in one line what is missing."""
    if sys.version_info < OLDEST:
        version, oldest = (".".join(map(str, each)) for each in (sys.version_info[:2], OLDEST))
        print(
            f"{sys.executable} is Python {version}, and headrace needs {oldest} or newer: make "
            "PYTHON=…"
        )
        return 1
    found = missing()
    if found:
        things = ", ".join(thing for thing, _ in found)
        packages = " ".join(package for _, package in found)
        print(f"missing: {things}. On Debian: apt-get install {packages}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
