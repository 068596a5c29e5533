"""Soak tests: hours of hostile peers, and ten thousand connections at once. See ``python -m
tests.system.soak --help``."""
