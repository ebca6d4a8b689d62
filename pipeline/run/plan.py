"""What a Run would do, before it does it: cost, calls, requests, time. Pure estimates.

All of it follows from what BigQuery says of the query, how many rows there are, and what a sample
of them becomes. What is not known stays unknown: nothing is guessed from the bytes scanned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.model import Call, Window
from pipeline.run.report import PreviewRow
from pipeline.source.outlast import Outlook, Pace

# The life of a read session, in seconds, by the service's own rule.
SESSION_SECONDS = 6 * 3600.0
_TIB = 2**40
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What some rows become at one destination.

    nbytes: of the valid payloads, separators included. invalid: rows by reason.
    warnings: valid rows by what the destination would do otherwise than meant.
    shown: the first few, as a preview has them.
    """

    rows: int = 0
    nbytes: int = 0
    invalid: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    shown: tuple[PreviewRow, ...] = ()

    @property
    def valid(self) -> int:
        """How many rows would be sent."""
        return self.rows - sum(self.invalid.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan:
    """One destination's share. None: unknown.

    seconds: of sending, at least. bound: what makes it take so long, a key of the
    configuration; empty when nothing is sent.
    """

    destination: str
    sample: Sample
    calls: int | None = None
    requests: int | None = None
    seconds: float | None = None
    bound: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sync's next Run.

    rows: None when unknown. rows_known_by: count, sample (it held all), source, estimate (of a
    table by BigQuery) or unknown.
    cost: US dollars for one run's query; None where the source costs nothing.
    queries: how many this plan started itself, each billed like the run's own.
    notes: what a person should know, in sentences.
    error: what ended the look at rows; what would follow from it is unknown.
    """

    sync: str
    call: Call
    sql: str
    window: Window
    bytes_processed: int
    cost: float | None
    rows: int | None
    rows_known_by: str
    queries: int
    lanes: tuple[LanePlan, ...]
    notes: tuple[str, ...] = ()
    error: PipelineError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, without the payloads of the samples."""
        return {
            "sync": self.sync,
            "call": self.call.value,
            "sql": self.sql,
            "window": asdict(self.window),
            "bytes_processed": self.bytes_processed,
            "cost_usd": self.cost,
            "rows": self.rows,
            "rows_known_by": self.rows_known_by,
            "queries_run": self.queries,
            "destinations": {
                lane.destination: {
                    "calls": lane.calls,
                    "requests": lane.requests,
                    "seconds": lane.seconds,
                    "bound": lane.bound,
                    "sample": {
                        "rows": lane.sample.rows,
                        "valid": lane.sample.valid,
                        "bytes": lane.sample.nbytes,
                        "invalid": dict(lane.sample.invalid),
                        "warnings": dict(lane.sample.warnings),
                    },
                }
                for lane in self.lanes
            },
            "notes": list(self.notes),
            "exit_code": self.error.exit_code if self.error else 0,
            "error": str(self.error) if self.error else None,
        }


def cost(bytes_processed: int, price_per_tib: float) -> float:
    """US dollars for scanning so many bytes, without free tiers and minimums."""
    return bytes_processed / _TIB * price_per_tib


def sampled(rows: tuple[PreviewRow, ...], separator: bytes) -> Sample:
    """The counts of a sample."""
    invalid: dict[str, int] = {}
    warnings: dict[str, int] = {}
    nbytes = 0
    for row in rows:
        if row.invalid is not None:
            reason = str(row.invalid.reason)  # a plain one: it becomes a key of JSON
            invalid[reason] = invalid.get(reason, 0) + 1
            continue
        nbytes += len(row.payload) + len(separator)
        for warning in row.warnings:
            warnings[warning] = warnings.get(warning, 0) + 1
    return Sample(
        rows=len(rows), nbytes=nbytes, invalid=invalid, warnings=warnings, shown=rows[:_SHOWN]
    )


def lane_plan(
    destination: str,
    pace: Pace,
    sample: Sample,
    rows: int | None,
    *,
    permits: int,
    latency: float,
) -> LanePlan:
    """What a destination gets of `rows` rows, if all are like the sample.

    permits: requests in flight at a time. latency: seconds that an answer takes, assumed.
    """
    if rows == 0:
        return LanePlan(destination=destination, sample=sample, calls=0, requests=0, seconds=0.0)
    if rows is None or not sample.rows:
        return LanePlan(destination=destination, sample=sample)
    calls = round(rows * sample.valid / sample.rows)
    requests = 0
    if calls:
        requests = pace.requests(calls, round(calls * sample.nbytes / sample.valid))
    times = {
        "send.concurrency": requests * latency / min(permits, max(1, requests)),
        "send.rate_limit.requests_per_second": requests / pace.requests_per_second
        if pace.requests_per_second
        else 0.0,
        "send.rate_limit.rows_per_second": calls / pace.rows_per_second
        if pace.rows_per_second
        else 0.0,
    }
    bound = max(times, key=lambda key: times[key])
    return LanePlan(
        destination=destination,
        sample=sample,
        calls=calls,
        requests=requests,
        seconds=times[bound],
        bound=bound if times[bound] else "",
    )


def outlasting(lanes: tuple[LanePlan, ...]) -> tuple[str, ...]:
    """The destinations that are likely to take longer than a read session lives."""
    return tuple(
        lane.destination
        for lane in lanes
        if Outlook(needs=lane.seconds or 0.0, lasts=SESSION_SECONDS).outlasts
    )
