"""Prometheus metrics: an Observer that keeps them, a server that shows them, their description.

The only importer of prometheus_client. One table, `METRICS`, is the metrics and their document.
Labels are names of the configuration or come from a bounded vocabulary; a run's id, a row's
content or a message can't become one. The registry is the observer's own, never the global one,
and a scrape sees all of an event or nothing of it. Knows events only: no engine, no config.

The law: retl_rows_read_total = sum(retl_rows_total) + retl_rows_in_flight, per sync and
destination. A run that says it is complete leaves nothing in flight; a row that it lost shows as
a difference from then on. (Over 300 lines: the table is 150 of them.)
"""

from __future__ import annotations

import errno
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.metrics_core import Metric

from pipeline.errors import ConfigError, Fault
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
from pipeline.model import Reason, Result

Kind = Literal["counter", "gauge", "histogram"]

_ROUTE = ("sync", "destination")
# A timeout is 30 s by default and ends in the last bucket but one.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# From a file of a hundred rows to a read session's whole life, 6 h.
_RUN_SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600)
# Dense below 480,000, the target of a batch; 500,000 is Customer.io's limit, 4 MiB RudderStack's.
_BYTES = (1_000, 10_000, 50_000, 100_000, 200_000, 300_000, 400_000, 480_000, 500_000, 4_096_000)
# 2,500 events is Segment's limit of a batch; with rows of 420 bytes about 1,150 fit.
_ROWS = (1, 10, 50, 100, 250, 500, 1_000, 1_500, 2_500, 5_000)
# Different values of one label, beside those known before; more can only be a mistake.
_MOST_VALUES = 32
# What a destination that is down or overloaded answers, or fails to.
_PASSING = (
    *("http_500", "http_502", "http_503", "http_504"),
    *("timeout", "connect_timeout", "connect", "reset"),
)
_WORD = re.compile(r"[a-z0-9_]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric. values: of its own label (the last), those that start at 0."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[Described, ...] = (
    Described(
        name="retl_rows_read_total",
        kind="counter",
        labels=_ROUTE,
        text="Rows read from the source for this destination, valid or not. Rows that an earlier "
        "process had settled are not read and not counted.",
    ),
    Described(
        name="retl_rows_total",
        kind="counter",
        labels=(*_ROUTE, "outcome"),
        text="Rows by what became of them. `returned`: read, and not settled when a run was "
        "interrupted or failed; the next run reads and counts them again.",
        values=("delivered", "dead_lettered", "returned"),
    ),
    Described(
        name="retl_rows_in_flight",
        kind="gauge",
        labels=_ROUTE,
        text="Rows read and not settled yet.",
    ),
    Described(
        name="retl_invalid_rows_total",
        kind="counter",
        labels=(*_ROUTE, "reason"),
        text="Rows refused by us before sending; part of `dead_lettered`.",
        values=tuple(Reason),
    ),
    Described(
        name="retl_nonfinite_values_total",
        kind="counter",
        labels=_ROUTE,
        text="NaN and infinities, which JSON does not have; they are sent as null.",
    ),
    Described(
        name="retl_rejected_rows_total",
        kind="counter",
        labels=(*_ROUTE, "reason"),
        text="Rows refused by the destination, by its answer; part of `dead_lettered`.",
        values=("rejected_400", "rejected_413", "rejected_422"),
    ),
    Described(
        name="retl_http_requests_total",
        kind="counter",
        labels=(*_ROUTE, "status_class", "error_type"),
        text="Requests that ended, retries included. status_class: `2xx` to `5xx`, or `no_answer`. "
        "error_type: `none`, `http_` and the status from 300 on, or why there was no answer "
        "(`timeout`, `connect`, `reset`, `dns`, `tls`, ...).",
        values=(
            "2xx none",
            *(f"4xx http_{status}" for status in (400, 401, 403, 413, 422, 429)),
            *(f"5xx {fault}" for fault in _PASSING[:4]),
            *(f"no_answer {fault}" for fault in _PASSING[4:]),
        ),
    ),
    Described(
        name="retl_http_request_duration_seconds",
        kind="histogram",
        labels=_ROUTE,
        text="From the start of a request to the end of its answer, without any wait before it.",
        buckets=_SECONDS,
    ),
    Described(
        name="retl_retries_total",
        kind="counter",
        labels=(*_ROUTE, "reason"),
        text="Requests that are sent again, by the answer that made it so.",
        values=("http_429", *_PASSING),
    ),
    Described(
        name="retl_throttled_seconds_total",
        kind="counter",
        labels=(*_ROUTE, "cause"),
        text="Seconds that the next request in line was held back: by the configured `rate_limit`, "
        "because the destination said so (`retry_after`), because it bears no more at a time "
        "(`adaptive`), fails across the board (`circuit`), or too much was sent again lately "
        "(`retry_budget`).",
        values=("rate_limit", "retry_after", "adaptive", "circuit", "retry_budget"),
    ),
    Described(
        name="retl_concurrency_limit",
        kind="gauge",
        labels=_ROUTE,
        text="Requests that may be in flight now: `send.concurrency`, or what the destination "
        "bears if that is `adaptive`.",
    ),
    Described(
        name="retl_buffer_bytes",
        kind="gauge",
        labels=_ROUTE,
        text="Bytes encoded and not settled yet; bounded by `send.buffer_bytes`.",
    ),
    Described(
        name="retl_batch_bytes",
        kind="histogram",
        labels=_ROUTE,
        text="Bytes of the body of each request, before compression.",
        buckets=_BYTES,
    ),
    Described(
        name="retl_batch_rows",
        kind="histogram",
        labels=_ROUTE,
        text="Rows of each request.",
        buckets=_ROWS,
    ),
    Described(
        name="retl_request_bytes_total",
        kind="counter",
        labels=(*_ROUTE, "encoding"),
        text="Bytes of request bodies before compression, by how they were sent.",
        values=("identity", "gzip"),
    ),
    Described(
        name="retl_encode_seconds_total",
        kind="counter",
        labels=_ROUTE,
        text="Seconds of encoding, added up over all threads.",
    ),
    Described(
        name="retl_read_seconds_total",
        kind="counter",
        labels=_ROUTE,
        text="Seconds of waiting for the source, added up over all streams.",
    ),
    Described(
        name="retl_spool_bytes",
        kind="gauge",
        labels=("sync",),
        text="Bytes of rows on local disk that wait to be sent; bounded by `spool.max_bytes`.",
    ),
    Described(
        name="retl_spooled_bytes_total",
        kind="counter",
        labels=("sync",),
        text="Bytes of rows that were put on local disk ahead of sending.",
    ),
    Described(
        name="retl_checkpoint_timestamp_seconds",
        kind="gauge",
        labels=_ROUTE,
        text="Unix time of the last committed Checkpoint; 0: none by this process.",
    ),
    Described(
        name="retl_last_success_timestamp_seconds",
        kind="gauge",
        labels=("sync",),
        text="Unix time at which a run last completed; 0: none in this process.",
    ),
    Described(
        name="retl_run_duration_seconds",
        kind="histogram",
        labels=("sync", "result"),
        text="Duration of each run.",
        values=tuple(Result),
        buckets=_RUN_SECONDS,
    ),
    Described(
        name="retl_runs_total",
        kind="counter",
        labels=("sync", "result"),
        text="Runs that ended. Of several shards, the one that closes the run counts it as "
        "complete; each that fails or is interrupted counts.",
        values=tuple(Result),
    ),
    Described(
        name="retl_read_restarts_total",
        kind="counter",
        labels=("sync", "reason"),
        text="How often a run began to read anew, and to send every row again under the message "
        "id it had. `session_expired`: in a new session on the same result. `result_expired`: from "
        "a new query.",
        values=("session_expired", "result_expired"),
    ),
    Described(
        name="retl_bigquery_bytes_billed_total",
        kind="counter",
        labels=("sync",),
        text="Bytes that BigQuery billed for queries started by this process.",
    ),
    Described(
        name="retl_build_info",
        kind="gauge",
        labels=("version",),
        text="Always 1; says which version runs.",
    ),
)


class _Registry(CollectorRegistry):
    """Collects under the observer's lock, and leaves `_created` out: it doubles the series."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._events = lock

    def collect(self) -> Iterator[Metric]:
        """All metrics as of one moment."""
        with self._events:
            found = list(super().collect())
        for metric in found:
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
        return iter(found)


class _Series:
    """One metric, its children kept by label values, so that an event costs no look-up by name."""

    def __init__(self, described: Described, registry: CollectorRegistry) -> None:
        make = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}[described.kind]
        more = {"buckets": described.buckets} if described.buckets else {}
        self._metric: Any = make(
            described.name, described.text, described.labels, registry=registry, **more
        )
        self._children: dict[tuple[str, ...], Any] = {}
        self._known = {word for value in described.values for word in value.split()}
        self._met: set[str] = set()
        self._first = [tuple(value.split()) for value in described.values] or [()]

    def __call__(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child

    def words(self, *labels: str) -> tuple[str, ...]:
        """The labels as they may be shown: `other` for what is no word, or one too many."""
        return tuple(word if self._admits(word) else "other" for word in labels)

    def _admits(self, word: str) -> bool:
        if word in self._known or word in self._met:
            return True
        if len(self._met) >= _MOST_VALUES or not _WORD.fullmatch(word):
            return False
        self._met.add(word)
        return True

    def appear(self, *labels: str) -> None:
        """Show the series with value 0, for every value known before."""
        for more in self._first:
            self(*labels, *more)


class PrometheusObserver:
    """An `Observer`: under 10 microseconds an event, some milliseconds while a scrape collects."""

    def __init__(self, version: str | None = None) -> None:
        self._lock = threading.Lock()
        self.registry: CollectorRegistry = _Registry(self._lock)
        self._series = {each.name: _Series(each, self.registry) for each in METRICS}
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
            if described.labels[:2] == _ROUTE:
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


class MetricsServer:
    """`/metrics` on a thread of its own. port: the one taken, also when 0 was asked for."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, host, registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# What a user can do about each fault of listening; by errno.
_REMEDIES: Mapping[int | None, str] = {
    errno.EADDRINUSE: "Another process has it: choose another by `--metrics-port`, `metrics.port` "
    "or RETL_METRICS_PORT; 0 takes a free one.",
    errno.EACCES: "Ports under 1024 need privileges: choose a higher one.",
}


def serve(observer: PrometheusObserver, host: str, port: int) -> MetricsServer:
    """Serve the observer's metrics over HTTP until closed. Raises ConfigError if it can't."""
    try:
        return MetricsServer(observer.registry, host, port)
    except (OSError, OverflowError, UnicodeError) as error:  # a number or name that can't be one
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise ConfigError(
            [
                Fault(
                    "metrics.port" if number in _REMEDIES else "metrics.host",
                    f"/metrics can't be served on {host}, port {port}: {reason}.",
                    _REMEDIES.get(number, "Choose an address of this machine, and a free port."),
                )
            ]
        ) from error


def describe() -> Iterable[Sequence[str]]:
    """Rows of docs/metrics.md: name, kind, labels, meaning."""
    for each in METRICS:
        more = ""
        if each.values:
            more += " Starts with: " + ", ".join(f"`{value}`" for value in each.values) + "."
        if each.buckets:
            more += f" Buckets: {', '.join(f'{bound:,}' for bound in each.buckets)}."
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield (f"`{each.name}`", each.kind, labels, each.text + more)


_HEAD = """\
# Metrics

Written by `python -m pipeline.metrics`; change `pipeline/metrics.py`, not this file.

`retl run --metrics-port 9464` (or `metrics.port`, `RETL_METRICS_PORT`) serves these on `/metrics`,
beside the `process_*` metrics of the Python client. All of a sync's series are there from its
start, with value 0. Labels are names from the configuration or from a bounded list; what doesn't
fit is counted under `other`.

**The law.** `retl_rows_read_total = sum(retl_rows_total) + retl_rows_in_flight`, for each sync and
destination, at every scrape. A run that completes leaves nothing in flight, so a row that it lost
shows as a difference; [an alert](operations.md#retlconservationbroken) watches it.

**Short runs.** A scrape sees what is there when it comes: the last seconds of a process that ends
are in its logs and in `retl runs`, not here. The alerts that must not miss an end watch the
CronJob and its Jobs instead.
"""


def document() -> str:
    """docs/metrics.md."""
    head = ("metric", "type", "labels", "meaning")
    table = [head, ("---",) * 4, *describe()]
    return _HEAD + "\n" + "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
