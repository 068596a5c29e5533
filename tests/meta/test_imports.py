"""The floors of the house: a module imports its own floor and those below, never one above."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "headrace"
# The lowest first. The package's own __init__, here "", exports what is below it.
FLOORS = (
    ("errors",),
    ("_core",),
    ("_transport",),
    ("_streams",),
    ("_server", "metrics", "framing", "_duplex", "swap"),
    ("",),
    ("testing", "cli", "__main__"),
)


def floor(module):
    """Return the floor of *module*, a dotted name below headrace."""
    head = module.split(".")[0]
    floors = [number for number, names in enumerate(FLOORS) if head in names]
    assert floors, f"{module!r} is on no floor"
    return floors[0]


def imported(tree, package):
    """Yield what a module in *package* (a list of names below headrace) imports of headrace: (line,
    dotted name below it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            parent = ".".join(["headrace", *filter(None, base)])
            names = [f"{parent}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            name = name.removeprefix("cython.cimports.")
            if name == "headrace" or name.startswith("headrace."):
                yield node.lineno, name.removeprefix("headrace").removeprefix(".")


def upward(source, module):
    """Return what *source*, the text of *module* (dotted, below headrace), imports from floors
    above its own."""
    package = module.split(".")[:-1]
    found = []
    for line, name in imported(ast.parse(source), package):
        # ``from headrace import stream`` names a module, ``from headrace import StreamReader`` what
        # the package exports.
        head = name.split(".")[0]
        known = any(head in names for names in FLOORS)
        if floor(head if known else "") > floor(module):
            found.append(f"line {line}: headrace.{name}")
    return found


MODULES = sorted(
    str(path.relative_to(SOURCE).with_suffix("")).replace("/", ".") for path in SOURCE.rglob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_goes_up(module):
    """Every module imports only from its own floor and from those below; what Cython imports
    counts."""
    path = SOURCE / (module.replace(".", "/") + ".py")
    assert upward(path.read_text(), module.removesuffix("__init__")) == []


def test_the_floors_are_those_that_imports_keep_to():
    """The tree in ARCHITECTURE.md names the floor of each module and folder, and the same."""
    text = (SOURCE.parents[1] / "ARCHITECTURE.md").read_text()
    block = next(each for each in text.split("```\n") if each.startswith("src/headrace/"))
    drawn_floors = {
        name: int(number)
        for name, number in re.findall(r"^  (\w+)(?:\.py|/) .* (\d)$", block, re.MULTILINE)
    }
    assert len(drawn_floors) >= 8
    for name, number in drawn_floors.items():
        assert floor("" if name == "__init__" else name) + 1 == number, name
    assert {name for name in drawn_floors if name != "__init__"} == {
        path.stem
        for path in SOURCE.iterdir()
        if re.fullmatch(r"_?[a-z]+", path.stem) and path.suffix in ("", ".py")
    }


def loaded(path):
    """Yield the names below headrace that the module at *path* imports on loading. Imports for a
    type checker, or inside functions, do not count."""
    if path.suffix != ".py":
        for base, names in re.findall(
            r"^from headrace\.([\w.]+) c?import (\([^)]*\)|[^#\n]*)", path.read_text(), re.MULTILINE
        ):
            names = re.sub(r"\bas \w+", "", names)
            yield from (f"{base}.{name}" for name in re.findall(r"\w+", names))
        return
    nodes = list(ast.parse(path.read_text()).body)
    imports = []
    for node in nodes:
        if isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            nodes += [*node.body, *node.orelse]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
    package = list(path.relative_to(SOURCE).parts[:-1])
    yield from (name for _, name in imported(ast.Module(imports, []), package))


def graph():
    """Return what every module imports of headrace when it is loaded, Cython's imports too."""
    paths = [path for end in ("py", "pyx", "pxd") for path in SOURCE.rglob(f"*.{end}")]
    edges = {dotted(path): set() for path in paths}
    for path in paths:
        module = dotted(path)
        for name in loaded(path):
            found = {name, name.rpartition(".")[0]} & edges.keys() - {module}
            edges[module] |= {max(found, key=len)} if found else set()
    return edges


def dotted(path):
    """Return the name below headrace of the module at *path*."""
    name = str(path.relative_to(SOURCE).with_suffix("")).replace("/", ".")
    return name.removesuffix("__init__").removesuffix(".")


def cycle(edges):
    """Return the modules of a cycle in *edges*, or nothing."""
    left = {module: set(targets) for module, targets in edges.items()}
    while leaves := {module for module, targets in left.items() if not targets & left.keys()}:
        for module in leaves:
            del left[module]
    return sorted(left)


def test_no_two_modules_import_one_another():
    """Imports between files, on a floor too, form no circle; Cython's count."""
    edges = graph()
    assert "_streams.read_half" in edges["_streams.reader"]
    assert "_transport.native.reactor" in edges["_transport.native.connected_socket"]
    assert cycle(edges) == []


def test_a_cycle_is_found():
    """The check itself sees a circle, and what hangs on one, but no mere chain."""
    assert cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"c"}}) == ["a", "b", "c", "d"]


def test_what_differs_between_the_ways_is_behind_one_seam():
    """Above the transports nothing imports a module of the native way, nor either Backend by name:
    the object that was chosen knows."""
    above = [path for path in SOURCE.rglob("*.p*") if SOURCE / "_transport" not in path.parents]
    names = {name for path in above if path.suffix in (".py", ".pxd") for name in loaded(path)}
    assert "_transport.backend.for_loop" in names
    assert not {name for name in names if re.search(r"\.(native\b|Native$|Portable$)", name)}


def test_all_modules_are_found():
    """The walk sees the modules of every floor that exists."""
    assert {"errors", "_core.buffer", "_transport.stream_protocol", "_streams.reader"} <= set(
        MODULES
    )


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("_core.buffer", "from headrace._transport.operation import Operation"),
        ("_core.buffer", "from cython.cimports.headrace._transport.operation import Operation"),
        ("_core.buffer", "import headrace._streams.reader"),
        ("_transport.stream_protocol", "from .._streams import reader"),
        ("_transport.stream_protocol", "from .._streams.reader import Reader"),
        ("_streams.reader", "from headrace import StreamReader"),
        ("_streams.reader", "from headrace import stream"),
        ("errors", "from headrace._core import buffer"),
        ("", "from headrace.testing import memory"),
        ("_duplex.relay", "def function():\n    from headrace.testing import memory"),
    ],
)
def test_an_import_that_goes_up_is_found(module, line):
    """The check itself fails where it should, in whichever way the import is written."""
    assert upward(line, module)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("_streams.reader", "from headrace._transport.operation import Operation"),
        ("_streams.reader", "from . import writer"),
        ("_core.buffer", "from headrace.errors import UpgradeError"),
        ("framing", "from headrace import _duplex"),
        ("cli.doctor", "import headrace._streams"),
        ("cli.doctor", "from headrace import open_connection"),
        ("_core.buffer", "import asyncio"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module, line):
    """The check itself leaves imports of the same floor and of those below alone."""
    assert upward(line, module) == []


def test_it_can_be_imported_where_there_is_no_unix():
    """What only a Unix has is imported where it is used: the package itself can be imported without
    (asyncio imports some of it here)."""
    program = (
        "import asyncio, sys;"
        "sys.modules.update(dict.fromkeys(('fcntl', 'termios', 'resource', 'pwd', 'grp')));"
        "import headrace"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# What importing headrace loads beside asyncio, ssl and what these load: nothing that only some
# programs need.
LOADED = {
    "headrace",
    "headrace._duplex",
    "headrace.errors",
    "headrace.framing",
    "headrace.swap",
    "headrace._core",
    "headrace._transport",
    "headrace._streams",
}


def test_importing_it_loads_what_streams_need_only():
    """`import headrace` costs what streams cost: no server, no race between addresses, no classes
    that are written at run time."""
    program = (
        "import sys, asyncio, ssl; before = set(sys.modules); import headrace;"
        "print(*sorted(set(sys.modules) - before - set(sys.stdlib_module_names)));"
        "print(*sorted((set(sys.modules) - before) & set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    others, standard = (set(line.split()) for line in done.stdout.split("\n")[:2])
    ours = {name for name in others if name.startswith("headrace")}
    assert {".".join(name.split(".")[:2]) for name in ours} == LOADED
    assert {
        name for name in others - ours if not name.lower().lstrip("_").startswith("cython")
    } == set()
    assert not standard & {
        "dataclasses",
        "ipaddress",
        "json",
        "shutil",
        "logging.handlers",
        "multiprocessing",
        "email",
        "http",
        "argparse",
    }


def test_importing_it_loads_what_is_compiled():
    """No compiled module is loaded later: what help() would show of their classes, and what such a
    module would look for, is taken away when `import headrace` is done."""
    program = (
        "import headrace, sys; loaded = set(sys.modules);"
        "from headrace.cli.doctor import inspection;"
        "print({name for name, compiled in inspection.modules().items() if compiled} - loaded)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the pure build is what there is")
@pytest.mark.parametrize(("meant", "told"), [("", 1), ("0", 1), ("1", 0)])
def test_the_pure_build_warns_once(meant, told):
    """On Linux the pure build says once that it is slow and what to do, unless the environment says
    that it is meant."""
    program = (
        "import sys; sys.modules['headrace._transport.native.transport'] = None;"
        "import headrace; from headrace import serve; import headrace.cli"
    )
    environment = {**os.environ, "HEADRACE_NO_EXTENSIONS": meant}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    assert done.stderr.count("RuntimeWarning: headrace runs as pure Python here") == told
    assert done.stderr == "" if not told else done.stderr.startswith("<string>:1: ")
