"""Counts what the engine tells. Knows events only: no engine, no config.

Labels are names of the configuration or come from a bounded vocabulary; a run's id, a row's
content or a message can't become one. The registry is the observer's own, never the global one,
and a scrape sees all of an event or nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from pipeline.events import (
    Attempted,
    Buffered,
    Committed,
    Encoded,
    Event,
    Finished,
    Limited,
    Restarted,
    Retried,
    Settled,
    Spooled,
    Started,
    Throttled,
)
from pipeline.metrics.series import Registry, Series
from pipeline.metrics.table import METRICS, ROUTE
from pipeline.model import Result


class PrometheusObserver:
    """An `Observer`: under 10 microseconds an event, some milliseconds while a scrape collects."""

    def __init__(self, version: str | None = None) -> None:
        self._lock = threading.Lock()
        self.registry: CollectorRegistry = Registry(self._lock)
        self._series = {each.name: Series(each, self.registry) for each in METRICS}
        self._in_flight: dict[tuple[str, str], int] = {}
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            Started: self._started,
            Encoded: self._encoded,
            Attempted: self._attempted,
            Retried: self._retried,
            Throttled: self._throttled,
            Limited: self._limited,
            Settled: self._settled,
            Spooled: self._spooled,
            Buffered: self._buffered,
            Committed: self._committed,
            Restarted: self._restarted,
            Finished: self._finished,
        }
        ProcessCollector(registry=self.registry)  # memory and CPU: flat memory is a promise
        self._of("build_info", version or _version()).set(1)

    def __call__(self, event: Event, /) -> None:
        """Count one event; one of another kind is nothing to count."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            with self._lock:
                handle(event)

    def _of(self, name: str, *labels: str) -> Any:
        return self._series[f"retl_{name}"](*labels)

    def _count(self, name: str, event: Event, counts: Mapping[str, int]) -> int:
        """Add to a counter of words; how many there were."""
        series = self._series[f"retl_{name}"]
        for word, count in counts.items():
            series(event.sync, event.destination, *series.words(word)).inc(count)
        return sum(counts.values())

    def _started(self, event: Started) -> None:
        for described in METRICS:
            if described.labels[:2] == ROUTE:
                self._series[described.name].appear(event.sync, event.destination)
            elif described.labels[0] == "sync":
                self._series[described.name].appear(event.sync)
        # A reading that expired is begun anew without the run's end.
        self._give_back(event.sync, event.destination)

    def _encoded(self, event: Encoded) -> None:
        route = (event.sync, event.destination)
        self._of("rows_read_total", *route).inc(event.rows)
        self._of("read_seconds_total", *route).inc(max(event.read_seconds, 0))
        self._of("encode_seconds_total", *route).inc(max(event.encode_seconds, 0))
        self._of("nonfinite_values_total", *route).inc(event.nonfinite)
        invalid = self._count("invalid_rows_total", event, event.invalid)
        self._of("rows_total", *route, "dead_lettered").inc(invalid)
        self._move(route, event.rows - invalid)

    def _attempted(self, event: Attempted) -> None:
        route = (event.sync, event.destination)
        series = self._series["retl_http_requests_total"]
        series(*route, *series.words(*_judged(event))).inc()
        self._of("http_request_duration_seconds", *route).observe(max(event.seconds, 0))
        self._of("batch_bytes", *route).observe(event.nbytes)
        self._of("batch_rows", *route).observe(event.rows)
        self._count("request_bytes_total", event, {event.encoding: event.nbytes})

    def _retried(self, event: Retried) -> None:
        self._count("retries_total", event, {event.reason: 1})

    def _throttled(self, event: Throttled) -> None:
        series = self._series["retl_throttled_seconds_total"]
        words = series.words(event.cause)
        series(event.sync, event.destination, *words).inc(max(event.seconds, 0))

    def _limited(self, event: Limited) -> None:
        self._of("concurrency_limit", event.sync, event.destination).set(event.limit)

    def _settled(self, event: Settled) -> None:
        route = (event.sync, event.destination)
        rejected = self._count("rejected_rows_total", event, event.rejected)
        self._of("rows_total", *route, "delivered").inc(event.delivered)
        self._of("rows_total", *route, "dead_lettered").inc(rejected)
        self._move(route, -event.delivered - rejected)

    def _buffered(self, event: Buffered) -> None:
        # Its rows are the engine's sum of the same reads and settlements: not a second witness.
        self._of("buffer_bytes", event.sync, event.destination).set(event.nbytes)

    def _committed(self, event: Committed) -> None:
        self._of("checkpoint_timestamp_seconds", event.sync, event.destination).set(event.at)

    def _spooled(self, event: Spooled) -> None:
        self._of("spool_bytes", event.sync).set(event.on_disk)
        self._of("spooled_bytes_total", event.sync).inc(event.written)

    def _restarted(self, event: Restarted) -> None:
        series = self._series["retl_read_restarts_total"]
        series.appear(event.sync)
        series(event.sync, *series.words(event.reason)).inc()

    def _finished(self, event: Finished) -> None:
        self._series["retl_runs_total"].appear(event.sync)
        self._of("bigquery_bytes_billed_total", event.sync).inc(event.bytes_billed)
        complete = event.result is Result.COMPLETE
        if event.whole:
            seconds = max(event.seconds, 0)
            self._of("runs_total", event.sync, event.result).inc()
            self._of("run_duration_seconds", event.sync, event.result).observe(seconds)
        if complete and event.whole:
            self._of("last_success_timestamp_seconds", event.sync).set(event.at)
        for sync, destination in [route for route in self._in_flight if route[0] == event.sync]:
            if complete:
                self._move((sync, destination), -self._in_flight[sync, destination])
            else:
                self._give_back(sync, destination)
            self._of("buffer_bytes", sync, destination).set(0)

    def _move(self, route: tuple[str, str], rows: int) -> None:
        now = self._in_flight[route] = self._in_flight.get(route, 0) + rows
        self._of("rows_in_flight", *route).set(now)

    def _give_back(self, sync: str, destination: str) -> None:
        """What is not settled will be read again, and is nobody's any more."""
        rows = self._in_flight.get((sync, destination), 0)
        self._of("rows_total", sync, destination, "returned").inc(max(rows, 0))
        self._move((sync, destination), -rows)


def _judged(event: Attempted) -> tuple[str, str]:
    """The status class and error type of a request."""
    if event.status == 0:
        return "no_answer", event.error or "network"
    return f"{event.status // 100}xx", "none" if event.status < 300 else f"http_{event.status}"


def _version() -> str:
    try:
        return metadata.version("bigquery-reverse-etl")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"
