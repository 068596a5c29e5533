"""What help() and the docstrings of the public names say: nothing that is private, and all that a
caller has to know."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Iterator

import pytest
from support.api import MADE_BY_US, is_coroutine_function, members

import headrace
from headrace import framing, metrics

PUBLIC = [(module, name) for module in (headrace, framing, metrics) for name in module.__all__]
PRIVATE = re.compile(
    r"headrace\._\w+|__pyx\w*|__\w+_cython__|\b_h_\w+|\bSource\b(?!:)|\bReceiver\b"
)


def shown(module: object, name: str) -> str:
    """Return the text that help() shows of a public name, without what it cannot but show: which
    bases a class has, and the special methods that it has from them."""
    text = pydoc.plain(pydoc.render_doc(getattr(module, name)))
    text = re.sub(r"^class \w+\(.*\)$", "", text, flags=re.MULTILINE)
    text = re.sub(
        r"^ \|  Method resolution order:\n(?: \|      .*\n)*", "", text, flags=re.MULTILINE
    )
    sections = re.split(r"^ \|  -{10,}\n", text, flags=re.MULTILINE)
    return "".join(each for each in sections if not is_of_a_base(each))


def is_of_a_base(section: str) -> bool:
    """Tell whether *section* has only special names, of a private base: as attributes of the class
    itself they would make a read dearer."""
    entries = re.findall(r"^ \|  (\w+)(?:$|\(| =)", section, re.MULTILINE)
    special = [each for each in entries if re.fullmatch(r"__(?!pyx)\w+__", each)]
    return "inherited from headrace._" in section and special == entries


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_help_shows_nothing_private(module, name):
    """help() of a public name shows no private module or class, and nothing of Cython's."""
    text = shown(module, name)
    assert PRIVATE.findall(text) == [], text


@pytest.mark.parametrize("name", ["StreamReader", "StreamWriter", "StreamReaderProtocol"])
def test_help_lists_the_methods_as_its_own(name):
    """The methods that a stream class has from private bases are its own in help()."""
    text = shown(headrace, name)
    methods = {"StreamReader": "readuntil", "StreamWriter": "drain"}
    own = text.partition("inherited from")[0]
    assert f" |  {methods.get(name, 'data_received')}(" in own.replace("async ", "")


def test_publishing_changes_no_lookup():
    """What a class has from a private base by publishing is the very member of the first base that
    defines it."""
    for name in ("StreamReader", "StreamWriter", "StreamReaderProtocol", "FlowControlMixin"):
        cls = getattr(headrace, name)
        bases = [base for base in cls.__mro__ if base.__module__.startswith("headrace._")]
        lent = [each for each in vars(cls) if any(each in vars(base) for base in bases)]
        assert len([each for each in lent if not each.startswith("_")]) >= 3
        for each in lent:
            first = next(base for base in cls.__mro__[1:] if each in vars(base))
            if not each.startswith("_") and first in bases:
                assert vars(cls)[each] is vars(first)[each]


# Parameters that no docstring of ours names, and why.
ELSEWHERE = {
    "ConnectTimeout": "StreamTimeout's, and the phase",
    "Credentials": "SO_PEERCRED of Linux names its fields so",
    "DeadlineExceeded": "StreamTimeout's",
    "PeerGone": "enum.Enum's",
    "ProxySSLFlags": "the bits; enum.Flag's",
    "ReadTimeout": "StreamTimeout's",
    "StreamStatistics": "said of each field in a comment, as of Statistics",
    "Statistics": "said of each field in a comment: they are read, and never given by a user",
    "StreamReaderProtocol.connection_lost": "asyncio.Protocol's",
    "StreamReaderProtocol.connection_made": "asyncio.Protocol's",
    "StreamReaderProtocol.get_buffer": "asyncio.BufferedProtocol's",
    "StreamWriter": "asyncio's, for subclasses: the functions of headrace make writers",
    "TCPInfo": "said of each field in a comment, as of Statistics",
    "TLSInfo": "said of each field in a comment, as of Statistics",
    "WriteTimeout": "StreamTimeout's",
}


def documented() -> Iterator[tuple[str, object]]:
    """Yield every public function, class and method of headrace's: (name, it)."""
    for module, name in PUBLIC:
        value = getattr(module, name)
        if value.__module__ != module.__name__:
            continue
        yield name, value
        if inspect.isclass(value):
            for each, member in members(value):
                if callable(member):
                    yield f"{name}.{each}", member


DOCUMENTED = dict(documented())


def said(name: str) -> str:
    """Return the docstring of a public name; that of the function it refers to is a part of it."""
    text = inspect.getdoc(DOCUMENTED[name]) or ""
    others = [other for other in re.findall(r"as for (\w+)\(\)", text) if other in DOCUMENTED]
    return text + "".join(inspect.getdoc(DOCUMENTED[other]) or "" for other in others)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_docstring_says_what_the_arguments_are(name):
    """Every public callable has a docstring, which names every parameter."""
    assert said(name)
    if name in MADE_BY_US:
        return
    try:
        given = inspect.signature(DOCUMENTED[name]).parameters
    except ValueError:  # of a class of Python's own
        return
    missing = {
        each
        for each in given
        if each not in ("self", "loop") and not re.search(rf"\b{each}\b", said(name))
    }
    assert bool(missing) == (name in ELSEWHERE), missing


@pytest.mark.parametrize(
    "name", [name for name, value in DOCUMENTED.items() if is_coroutine_function(value)]
)
def test_the_docstring_says_how_it_ends(name):
    """Every public coroutine function says what it raises, and what a cancellation does."""
    text = said(name)
    assert "Raises:" in text and "Cancellation:" in text, text
