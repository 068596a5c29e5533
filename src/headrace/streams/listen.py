import asyncio
from .factory import make
async def start_server(cb, host=None, port=None, *, limit=None, **kw):
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: make(loop, limit, cb)[1], host, port, **kw)
