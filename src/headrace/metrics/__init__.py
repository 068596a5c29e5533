"""What servers do, for Prometheus: a collector over their statistics, and a small HTTP endpoint
that answers scrapes."""

from headrace._core.publish import publish
from headrace.metrics._collector import Measured, StatisticsCollector
from headrace.metrics._endpoint import serve_metrics

__all__ = ("Measured", "StatisticsCollector", "serve_metrics")

for _each in (Measured, StatisticsCollector, serve_metrics):
    publish(_each, __name__)
del _each
