import asyncio
from .factory import make
from .writer import StreamWriter
async def open_connection(host=None, port=None, *, limit=None, **kw):
    loop = asyncio.get_running_loop()
    reader, protocol = make(loop, limit)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kw)
    return reader, StreamWriter(transport, protocol, reader, loop)
