"""The suites that are run: where each is, what of it meets a loop, what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """The tests of one project, as its source distribution on PyPI has them."""

    project: str
    # Below the source distribution.
    paths: tuple[str, ...]
    # Further arguments of pytest, instead of the project's own: it measures coverage, for one.
    options: tuple[str, ...] = ()
    # Whether its loops are not in debug mode, though it asks for that everywhere.
    never_debug: bool = False
    # Tests, by the beginning of their ids, that cannot pass on another loop than asyncio's own:
    # each with its reason.
    left_out: Mapping[str, str] = field(default_factory=dict)


READ_ONLY = (
    "it puts a write() of its own on the transport, and an object of a compiled class takes no "
    "such attribute, as uvloop's do not"
)

SUITES = {
    suite.project: suite
    for suite in (
        Suite(
            project="uvloop",
            paths=("tests",),
            # The halves that are about asyncio's loop: the others are about uvloop.
            options=("-k", "AIO", "-p", "no:asyncio"),
        ),
        Suite(
            project="aiohttp",
            # The others are about parsers, routes and the like, or import each module.
            paths=(
                "tests/test_client_connection.py",
                "tests/test_client_functional.py",
                "tests/test_client_middleware_digest_auth.py",
                "tests/test_client_proto.py",
                "tests/test_client_session.py",
                "tests/test_client_ws_functional.py",
                "tests/test_connector.py",
                "tests/test_leaks.py",
                "tests/test_loop.py",
                "tests/test_proxy_functional.py",
                "tests/test_resolver.py",
                "tests/test_run_app.py",
                "tests/test_tcp_helpers.py",
                "tests/test_test_utils.py",
                "tests/test_web_functional.py",
                "tests/test_web_protocol.py",
                "tests/test_web_request_handler.py",
                "tests/test_web_runner.py",
                "tests/test_web_sendfile_functional.py",
                "tests/test_web_server.py",
                "tests/test_web_urldispatcher.py",
                "tests/test_web_websocket_functional.py",
            ),
            options=(
                *("-o", "addopts=", "-m", "not dev_mode and not autobahn and not internal"),
                *("-k", "not uvloop and not benchmarks"),
                *("-p", "no:asyncio"),
            ),
            left_out={
                f"tests/test_{where}_functional.py::test_heartbeat_connection_closed[": READ_ONLY
                for where in ("client_ws", "web_websocket")
            },
        ),
        Suite(
            project="anyio",
            # The others are about locks, files, threads, and its plugin for pytest.
            paths=(
                "tests/streams",
                "tests/test_debugging.py",
                "tests/test_eventloop.py",
                "tests/test_from_thread.py",
                "tests/test_signals.py",
                "tests/test_sockets.py",
                "tests/test_subprocesses.py",
                "tests/test_taskgroups.py",
            ),
            options=("-k", "not uvloop and not trio"),
            never_debug=True,
        ),
    )
}
