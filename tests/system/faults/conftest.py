"""The shim, compiled once, and the programs that run under it: see shim.c, exchange.py and
scene.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace._transport import backend

HERE = Path(__file__).parent
# A program gives up by itself before, and says where it was: see child.py.
TIMEOUT_S = 40


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of loop: what a system call returns is no matter of debug mode or of eager
    tasks."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return request.param


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the compiled shim."""
    if backend.native is None:
        pytest.skip(
            "there is no native way here, or this is the pure-Python build: all system calls are "
            "the loop's"
        )
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip(
            "gcc is not installed: the shim that makes system calls fail cannot be compiled"
        )
    target = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Wextra",
            "-o",
            target,
            HERE / "shim.c",
            "-ldl",
        ],
        check=True,
    )
    return target


Program = Callable[..., dict[str, Any]]


def run_program(*command: str | Path, **environment: str) -> dict[str, Any]:
    """Run a program in Python, every warning an error; return the facts that it says at its end. It
    must end with status 0."""
    root = str(Path(headrace.__file__).parent.parent)
    done = subprocess.run(
        [*command],
        env={**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def program(shim: Path) -> Program:
    """Return a function that runs a program of this directory under the shim:
    program("exchange.py", *arguments, plan="recv=EINTR@3")."""

    def run(name: str, *arguments: object, plan: str = "") -> dict[str, Any]:
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "error",
            HERE / name,
            *map(str, arguments),
        ]
        return run_program(
            *command, LD_PRELOAD=str(shim), HEADRACE_SHIM=str(shim), HEADRACE_FAULTS=plan
        )

    return run


@pytest.fixture
def scene(program: Program, loop_kind: str, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that plays a scene of the program that the test's module names."""

    def run(name: str, *arguments: object) -> None:
        program(request.module.SCENES, loop_kind, name, *arguments)

    return run
