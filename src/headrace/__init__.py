"""asyncio Streams built again: the same names and calls, on whatever event loop is running."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from headrace import framing as framing
from headrace._core.publish import publish
from headrace._duplex import passing as _passing  # noqa: F401 (compiled: see publish())
from headrace._duplex.facts import Credentials, StreamStatistics, TCPInfo, TLSInfo
from headrace._duplex.framed import Framed
from headrace._duplex.gone import PeerGone
from headrace._duplex.stream import Stream
from headrace._streams.asyncio_server import Server
from headrace._streams.connect import open_connection, open_unix_connection
from headrace._streams.reader import StreamReader
from headrace._streams.reader_protocol import FlowControlMixin, StreamReaderProtocol
from headrace._streams.start_server import start_server, start_unix_server
from headrace._streams.writer import StreamWriter
from headrace._transport import backend
from headrace.errors import (
    BadFrame,
    ConnectTimeout,
    DeadlineExceeded,
    EndOfStream,
    FrameTooLarge,
    IncompleteFrame,
    IncompleteReadError,
    LimitOverrunError,
    ReadTimeout,
    StreamTimeout,
    UpgradeError,
    WriteTimeout,
)
from headrace.swap import install, uninstall

if TYPE_CHECKING:
    from headrace import metrics as metrics
    from headrace._duplex.connect import connect
    from headrace._duplex.relay import RelayResult, relay
    from headrace._duplex.trace import Trace, Traced
    from headrace._server.api import serve
    from headrace._server.certificates import Certificates
    from headrace._server.connection import Connection, current_connection
    from headrace._server.process.systemd import activated_sockets
    from headrace._server.proxy import ProxyError, ProxyHeader, ProxySSL, ProxySSLFlags
    from headrace._server.shutdown import ShutdownReport
    from headrace._server.statistics import Statistics
    from headrace._server.stream_server import StreamServer

__all__ = (
    "BadFrame",
    "Certificates",
    "ConnectTimeout",
    "Connection",
    "Credentials",
    "DeadlineExceeded",
    "EndOfStream",
    "FlowControlMixin",
    "FrameTooLarge",
    "Framed",
    "IncompleteFrame",
    "IncompleteReadError",
    "LimitOverrunError",
    "PeerGone",
    "ProxyError",
    "ProxyHeader",
    "ProxySSL",
    "ProxySSLFlags",
    "ReadTimeout",
    "RelayResult",
    "Server",
    "ShutdownReport",
    "Statistics",
    "Stream",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamServer",
    "StreamStatistics",
    "StreamTimeout",
    "StreamWriter",
    "TCPInfo",
    "TLSInfo",
    "Trace",
    "Traced",
    "UpgradeError",
    "WriteTimeout",
    "activated_sockets",
    "connect",
    "current_connection",
    "install",
    "open_connection",
    "open_unix_connection",
    "relay",
    "serve",
    "start_server",
    "start_unix_server",
    "uninstall",
)
__version__ = "0.1.0"

# Who has a compiler, or a wheel, has the compiled build; elsewhere pip falls back in silence. Who
# means it says so, as when building.
if (
    sys.platform == "linux"
    and backend.native is None
    and os.environ.get("HEADRACE_NO_EXTENSIONS", "") in ("", "0")
):
    warnings.warn(
        "headrace runs as pure Python here, several times slower than compiled: `headrace doctor` "
        "says what to do; "
        "HEADRACE_NO_EXTENSIONS=1 in the environment says that it is meant",
        RuntimeWarning,
        stacklevel=2,
    )

# Loaded when they are first asked for: a program that only uses streams does not pay for the
# server.
_LATER = {
    "Certificates": "headrace._server.certificates",
    "Connection": "headrace._server.connection",
    "RelayResult": "headrace._duplex.relay",
    "relay": "headrace._duplex.relay",
    "ProxyError": "headrace._server.proxy",
    "ProxyHeader": "headrace._server.proxy",
    "ProxySSL": "headrace._server.proxy",
    "ProxySSLFlags": "headrace._server.proxy",
    "ShutdownReport": "headrace._server.shutdown",
    "Statistics": "headrace._server.statistics",
    "StreamServer": "headrace._server.stream_server",
    "Trace": "headrace._duplex.trace",
    "Traced": "headrace._duplex.trace",
    "activated_sockets": "headrace._server.process.systemd",
    "connect": "headrace._duplex.connect",
    "current_connection": "headrace._server.connection",
    "serve": "headrace._server.api",
}


def _publish(names: Iterable[str], find: Callable[[str], Any], module: str = __name__) -> None:
    """Publish what *find* finds of *names* as of *module*, a class before those that inherit from
    it."""
    found = [value for value in map(find, names) if value is not None]
    for value in sorted(found, key=lambda each: len(getattr(each, "__mro__", ()))):
        publish(value, module)


# Asked of the module: globals() has stand-ins where Python imports lazily (PEP 810).
_publish(set(__all__) - set(_LATER), lambda each: getattr(sys.modules[__name__], each))
_publish(framing.__all__, lambda each: getattr(framing, each), framing.__name__)


if not TYPE_CHECKING:  # to a checker, every name would exist

    def __getattr__(name: str) -> Any:
        if name == "metrics":
            return importlib.import_module("headrace.metrics")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
        # With it came others, which users may meet before they ask for them by name.
        _publish(_LATER, lambda each: getattr(sys.modules.get(_LATER[each]), each, None))
        return value


# What this file itself imports.
_HIDDEN = {"TYPE_CHECKING", "Any", "Callable", "Iterable", "backend"}
_HIDDEN |= {"importlib", "os", "publish", "sys", "warnings"}


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "metrics"} - _HIDDEN)
