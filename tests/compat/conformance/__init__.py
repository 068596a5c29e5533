"""CPython's installed asyncio suites, run against headrace with asyncio's names swapped."""
