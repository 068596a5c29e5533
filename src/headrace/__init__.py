"""asyncio Streams built again: the same names and calls, on whatever event loop is running."""

from headrace.errors import IncompleteReadError, LimitOverrunError, UpgradeError
from headrace.streams.connect import open_connection, open_unix_connection
from headrace.streams.listen import start_server, start_unix_server
from headrace.streams.protocol import FlowControlMixin, StreamReaderProtocol
from headrace.streams.reader import StreamReader
from headrace.streams.server import Server
from headrace.streams.writer import StreamWriter
from headrace.swap import install, uninstall

__all__ = (
    "FlowControlMixin",
    "IncompleteReadError",
    "LimitOverrunError",
    "Server",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "UpgradeError",
    "install",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
    "uninstall",
)
__version__ = "0.1.0"
