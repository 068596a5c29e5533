"""Private names stay where they are: no module reads an attribute with an underscore of an object
whose class stands in another module, but for those below, each with its reason.

    python tests/meta/test_private_names.py     what is read from outside, and how often
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "headrace"
PATHS = sorted(path for end in ("py", "pyx") for path in SOURCE.rglob(f"*.{end}"))

# Private names of Python's own that headrace has to know: why there is no other way.
PYTHON = {
    "_SendfileMode": "how a transport says to loop.sendfile() that it does it itself",
    "_asyncio_awaited_by": "asyncio's call graph, from Python 3.14 on, reads and sets it",
    "_asyncio_future_blocking": "how a task knows that what it was given is a future (PEP 3156)",
    "_callbacks": "whether a task is all that waits for a future, which no method says",
    "_get_running_loop": "asyncio documents it as internal, and for those who write event loops",
    "_getframe": "the depth of the stack, which no other call says as cheaply",
    "_is_coroutine": "the mark of coroutine functions before Python 3.12",
    "_ssl_protocol": "what asyncio's TLS has encrypted waits in a transport that only it knows",
    "_sslobj": "a certificate that was not verified is decoded by nothing else",
}
# asyncio's private names on its stream classes: programs subclass those and override them, and
# asyncio itself calls them across its classes. headrace's classes have them to be taken for
# asyncio's, so its modules call them across classes as well, as asyncio's do.
ASYNCIO = {
    "_buffer": "a reader that is not ours has no other way to say what it holds",
    "_client_connected_cb": "set on a protocol that comes from a program's own factory",
    "_connection_lost": "whether the flow control of a connection has ended",
    "_drain_helper": "drain() of a program's own FlowControlMixin is what has to be called",
    "_eof": "as _buffer",
    "_exception": "a writer tells what broke the reader's connection",
    "_get_close_waiter": "wait_closed() asks the protocol, which a program may have written",
    "_limit": "a read compares what is there with its reader's limit",
    "_loop": "a transport that is not ours has no other way to say its loop",
    "_maybe_resume_transport": "a read that drops bytes makes room, as any other does",
    "_over_ssl": "start_tls() sets it, as asyncio's does: half-close depends on it",
    "_paused": "a reader that was paused before start_tls() has to be so after it",
    "_protocol": "the protocol that a writer was made with",
    "_replace_transport": "start_tls() tells the protocol of its new transport",
    "_transport": "whether a protocol is connected",
    "_wait_for_data": "waits without taking anything, on a reader of any class",
}
# headrace's own, by file: each is a pair of modules that should be one, or has a reason.
OURS = {
    "_transport/opslots.pyx": {"_advance": "the C slots of Operation's type, which call it"},
}
# headrace's own, by folder: how many are left there. Lower the number when there are fewer.
LEFT: dict[str, int] = {}


class Access(NamedTuple):
    """Where an attribute with an underscore is read or set."""

    file: str
    line: int
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.owner}.{self.name}"


def is_private(name: str) -> bool:
    """Tell whether *name* has a leading underscore and is no special name of Python's."""
    return name.startswith("_") and not name.endswith("__") and name != "_"


def bare(text: str) -> str:
    """Return *text*, of a Cython file, without comments and strings; its lines stay."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r'"""[\s\S]*?"""', blank, text)
    return re.sub(r"""#.*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", "", text)


def defined(path: Path) -> set[str]:
    """Return the private names that the module at *path* defines, in its classes too; its ``.pxd``
    counts."""
    found: set[str] = set()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found.add(node.name)
                case ast.Name(ctx=ast.Store()):
                    found.add(node.id)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                    found.add(node.attr)
    for each in {path, path.with_suffix(".pxd")}:
        if each.suffix != ".py" and each.exists():
            text = bare(each.read_text())
            for line in re.findall(
                r"^ *(?:cdef|cpdef|def|class|public|readonly)\b.*", text, re.MULTILINE
            ):
                found |= set(re.findall(r"\b_\w+", line))
            found |= set(re.findall(r"\bself\.(_\w+) = ", text))
            # The fields of a block of declarations.
            found |= set(re.findall(r"^ +[\w.]+ \*?(_\w+)$", text, re.MULTILINE))
    return set(filter(is_private, found))


def accessed(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield every private attribute that the module at *path* reads or sets on something else than
    self, cls and super(): (line, of what, name)."""
    if path.suffix != ".py":
        for number, line in enumerate(bare(path.read_text()).splitlines(), 1):
            if not re.match(r"\s*(from|import|cimport)\b", line):
                for owner, name in re.findall(r"(\w+|\)|\])\.(_\w+)", line):
                    if is_private(name) and owner not in ("self", "cls"):
                        yield number, owner, name
        return
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=owner, attr=name):
                pass
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[owner, ast.Constant(value=str(name)), *_],
            ):
                pass
            case ast.ImportFrom():
                for alias in node.names:
                    if is_private(alias.name) and not is_module(node, alias.name):
                        yield node.lineno, f"{node.module}", alias.name
                continue
            case _:
                continue
        match owner:
            case ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")):
                continue
        if is_private(name):
            yield node.lineno, ast.unparse(owner), name


def is_module(node: ast.ImportFrom, name: str) -> bool:
    """Tell whether *name* of *node* is a module of headrace, not a name in one."""
    folder = SOURCE.joinpath(*(node.module or "").split(".")[1:])
    return (folder / name).is_dir() or bool(list(folder.glob(f"{name}.py*")))


def outside() -> list[Access]:
    """Return every private name that is read or set outside the module that defines it, but for
    those that start with _h_: see test_where_names_with_h_are."""
    found = []
    for path in PATHS:
        ours = defined(path)
        file = path.relative_to(SOURCE).as_posix()
        found += [
            Access(file, line, owner, name)
            for line, owner, name in accessed(path)
            if name not in ours and not name.startswith("_h_")
        ]
    return found


def left() -> list[Access]:
    """Return those that are neither Python's nor asyncio's, nor have a reason."""
    return [
        each
        for each in outside()
        if each.name not in PYTHON | ASYNCIO and each.name not in OURS.get(each.file, {})
    ]


def package(access: Access) -> str:
    """Return the first folder of the file of *access*."""
    return access.file.partition("/")[0]


def test_private_names_stay_inside():
    """A module reads its own private names only; where some are still read from outside, they get
    fewer."""
    counts = Counter(map(package, left()))
    more = {name for name, count in counts.items() if count > LEFT.get(name, 0)}
    listed = "\n".join(str(each) for each in left() if package(each) in more)
    assert not more, f"{dict(counts)}, where there may be {LEFT}:\n{listed}"


def test_no_exception_is_forgotten():
    """What the tables above allow is still there."""
    names = {each.name for each in outside()}
    assert names >= (PYTHON | ASYNCIO).keys()
    for file, allowed in OURS.items():
        assert {each.name for each in outside() if each.file == file} >= allowed.keys()


# Users subclass these, and set attributes on their objects: what headrace adds there must not meet
# their names, so it starts with _h_. Their bases' names do, too.
SUBCLASSED = (
    "FlowControlMixin",
    "Stream",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
)
# Other classes with such names, and why.
ALSO = {
    "BaseCodec": "users subclass framing.Codec, whose base it is; so are those of our codecs",
    "DelimitedCodec": "BaseCodec's",
    "FixedCodec": "BaseCodec's",
    "JSONCodec": "BaseCodec's",
    "LengthCodec": "BaseCodec's",
    "LineCodec": "BaseCodec's",
    "NetstringCodec": "BaseCodec's",
    "VarintCodec": "BaseCodec's",
    "ForeignWrites": "what operations work on has these methods, and readers are such: Waitable's",
    "Outgoing": "Waitable's",
    "Server": "its base is asyncio's Server, whose private names these must not meet",
    "Writes": "Waitable's",
}


# A line that gives a class such a name: a method, a field of Cython's, or one that is set.
GIVES_H = re.compile(
    r"    (?:cdef|cpdef|public|readonly) [^=]*?(?P<field>_h_\w+)"
    r"| +(?:async )?def (?P<method>_h_\w+)"
    r"| +self\.(?P<set>_h_\w+) ="
)


def having_h() -> dict[str, set[str]]:
    """Return the names that start with _h_, by the class that defines them."""
    found: dict[str, set[str]] = {}
    for path in [*PATHS, *SOURCE.rglob("*.pxd")]:
        owner = ""
        for line in bare(path.read_text()).splitlines():
            if made := re.match(r"(?:cdef )?class (\w+)", line):
                owner = made[1]
            elif re.match(r"\w", line):
                owner = ""
            elif (given := GIVES_H.match(line)) and given.lastgroup:
                found.setdefault(owner, set()).add(given[given.lastgroup])
    return found


def test_where_names_with_h_are():
    """Names start with _h_ on classes that users subclass, and on the bases of those; nowhere
    else."""
    import headrace

    bases = {base.__name__ for name in SUBCLASSED for base in getattr(headrace, name).__mro__}
    found = having_h()
    assert found["ReadHalf"] >= {"_h_waiter", "_h_after_feed", "_h_bytes"}
    others = {owner: sorted(names) for owner, names in found.items() if owner not in bases}
    assert others.keys() == ALSO.keys(), others


@pytest.mark.parametrize(
    ("suffix", "text", "names"),
    [
        (".py", "other._name = 1", ["_name"]),
        (".py", "print(a.b._name.c)", ["_name"]),
        (".py", "getattr(other, '_name', None)", ["_name"]),
        (".py", "self._name.x; cls._name; super()._name; a.__dict__; a.name_", []),
        (".py", "from headrace._server.server import _name", ["_name"]),
        (".py", "from headrace import _server", []),
        (".pyx", "x = (<Thing>other)._name  # self.other._name", ["_name"]),
        (".pyx", "self._name = '''a''' + \"b._name\"", []),
        (".pyx", "from headrace._core.buffer cimport ReadBuffer", []),
    ],
)
def test_an_access_is_found(tmp_path, suffix, text, names):
    """The check itself sees an access however it is written, and nothing else."""
    path = tmp_path / f"module{suffix}"
    path.write_text(text)
    assert [name for _, _, name in accessed(path)] == names


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".py", "def _name(): pass"),
        (".py", "class A:\n    def f(self): self._name = 1"),
        (".py", "class A:\n    _name: int = 1"),
        (".pyx", "cdef class A:\n    cdef object _name"),
        (".pyx", "cdef class A:\n    cdef inline int _name(self) except -1:\n        pass"),
    ],
)
def test_a_definition_is_found(tmp_path, suffix, text):
    """The check itself sees what a module defines, in its classes too."""
    path = tmp_path / f"module{suffix}"
    path.write_text(text)
    assert defined(path) == {"_name"}


if __name__ == "__main__":
    print(*left(), dict(Counter(map(package, left()))), sep="\n")
