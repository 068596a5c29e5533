"""How fast headrace is, beside its peers: run ``python -m benchmarks --help``.

This package is not installed with headrace. A measured server (``servers`` and its imports) imports
no third-party package but the peer itself. So every server starts from the same small process.
"""
