"""What a server must stand in production, tried on real processes: ``python -m
tests.system.production --help``."""
