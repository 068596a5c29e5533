"""asyncio Streams built again: the same names and calls, on whatever event loop is running."""

from headrace.errors import IncompleteReadError, LimitOverrunError, UpgradeError
from headrace.server.certificates import Certificates
from headrace.server.connection import Connection, Credentials, current_connection
from headrace.server.proxy import ProxyError, ProxyHeader
from headrace.server.serve import serve
from headrace.server.server import StreamServer
from headrace.server.statistics import Statistics
from headrace.server.stopping import ShutdownReport
from headrace.server.systemd import activated_sockets
from headrace.streams.connect import open_connection, open_unix_connection
from headrace.streams.listen import start_server, start_unix_server
from headrace.streams.protocol import FlowControlMixin, StreamReaderProtocol
from headrace.streams.reader import StreamReader
from headrace.streams.server import Server
from headrace.streams.writer import StreamWriter
from headrace.swap import install, uninstall

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
