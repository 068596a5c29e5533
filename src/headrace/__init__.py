"""asyncio Streams built again: the same names and calls, on whatever event loop is running."""

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from headrace._transport import choose
from headrace.errors import IncompleteReadError, LimitOverrunError, UpgradeError
from headrace.streams.connect import open_connection, open_unix_connection
from headrace.streams.listen import start_server, start_unix_server
from headrace.streams.protocol import FlowControlMixin, StreamReaderProtocol
from headrace.streams.reader import StreamReader
from headrace.streams.server import Server
from headrace.streams.writer import StreamWriter
from headrace.swap import install, uninstall

if TYPE_CHECKING:
    from headrace import server as server
    from headrace.server.certificates import Certificates
    from headrace.server.connection import Connection, Credentials, current_connection
    from headrace.server.proxy import ProxyError, ProxyHeader
    from headrace.server.serve import serve
    from headrace.server.server import StreamServer
    from headrace.server.statistics import Statistics
    from headrace.server.stopping import ShutdownReport
    from headrace.server.systemd import activated_sockets

__all__ = (
    "Certificates",
    "Connection",
    "Credentials",
    "FlowControlMixin",
    "IncompleteReadError",
    "LimitOverrunError",
    "ProxyError",
    "ProxyHeader",
    "Server",
    "ShutdownReport",
    "Statistics",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamServer",
    "StreamWriter",
    "UpgradeError",
    "activated_sockets",
    "current_connection",
    "install",
    "open_connection",
    "open_unix_connection",
    "serve",
    "start_server",
    "start_unix_server",
    "uninstall",
)
__version__ = "0.1.0"

# Who has a compiler, or a wheel, has the compiled build; elsewhere pip falls back in silence. Who means it says so, as when building.
if sys.platform == "linux" and choose.native is None and os.environ.get("HEADRACE_NO_EXTENSIONS", "") in ("", "0"):
    warnings.warn(
        "headrace runs as pure Python here, several times slower than compiled: `headrace doctor` says what to do; "
        "HEADRACE_NO_EXTENSIONS=1 in the environment says that it is meant",
        RuntimeWarning,
        stacklevel=2,
    )

# Loaded when they are first asked for: a program that only uses streams does not pay for the server.
_LATER = {
    "Certificates": "headrace.server.certificates",
    "Connection": "headrace.server.connection",
    "Credentials": "headrace.server.connection",
    "ProxyError": "headrace.server.proxy",
    "ProxyHeader": "headrace.server.proxy",
    "ShutdownReport": "headrace.server.stopping",
    "Statistics": "headrace.server.statistics",
    "StreamServer": "headrace.server.server",
    "activated_sockets": "headrace.server.systemd",
    "current_connection": "headrace.server.connection",
    "serve": "headrace.server.serve",
}


if not TYPE_CHECKING:  # to a checker, every name would exist

    def __getattr__(name: str) -> Any:
        if name == "server":
            return importlib.import_module("headrace.server")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "server"} - {"TYPE_CHECKING", "Any", "choose", "importlib", "os", "sys", "warnings"})
