"""Every metric, described: what is made of it, its document and its tests read the same table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.model import Reason, Result

Kind = Literal["counter", "gauge", "histogram"]

ROUTE = ("sync", "destination")
"""The labels of what belongs to one destination of a sync."""

# A timeout is 30 s by default and ends in the last bucket but one.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# From a file of a hundred rows to a read session's whole life, 6 h.
_RUN_SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600)
# Dense below 480,000, the target of a batch; 500,000 is Customer.io's limit, 4 MiB RudderStack's.
_BYTES = (1_000, 10_000, 50_000, 100_000, 200_000, 300_000, 400_000, 480_000, 500_000, 4_096_000)
# 2,500 events is Segment's limit of a batch; with rows of 420 bytes about 1,150 fit.
_ROWS = (1, 10, 50, 100, 250, 500, 1_000, 1_500, 2_500, 5_000)
# What a destination that is down or overloaded answers, or fails to.
_PASSING = (
    *("http_500", "http_502", "http_503", "http_504"),
    *("timeout", "connect_timeout", "connect", "reset"),
)


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
        labels=ROUTE,
        text="Rows read from the source for this destination, valid or not. Rows that an earlier "
        "process had settled are not read and not counted.",
    ),
    Described(
        name="retl_rows_total",
        kind="counter",
        labels=(*ROUTE, "outcome"),
        text="Rows by what became of them. `returned`: read, and not settled when a run was "
        "interrupted or failed; the next run reads and counts them again.",
        values=("delivered", "dead_lettered", "returned"),
    ),
    Described(
        name="retl_rows_in_flight",
        kind="gauge",
        labels=ROUTE,
        text="Rows read and not settled yet.",
    ),
    Described(
        name="retl_invalid_rows_total",
        kind="counter",
        labels=(*ROUTE, "reason"),
        text="Rows refused by us before sending; part of `dead_lettered`.",
        values=tuple(Reason),
    ),
    Described(
        name="retl_nonfinite_values_total",
        kind="counter",
        labels=ROUTE,
        text="NaN and infinities, which JSON does not have; they are sent as null.",
    ),
    Described(
        name="retl_rejected_rows_total",
        kind="counter",
        labels=(*ROUTE, "reason"),
        text="Rows refused by the destination, by its answer; part of `dead_lettered`.",
        values=("rejected_400", "rejected_413", "rejected_422"),
    ),
    Described(
        name="retl_http_requests_total",
        kind="counter",
        labels=(*ROUTE, "status_class", "error_type"),
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
        labels=ROUTE,
        text="From the start of a request to the end of its answer, without any wait before it.",
        buckets=_SECONDS,
    ),
    Described(
        name="retl_retries_total",
        kind="counter",
        labels=(*ROUTE, "reason"),
        text="Requests that are sent again, by the answer that made it so.",
        values=("http_429", *_PASSING),
    ),
    Described(
        name="retl_throttled_seconds_total",
        kind="counter",
        labels=(*ROUTE, "cause"),
        text="Seconds that the next request in line was held back: by the configured `rate_limit`, "
        "because the destination said so (`retry_after`), because it bears no more at a time "
        "(`adaptive`), fails across the board (`circuit`), or too much was sent again lately "
        "(`retry_budget`).",
        values=("rate_limit", "retry_after", "adaptive", "circuit", "retry_budget"),
    ),
    Described(
        name="retl_concurrency_limit",
        kind="gauge",
        labels=ROUTE,
        text="Requests that may be in flight now: `send.concurrency`, or what the destination "
        "bears if that is `adaptive`.",
    ),
    Described(
        name="retl_buffer_bytes",
        kind="gauge",
        labels=ROUTE,
        text="Bytes encoded and not settled yet; bounded by `send.buffer_bytes`.",
    ),
    Described(
        name="retl_batch_bytes",
        kind="histogram",
        labels=ROUTE,
        text="Bytes of the body of each request, before compression.",
        buckets=_BYTES,
    ),
    Described(
        name="retl_batch_rows",
        kind="histogram",
        labels=ROUTE,
        text="Rows of each request.",
        buckets=_ROWS,
    ),
    Described(
        name="retl_request_bytes_total",
        kind="counter",
        labels=(*ROUTE, "encoding"),
        text="Bytes of request bodies before compression, by how they were sent.",
        values=("identity", "gzip"),
    ),
    Described(
        name="retl_encode_seconds_total",
        kind="counter",
        labels=ROUTE,
        text="Seconds of encoding, added up over all threads.",
    ),
    Described(
        name="retl_read_seconds_total",
        kind="counter",
        labels=ROUTE,
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
        labels=ROUTE,
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
