"""What servers do, for Prometheus: a collector over their statistics, and a small HTTP endpoint
that answers scrapes."""

from headrace.metrics._collector import Measured, StatisticsCollector
from headrace.metrics._endpoint import serve_metrics

__all__ = ("Measured", "StatisticsCollector", "serve_metrics")

# Tracebacks, help() and pickle know them by where users find them.
for _each in (Measured, StatisticsCollector, serve_metrics):
    _each.__module__ = __name__
del _each
