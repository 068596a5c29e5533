"""What the Makefile checks before it makes anything: one line names what is missing, and the
command that gets it."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".ci" / "ready.py"
PACKAGES = "python3 python3-venv python3-dev gcc libc6-dev"
MAKE = shutil.which("make")


def ready(program: str = "", **environment: str) -> tuple[int, str]:
    """Run the check after *program*, which may take something away; return its status and what it
    printed."""
    code = (
        f"import runpy, sys, sysconfig, importlib.util; {program or 'pass'}\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "CC": "true", **environment},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def lacks(module: str) -> str:
    return (
        "find = importlib.util.find_spec;"
        f"importlib.util.find_spec = lambda name: None if name == {module!r} else find(name)"
    )


def without_headers(directory: Path) -> str:
    return (
        "path = sysconfig.get_path; sysconfig.get_path ="
        f" lambda name: {str(directory)!r} if name == 'include' else path(name)"
    )


@pytest.fixture
def here(tmp_path: Path) -> str:
    """Headers that are there, whatever this Python has."""
    (tmp_path / "Python.h").touch()
    return without_headers(tmp_path)


def test_nothing_is_missing(here: str) -> None:
    """Where all is there the check says nothing."""
    assert ready(here) == (0, "")


def test_no_venv(here: str) -> None:
    """Debian's python3 alone has no ensurepip."""
    for module in ("ensurepip", "venv"):
        status, said = ready(f"{here}; {lacks(module)}")
        assert status == 1
        assert re.fullmatch(
            r"missing: ensurepip\. On Debian: apt-get install python3[.\d]*-venv\n", said
        )


def test_no_headers(tmp_path: Path) -> None:
    """Without python3-dev no extension module can be compiled."""
    status, said = ready(without_headers(tmp_path))
    assert status == 1
    assert re.fullmatch(
        r"missing: Python\.h\. On Debian: apt-get install python3[.\d]*-dev\n", said
    )


@pytest.mark.parametrize(
    ("compiler", "line"),
    [
        (
            "no-such-cc -pthread",
            "missing: the C compiler no-such-cc. On Debian: apt-get install gcc libc6-dev\n",
        ),
        (
            "false -pthread",
            "missing: what false needs to compile and link. On Debian: apt-get install libc6-dev\n",
        ),
    ],
)
def test_no_compiler(here: str, compiler: str, line: str) -> None:
    """The compiler must be there, and compile and link something."""
    assert ready(here, CC=compiler) == (1, line)


def test_all_at_once(tmp_path: Path) -> None:
    """One line names everything that is missing."""
    status, said = ready(f"{without_headers(tmp_path)}; {lacks('ensurepip')}", CC="no-such-cc")
    assert status == 1
    assert said.count("\n") == 1
    assert re.search(r"install python3[.\d]*-venv python3[.\d]*-dev gcc libc6-dev\n$", said)


def test_an_old_python(here: str) -> None:
    """A Python that is too old is named, with the way to name another."""
    status, said = ready(f"{here}; sys.version_info = (3, 10, 2)")
    assert (status, said) == (
        1,
        f"{sys.executable} is Python 3.10, and headrace needs 3.11 or newer: make PYTHON=…\n",
    )


def test_the_compiler_of_this_python() -> None:
    """Where CC is not set, the compiler is the one that this Python was built with."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    missing = runpy.run_path(str(PROGRAM))["missing"]
    assert any(compiler in what for what, _ in missing()) == (shutil.which(compiler) is None)


@pytest.mark.skipif(MAKE is None, reason="make is not there")
class TestMake:
    """The Makefile, in a directory of its own with interpreters that are not whole."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        shutil.copy(ROOT / "Makefile", tmp_path)
        shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
        (tmp_path / "src").mkdir()
        return tmp_path

    def make(
        self, tree: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [MAKE, "-C", str(tree), *arguments]
        environment = {**os.environ, **environment}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment
        )

    def test_no_python(self, tree: Path) -> None:
        """Without an interpreter, one line says how to get everything, and nothing is made."""
        done = self.make(tree, "demo", "PYTHON=no-such-python")
        assert done.returncode != 0
        assert f"missing: no-such-python. On Debian: apt-get install {PACKAGES}\n" in done.stdout
        assert not (tree / ".venv").exists()

    def test_nothing_is_made_where_something_is_missing(self, tree: Path) -> None:
        """What is missing is said before .venv is begun."""
        done = self.make(tree, "demo", f"PYTHON={sys.executable}", CC="no-such-cc")
        assert done.returncode != 0
        assert "missing: " in done.stdout
        assert not (tree / ".venv").exists()

    @pytest.mark.parametrize("state", ["unfinished", "interpreter gone"])
    def test_a_half_made_environment_is_made_anew(self, tree: Path, state: str) -> None:
        """A .venv whose making was interrupted, or whose interpreter has gone, does not count as
        made."""
        program = tree / ".venv" / "bin" / "python"
        program.parent.mkdir(parents=True)
        program.write_text(
            "#!/bin/sh\nexit 0\n" if state == "unfinished" else "#!/no/such/interpreter\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        if state == "interpreter gone":
            (tree / ".venv" / ".made").touch()
        # An interpreter that passes the check, and makes an environment that can be told from the
        # other.
        fake = tree / "fake-python"
        fake.write_text('#!/bin/sh\n[ "$1" != -m ] || { mkdir -p "$3/bin" && touch "$3/anew"; }\n')
        fake.chmod(0o755)
        done = self.make(tree, ".venv/.made", f"PYTHON={fake}")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tree / ".venv" / "anew").exists()
        assert not program.exists()


def test_the_readme_names_the_packages() -> None:
    """The line in the README has what the check asks for, and make and git; the tests on minimal
    systems install what it names."""
    named = re.search(
        r"^\$ (?:sudo )?apt-get install (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )[1].split()
    assert set(named) == {*PACKAGES.split(), "make", "git"}
