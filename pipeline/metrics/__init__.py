"""Prometheus metrics: an Observer that keeps them, a server that shows them, their description.

The only importer of prometheus_client. The law: retl_rows_read_total = sum(retl_rows_total) +
retl_rows_in_flight, per sync and destination. A run that says it is complete leaves nothing in
flight; a row that it lost shows as a difference from then on.
"""

from __future__ import annotations

from pipeline.metrics.observer import PrometheusObserver
from pipeline.metrics.server import MetricsServer, serve
from pipeline.metrics.table import METRICS, Described

__all__ = ["METRICS", "Described", "MetricsServer", "PrometheusObserver", "serve"]
