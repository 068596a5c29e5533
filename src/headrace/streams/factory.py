from headrace._transport.choose import buffered
from .reader import StreamReader
from .protocol import BufferedStreamProtocol, StreamReaderProtocol

MAX = 256*1024
def make(loop, limit, callback=None):
    reader = StreamReader(limit, loop)
    cls = BufferedStreamProtocol if buffered(loop, reader._limit) else StreamReaderProtocol
    protocol = cls(reader, callback, loop)
    protocol._h_private = True
    protocol._h_receive_bytes = min(max(2*reader._limit, 1024), MAX)
    return reader, protocol
