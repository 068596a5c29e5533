"""asyncio's own classes, taken once at import: after headrace.install() their names in asyncio mean
ours."""

from asyncio.streams import StreamReader as StockStreamReader
from asyncio.streams import StreamWriter as StockStreamWriter

__all__ = ("StockStreamReader", "StockStreamWriter")
