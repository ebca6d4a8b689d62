"""What the engine tells whoever watches it: one frozen record per batch, never per row.

Prometheus, the progress bars and the run report are observers of these; the engine knows none
of them. No record carries row content or a run's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.model import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base: every event belongs to one sync and one destination of it."""

    sync: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """The source gets ready; told once a second until it is. destination is empty.

    activity: in words for people: "query running, 12 s, 1.2 GB processed".
    """

    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """A run begins, or goes on. rows: how many there are to read; None when unknown."""

    rows: int | None
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded(Event):
    """Rows were read and encoded.

    read_seconds: waiting for the source. invalid: by reason. nonfinite: NaN and infinities that
    were written as null.
    """

    rows: int
    nbytes: int
    read_seconds: float
    encode_seconds: float
    invalid: Mapping[str, int] = field(default_factory=dict)
    nonfinite: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted(Event):
    """One HTTP request ended, whatever came back. status 0: no answer, `error` says why."""

    status: int
    error: str
    seconds: float
    rows: int
    nbytes: int
    encoding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A request will be sent again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(Event):
    """The next request in line was held back.

    cause: rate_limit; retry_after, as the destination asked; adaptive, by the concurrency that it
    bears; circuit, as it fails across the board; retry_budget, as too many requests are retries.
    """

    cause: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited(Event):
    """So many requests may be in flight from now on."""

    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Event):
    """A Delivery: rows delivered, and rows rejected by reason."""

    delivered: int
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered(Event):
    """What is between encoder and settled now: packed bytes, and rows."""

    nbytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Event):
    """A Checkpoint is durable. at: Unix seconds."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted(Event):
    """What a run was reading is gone, and it reads all of it anew. destination is empty.

    reason: session_expired, or result_expired, when the query runs again too.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled(Event):
    """The spool changed. destination is empty. on_disk: bytes now; written: bytes just added."""

    on_disk: int
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something an operator should know, in words. destination is empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPruned(Event):
    """Runs and dead letters, of any sync, were deleted by age. destination is empty."""

    runs: int
    dead_letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """A run ended. destination is empty: it speaks of the whole run. at: Unix seconds.

    whole: False when only this process's shard of it is complete.
    """

    result: Result
    seconds: float
    at: float
    bytes_billed: int
    whole: bool = True
