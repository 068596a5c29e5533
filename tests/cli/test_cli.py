"""The headrace command: a program runs as under python itself, doctor tells the truth, the demo
runs to its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import headrace
from headrace import cli
from headrace.cli import doctor
from headrace.cli.doctor import inspection

TIMEOUT_S = 60
PRINT_ENVIRONMENT = """\
import json, sys, __main__, asyncio
if __name__ == "__main__":
    print(json.dumps({
        "argv": sys.argv, "path": sys.path[0], "file": __file__,
        "main": __main__.__dict__ is globals(),
        "ours": asyncio.StreamReader.__module__.startswith("headrace"), "package": __package__,
    }))
"""


def headrace_command(
    *arguments: str, cwd: Path | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "headrace", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        check=False,
        env=environment(),
    )
    assert done.returncode == status, done
    return done


def environment() -> dict[str, str]:
    """Return an environment in which *this* headrace is found from any directory."""
    root = str(Path(headrace.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error", "COLUMNS": "100"}


def python(*arguments: str, cwd: Path) -> dict[str, object]:
    """Return what PRINT_ENVIRONMENT prints under python itself."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        check=True,
        env=environment(),
    )
    return json.loads(done.stdout)


ARGUMENTS = ["a", "--loop", "uvloop", "-m", "x", "--", "--help", ""]


@pytest.mark.parametrize(
    "how",
    [
        ["directory/program.py"],
        ["--", "directory/program.py"],
        ["./link.py"],
        ["directory"],
        ["-m", "directory.program"],
        ["-m", "directory"],
    ],
)
def test_run_is_as_python(tmp_path: Path, how: list[str]) -> None:
    """sys.argv, sys.path[0], __file__, __package__ and __main__ are python's own, for scripts,
    links, directories and modules."""
    directory = tmp_path / "directory"
    directory.mkdir()
    for name in ("program.py", "__main__.py"):
        (directory / name).write_text(PRINT_ENVIRONMENT)
    (tmp_path / "link.py").symlink_to(directory / "program.py")
    expected = python(*how, *ARGUMENTS, cwd=tmp_path)
    assert (expected.pop("ours"), expected["main"]) == (False, True)
    found = json.loads(headrace_command("run", *how, *ARGUMENTS, cwd=tmp_path).stdout)
    assert found.pop("ours") is True
    assert found == expected


@pytest.mark.parametrize(
    ("code", "status", "errors"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("import sys; sys.exit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        # A shell starts what runs in the background with SIGINT ignored.
        (
            "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "os.kill(os.getpid(), signal.SIGINT)",
            -2,
            "KeyboardInterrupt\n",
        ),
    ],
)
def test_run_ends_as_the_program_ends(tmp_path: Path, code: str, status: int, errors: str) -> None:
    """The exit status and the last line of a traceback are those of the program."""
    (tmp_path / "program.py").write_text(code)
    assert headrace_command("run", "program.py", cwd=tmp_path, status=status).stderr.endswith(
        errors
    )


def test_run_keeps_the_main_module(tmp_path: Path) -> None:
    """__main__ is the program's still when its last line has run: atexit functions find its names,
    and pickle its classes."""
    (tmp_path / "program.py").write_text(
        "import atexit, pickle, sys\n"
        "class Thing: pass\n"
        "atexit.register(lambda: print(type(pickle.loads(pickle.dumps(Thing()))), "
        "sys.modules['__main__'].__dict__ is globals()))\n"
    )
    for how in (["program.py"], ["-m", "program"]):
        assert (
            headrace_command("run", *how, cwd=tmp_path).stdout == "<class '__main__.Thing'> True\n"
        )


def test_run_with_uvloop(tmp_path: Path) -> None:
    """--loop uvloop makes uvloop the loop of asyncio.run()."""
    pytest.importorskip("uvloop")
    (tmp_path / "program.py").write_text(
        "import asyncio\nasync def main(): "
        "print(type(asyncio.get_running_loop()).__module__)\nasyncio.run(main())"
    )
    assert headrace_command(
        "run", "--loop", "uvloop", "program.py", cwd=tmp_path
    ).stdout.startswith("uvloop")
    assert headrace_command("run", "program.py", cwd=tmp_path).stdout.startswith("asyncio")


def test_run_serves(tmp_path: Path) -> None:
    """An unmodified program of asyncio's streams works under run."""
    (tmp_path / "program.py").write_text(
        "import asyncio\n"
        "async def handle(reader, writer):\n"
        "    writer.write(await reader.readline())\n"
        "    writer.close()\n"
        "async def main():\n"
        "    async with await asyncio.start_server(handle, '127.0.0.1', 0) as server:\n"
        "        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "        writer.write(b'hello\\n')\n"
        "        print(type(reader).__module__.partition('.')[0], await reader.read())\n"
        "        writer.close()\n"
        "asyncio.run(main())\n"
    )
    assert headrace_command("run", "program.py", cwd=tmp_path).stdout == "headrace b'hello\\n'\n"


def test_run_without_a_program_says_what_is_missing() -> None:
    """No program, and one that is not there, are one line each and status 2."""
    assert "run: what?" in headrace_command("run", status=2).stderr
    assert (
        headrace_command("run", "/nowhere.py", status=2).stderr
        == "headrace run: can't open '/nowhere.py': no such file\n"
    )


@pytest.mark.parametrize("command", [[], ["run"], ["doctor"], ["demo"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help of every command shows how it is used."""
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    assert "examples:\n  headrace " in capsys.readouterr().out


def test_extras_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Every extra that the README, the guide and the command name is one, and the README names
    each."""
    root = Path(__file__).parents[2]
    named = {}
    for path in [
        root / "README.md",
        *root.glob("docs/*.md"),
        *(root / "src" / "headrace").rglob("*.py"),
    ]:
        named[path.name] = set(re.findall(r"headrace\[(\w+)\]", path.read_text()))
    with (root / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    assert set().union(*named.values()) <= extras
    assert named["README.md"] == extras


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """headrace without a command shows its commands and ends with status 2."""
    assert cli.main([]) == 2
    assert "headrace demo" in capsys.readouterr().out


def test_doctor_in_json() -> None:
    """doctor --json holds the version, the build of each module, the loops, and the way of
    connections with its reason."""
    found = json.loads(headrace_command("doctor", "--json").stdout)
    assert found["headrace"] == headrace.__version__
    assert found["build"] == doctor.build()
    assert len(found["modules"]) >= 9
    for name, version in found["loops"].items():
        assert (name in found["connections"]) == (version is not None)
    for choice in found["connections"].values():
        assert choice["reason"]
        assert (
            choice["watches_epoll"]
            == (doctor.build() == "compiled")
            == (choice["obstacle"] is None)
        )
    assert found["openssl"].startswith("OpenSSL")
    assert found["installed"] is False


@pytest.mark.parametrize(("futures", "said"), [("public", True), ("fields", False), (None, False)])
def test_doctor_says_which_futures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, futures, said
) -> None:
    """Doctor says where asyncio's futures are not as expected, so that their public methods are
    used; on the Pythons here they are."""
    assert inspection.futures() in ("fields", None)
    monkeypatch.setattr(inspection, "futures", lambda: futures)
    cli.main(["doctor"])
    assert ("futures are not as expected" in capsys.readouterr().out) == said


def test_doctor_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """doctor says in words what the JSON holds, names each module, and notices install()."""
    with headrace.install():
        assert cli.main(["doctor"]) == 0
    words = capsys.readouterr().out
    assert {"compiled": "Build: compiled", "pure": "Build: pure Python"}[doctor.build()] in words
    assert "headrace._streams.reader" in words
    for name, version in inspection.findings()["loops"].items():
        assert (f"Connections on {name}'s loop take the" in words) == (version is not None)
    assert ("Tried: asyncio's loop goes on telling of an epoll set" in words) == (
        doctor.build() == "compiled"
    )
    assert "mean headrace's in this process" in words


def test_doctor_says_why_a_loop_is_unfit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where trying a loop has shown that it cannot take the native way, doctor says so, and why."""

    async def deaf(loop: object) -> str:
        return "its add_reader() is deaf"

    monkeypatch.setattr(inspection, "epoll_obstacle", deaf)
    monkeypatch.setattr(inspection, "platform_obstacle", lambda: None)
    assert cli.main(["doctor"]) == 0
    assert (
        "Tried: asyncio's loop cannot take the native way: its add_reader() is deaf.\n"
        in capsys.readouterr().out
    )


def test_require_compiled_is_the_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--require-compiled ends with status 1 on the pure build and on a mixed one, and with 0 on the
    compiled one."""
    for states, status in (
        ({"a": True, "b": True}, 0),
        ({"a": False, "b": False}, 1),
        ({"a": True, "b": False}, 1),
    ):
        monkeypatch.setattr(inspection, "modules", lambda states=states: states)
        assert cli.main(["doctor", "--require-compiled"]) == status
    assert "the build is mixed, not compiled" in capsys.readouterr().err


def test_demo() -> None:
    """The demo shows its five programs and a row of figures for each load, and needs no
    terminal."""
    pytest.importorskip("rich")
    out = headrace_command("demo", "--quick", "--loop", "asyncio").stdout
    assert "received 'HELLO, STREAMS'" in out
    assert "5. A connection that begins in plain text" in out
    rows = [line for line in out.splitlines() if line.startswith("│") and " asyncio " in line]
    assert [row.split()[1].rstrip(",") for row in rows] == ["echo", "lines", "frames"]
    assert "\x1b" not in out


def test_demo_without_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rich the demo says what to install."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert cli.main(["demo"]) == 2
    assert "pip install 'headrace[demo]'" in capsys.readouterr().err
