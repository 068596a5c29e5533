"""What every test shares: which streams, on which loop, and the checks that follow each test.

``streams`` is asyncio's own streams first, then headrace's. So a behaviour test shows that the
behaviour is asyncio's before it shows that it is ours. ``run`` runs a coroutine on every kind of
loop. A test fails if the loop's exception handler is called unexpectedly, if a descriptor is left
open, or on any warning (see pyproject.toml).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support import (
    properties,  # noqa: F401 (it registers a profile, which the command line may name)
)
from support.certificates import tls  # noqa: F401 (a fixture)

# If the build is pure Python, that is on purpose: this process and those that tests start give no
# warning.
os.environ.setdefault("HEADRACE_NO_EXTENSIONS", "1")

import headrace
from headrace._core.stock import StockStreamReader, StockStreamWriter
from headrace._transport import backend
from headrace.cli import doctor

if backend.native is not None:
    from headrace._transport.native import states

    states.enforce(True)  # a transition that cannot happen is an error

try:
    import uvloop
except ImportError:  # the loop is optional, and so are its tests
    uvloop = None

LOOP_KINDS = [
    "asyncio",
    "debug",
    *(["eager"] if sys.version_info >= (3, 12) else []),
    *(["uvloop"] if uvloop else []),
]
# headrace's ways to a socket here: each test of its streams runs on each.
WAYS = ["native", "portable"] if backend.native is not None else ["portable"]
TIMEOUT_S = 20.0
# Slow, and about the system or the command: beside those of tests/system/faults.
SLOW = ("test_soak.py", "test_production.py", "test_serve_workers_faults.py", "test_cli_connect.py")

STOCK = types.SimpleNamespace(
    name="stock",
    StreamReader=StockStreamReader,
    StreamWriter=StockStreamWriter,
    StreamReaderProtocol=asyncio.streams.StreamReaderProtocol,
    FlowControlMixin=asyncio.streams.FlowControlMixin,
    open_connection=asyncio.open_connection,
    start_server=asyncio.start_server,
    open_unix_connection=asyncio.open_unix_connection,
    start_unix_server=asyncio.start_unix_server,
)
OURS = types.SimpleNamespace(**{name: getattr(headrace, name, None) for name in vars(STOCK)})
OURS.name = "headrace"


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test another build than the one that HEADRACE_EXPECT_BUILD (compiled or pure)
    names."""
    expected = os.environ.get("HEADRACE_EXPECT_BUILD")
    if expected and doctor.build() != expected:
        raise pytest.UsageError(
            f"the {expected} build was to be tested, and {headrace.__file__} is {doctor.build()}"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that noxfile.py does not run everywhere: slow ones about the system, and those
    on asyncio's own streams or in debug mode. Leave out what others run.

    The pure build has only the portable way, and runs it on every kind of loop. The other build
    runs it on the two most different ones."""
    if "native" in WAYS:
        items[:] = [item for item in items if not is_left_to_the_pure_build(item)]
    for item in items:
        if "faults" in item.path.parts or item.path.name in SLOW:
            item.add_marker("slow")
        if "stock" in parameters(item).values():
            item.add_marker("stock")
        if "debug" in parameters(item).values():
            item.add_marker("debug")


def pytest_collection_finish() -> None:
    """Keep the objects from before the first test out of every later collection. Each test ends
    with one, and they took half the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Let the collector see again what it was kept from: hypothesis, which may be imported last of
    all, asks it who refers to an object."""
    gc.unfreeze()


def parameters(item: pytest.Item) -> dict[str, object]:
    """Return what *item* is one variant with: the values of its parameters, and of its
    fixtures'."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def is_left_to_the_pure_build(item: pytest.Item) -> bool:
    """Tell whether *item* is about the portable way on a variant of asyncio's loop."""
    given = parameters(item)
    return "portable" in (given.get("streams"), given.get("ours")) and given.get("loop_kind") in (
        "debug",
        "eager",
    )


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Return a new loop of *kind*, one of LOOP_KINDS."""
    if kind == "uvloop":
        return uvloop.new_event_loop()
    loop = asyncio.SelectorEventLoop()
    if kind == "debug":
        loop.set_debug(True)
    elif kind == "eager":
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


class Run:
    """Runs coroutines on one kind of loop, a fresh loop each; ``errors`` collects what the loop's
    exception handler was told."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.errors: list[dict[str, Any]] = []
        self.errors_expected = False

    def __call__(
        self, main: Callable[[], Awaitable[Any]] | Awaitable[Any], timeout_s: float = TIMEOUT_S
    ) -> Any:
        async def bounded() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: self.errors.append(context))
            async with asyncio.timeout(timeout_s):
                return await (main() if callable(main) else main)

        with asyncio.Runner(
            loop_factory=lambda: new_loop(self.kind), debug=True if self.kind == "debug" else None
        ) as runner:
            return runner.run(bounded())

    def expect_errors(self) -> list[dict[str, Any]]:
        """Say that this test provokes calls of the exception handler; return the list they go
        to."""
        self.errors_expected = True
        return self.errors


@pytest.fixture(params=LOOP_KINDS)
def loop_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _libuv_opens_its_signal_pipe() -> None:
    """libuv opens one pipe for the life of the process with its first loop: no leak of the test
    that happens to be first."""
    if uvloop is not None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.sleep(0))


def shows_a_defect(item: pytest.Item) -> pytest.Mark | None:
    """Return the mark ``defect("gh-…")`` where *item* runs on asyncio's streams, which may then
    fail."""
    return item.get_closest_marker("defect") if parameters(item).get("streams") == "stock" else None


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Silence warnings of what is unclosed, unawaited or unraisable inside the block, or is
    collected at its end."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let a test that shows a defect fail on asyncio's streams, unheard.

    The test is called here, as pytest does it: in a wrapper of that call the exception, and so what
    failed, would still be held.
    """
    mark = shows_a_defect(pyfuncitem)
    if mark is None:
        return None
    failed = False
    with unheard():
        try:
            pyfuncitem.obj(
                **{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
            )
        except (Exception, asyncio.CancelledError, pytest.fail.Exception):
            failed = True
    if failed:
        pytest.xfail(f"defect of asyncio: {mark.args[0]}")
    return True


@pytest.fixture
def run(loop_kind: str, request: pytest.FixtureRequest) -> Iterator[Run]:
    runner = Run(loop_kind)
    before = open_descriptors()
    yield runner
    if shows_a_defect(request.node):
        with unheard():
            runner.errors.clear()
        return
    gc.collect()
    left = open_descriptors() - before
    assert not left, f"descriptors left open: {left}"
    if not runner.errors_expected:
        assert runner.errors == []


@pytest.fixture(params=["stock", *WAYS])
def streams(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> types.SimpleNamespace:
    """asyncio's streams, then ours, each way. A test marked ``defect("gh-…")`` shows a defect of
    asyncio's: there it may fail."""
    if request.param == "stock":
        return STOCK
    monkeypatch.setenv(backend.VARIABLE, request.param)
    return OURS


@pytest.fixture(params=WAYS)
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """headrace's streams, each way, for what asyncio does not have."""
    monkeypatch.setenv(backend.VARIABLE, request.param)
    return OURS


@pytest.fixture(params=[kind for kind in ("asyncio", "uvloop") if kind in LOOP_KINDS])
def run_on(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Run a coroutine that starts processes on a loop of one kind: with more patience than ``run``
    has, and without its checks."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=lambda: new_loop(request.param)) as runner:
            return runner.run(asyncio.wait_for(main(), 60))

    return run


@pytest.fixture(params=["native", "portable"])
def way(request: pytest.FixtureRequest) -> str:
    """Each way to the socket that there is, as an argument of connect() and the like."""
    if request.param not in WAYS:
        pytest.skip("the pure-Python build has the portable way only")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Our streams, which take the native way."""
    monkeypatch.setenv(backend.VARIABLE, "native")
    return OURS


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of loopback on which nobody listens, and that is taken: a client that the system gave
    the same port would reach itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def open_descriptors() -> set[str]:
    """Return what this process has open, as 'number -> target'."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:  # the descriptor of the listing itself
            continue
    return found
