"""What the package exports: its names, their signatures as asyncio's documentation prints them, and
its version."""

import ast
import asyncio
import inspect
import pickle
import socket
import ssl
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
from support.api import described

import headrace

ROOT = Path(__file__).parents[2]

# The documentation of asyncio 3.13, word for word; all_errors is create_connection()'s and reaches
# it from open_connection().
SIGNATURES = {
    "open_connection": "host=None, port=None, *, limit=None, ssl=None, family=0, proto=0, flags=0, "
    "sock=None, local_addr=None, "
    "server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, "
    "happy_eyeballs_delay=None, interleave=None, "
    "all_errors=False",
    "start_server": "client_connected_cb, host=None, port=None, *, limit=None, "
    "family=socket.AF_UNSPEC, flags=socket.AI_PASSIVE, "
    "sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, "
    "ssl_handshake_timeout=None, "
    "ssl_shutdown_timeout=None, start_serving=True",
    "open_unix_connection": "path=None, *, limit=None, ssl=None, sock=None, server_hostname=None, "
    "ssl_handshake_timeout=None, "
    "ssl_shutdown_timeout=None",
    "start_unix_server": "client_connected_cb, path=None, *, limit=None, sock=None, backlog=100, "
    "ssl=None, "
    "ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, "
    "cleanup_socket=None",
}
# What we have besides, keywords all of them, and behind asyncio's.
OURS = {
    "open_connection": ["ssl_session", "way"],
    "open_unix_connection": ["ssl_session", "way"],
    "start_server": ["way"],
    "start_unix_server": ["way"],
    "start_tls": ["ssl_session"],
}
METHODS = {
    "StreamReader": {
        "feed_eof": "",
        "read": "n=-1",
        "readline": "",
        "readexactly": "n",
        "readuntil": r"separator=b'\n'",
        "at_eof": "",
    },
    "StreamWriter": {
        "write": "data",
        "writelines": "data",
        "close": "",
        "can_write_eof": "",
        "write_eof": "",
        "get_extra_info": "name, default=None",
        "drain": "",
        "start_tls": "sslcontext, *, server_hostname=None, ssl_handshake_timeout=None, "
        "ssl_shutdown_timeout=None",
        "is_closing": "",
        "wait_closed": "",
    },
    "Server": {
        "get_loop": "",
        "start_serving": "",
        "serve_forever": "",
        "is_serving": "",
        "close": "",
        "wait_closed": "",
        "close_clients": "",
        "abort_clients": "",
    },
}
COROUTINES = {
    *SIGNATURES,
    *(
        "read",
        "readline",
        "readexactly",
        "readuntil",
        "drain",
        "start_tls",
        "wait_closed",
        "start_serving",
        "serve_forever",
    ),
}


def documented(text):
    """Return the parameters of a signature in the documentation: (name, kind, default) each."""
    namespace = {}
    exec(f"def function({text}): pass", {"socket": socket}, namespace)
    return shape(namespace["function"])


def ours(name):
    """Return our own parameters of a function or method."""
    return [(each, inspect.Parameter.KEYWORD_ONLY, None) for each in OURS.get(name, [])]


def shape(function):
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


def test_names():
    """__all__ is a sorted tuple of names that exist, and the package defines no public name
    besides, but for its modules."""
    assert isinstance(headrace.__all__, tuple)
    assert list(headrace.__all__) == sorted(set(headrace.__all__))
    public = {
        name
        for name in dir(headrace)
        if not name.startswith("_") and not inspect.ismodule(getattr(headrace, name))
    }
    assert public == set(headrace.__all__)


def test_the_names_are_those_that_were_agreed():
    """Every public name, where it says that it is, and its signature are as written down, where a
    review sees that they change; support/api.py writes the file."""
    assert described() == (ROOT / "tests/meta/public_api.txt").read_text()


def test_names_that_are_loaded_later():
    """What `import headrace` leaves unloaded is there when it is asked for, in each way: by name,
    by `*`, by pickle, and in dir()."""
    programs = (
        "import headrace; headrace.serve; headrace.serve; assert headrace.serve is "
        "headrace._server.api.serve",
        "import headrace; headrace.metrics.serve_metrics",
        "from headrace import *; serve, Certificates, StreamServer, open_connection",
        "from headrace import metrics, Statistics; metrics.serve_metrics",
        "import headrace; assert set(headrace.__all__) | {'metrics', '__version__', 'install'} <= "
        "set(dir(headrace))",
        "import pickle; assert pickle.loads(b'cheadrace\\nShutdownReport\\n.').__name__ == "
        "'ShutdownReport'",
        "import headrace, inspect; assert {'serve', 'Connection'} <= {name for name, _ in "
        "inspect.getmembers(headrace)}",
        "import headrace\ntry: headrace.nonsense\nexcept AttributeError as error: assert "
        "'nonsense' in str(error)\nelse: assert 0",
    )
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (program, done.returncode, done.stderr) == (program, 0, "")


def test_everything_is_called_by_its_public_name():
    """Tracebacks, help() and pickle say headrace.serve, not where the code is; asyncio's errors
    stay asyncio's. One name that is loaded later brings the others of its module."""
    program = (
        "import headrace, sys; headrace.serve;"
        "made = sys.modules['headrace._server.stream_server'].StreamServer;"
        "print(made.__module__, *sorted({getattr(headrace, name).__module__"
        " for name in headrace.__all__}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["headrace", "asyncio.exceptions", "headrace"]


def test_later_names_are_where_they_say():
    """The names that are loaded later are the ones that type checkers see imported, from the same
    modules."""
    tree = ast.parse((ROOT / "src/headrace/__init__.py").read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module
        for node in block.body
        for alias in node.names
        if node.module != "headrace"
    }
    assert seen == headrace._LATER


def test_names_of_asyncio():
    """Every name that asyncio.streams exports is here under the same name, and its errors are the
    very same classes."""
    assert set(asyncio.streams.__all__) <= set(headrace.__all__)
    assert headrace.IncompleteReadError is asyncio.IncompleteReadError
    assert headrace.LimitOverrunError is asyncio.LimitOverrunError


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions(name):
    """Each function has the documented parameters, in order and with the documented defaults, then
    ours, and is a coroutine function."""
    function = getattr(headrace, name)
    assert shape(function) == documented(SIGNATURES[name]) + ours(name)
    assert inspect.iscoroutinefunction(function)


@pytest.mark.filterwarnings(
    "ignore:'asyncio.iscoroutinefunction' is deprecated"
)  # from Python 3.14 on
@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, methods in METHODS.items() for name in methods]
)
def test_methods(owner, name):
    """Each documented method has the documented parameters, and those that are awaited count as
    coroutine functions."""
    method = getattr(getattr(headrace, owner), name)
    assert shape(method)[1:] == documented(METHODS[owner][name]) + ours(name)
    is_coroutine = (owner != "StreamReader" and name in COROUTINES) or name.startswith("read")
    assert asyncio.iscoroutinefunction(method) == is_coroutine


def test_version():
    """__version__ is the version of the distribution."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert headrace.__version__ == tomllib.load(file)["project"]["version"]


def test_all_is_static():
    """__all__ is written out, for tools that read the source and do not run it."""
    tree = ast.parse((ROOT / "src/headrace/__init__.py").read_text())
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    assert [ast.literal_eval(value) for value in values] == [headrace.__all__]


def test_errors_survive_pickling():
    """UpgradeError says in words what is wrong, and is the same after a pickle."""
    error = headrace.UpgradeError(3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is headrace.UpgradeError
    assert again.plaintext_bytes == 3
    assert str(again) == str(error)
    assert "3 bytes arrived in plain text" in str(error)
    assert isinstance(error, ssl.SSLError)


@pytest.mark.parametrize("name", headrace.__all__)
def test_annotations_can_be_looked_up(name):
    """typing.get_type_hints() finds what each public name's annotations name, and so do the tools
    that build on it."""
    value = getattr(headrace, name)
    typing.get_type_hints(value)
    if inspect.isclass(value):
        for each, method in inspect.getmembers(value, inspect.isfunction):
            if method.__module__.startswith("headrace") and not each.startswith("_"):
                typing.get_type_hints(method)
