from .streams.reader import StreamReader
from .streams.writer import StreamWriter
from .streams.protocol import StreamReaderProtocol, FlowControlMixin
from .streams.connect import open_connection
from .streams.listen import start_server
