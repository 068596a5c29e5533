"""How fast headrace is, beside its peers: run ``python -m benchmarks --help``.

This package is not installed with headrace. What runs inside a measured server
(``servers`` and what it imports) stays free of third-party imports other than the peer
itself, so that every server starts from the same small process.
"""
