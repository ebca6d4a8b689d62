"""The seams of the engine, as Protocols: what a source, destination, transport or store must keep.

Implementations live in the rooms below `run`; only `wiring` names them. Every comment here is a
contract that the tests of each implementation hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.events import Event
from pipeline.model import (
    Answer,
    Batch,
    Counts,
    DeadLetter,
    Delivery,
    Envelope,
    Limits,
    Payloads,
    Reading,
    Request,
    Result,
    Span,
    Verdict,
    Window,
)


class Observer(Protocol):
    """Hears every event, on the event loop's thread. Must return at once and never raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of one event."""


# ------------------------------------------------------------------------------- source


class Frame(Protocol):
    """One message of a stream, not decoded yet."""

    @property
    def span(self) -> Span:
        """The rows it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes as received."""

    def record_batch(self) -> pa.RecordBatch:
        """Decode: `span.rows` rows. Called once, in a worker thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a query would do. bytes_processed: an upper bound, before any cache."""

    bytes_processed: int
    statement_type: str


class Source(Protocol):
    """Where rows come from, for one sync (its query is part of it)."""

    async def start(self, window: Window, job_key: str) -> Reading:
        """Run the query and make its result readable.

        job_key names the attempt: calling again with the same key must find the query that
        runs or ran under it rather than start a second one.
        Raises ConfigError, SourceError, CredentialsError.
        """

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """Rows of a stream from row `first` on, in order, without gap or overlap.

        Goes on by itself after passing faults. Closing the iterator cancels the read.
        Raises SourceError when it can't go on, ReadingExpired when the Reading is gone.
        """

    def sql(self, window: Window) -> str:
        """The query as it is sent for a window; empty where there is none."""

    async def dry_run(self, window: Window) -> DryRun:
        """Check the query and say what it would scan, without running it."""

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """At most `rows` rows of the query's result."""

    async def close(self) -> None:
        """Release connections; idempotent."""


# ------------------------------------------------------------------------------- encode


class Encoder(Protocol):
    """Turns RecordBatches of one schema into payloads. Pure, thread-safe."""

    def encode(self, batch: pa.RecordBatch, span: Span) -> Payloads:
        """All rows of the batch, as payloads or as dead letters; in order."""


# ------------------------------------------------------------------------------- send


class Destination(Protocol):
    """An API's shape and rules. Pure: no I/O, no clock."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    @property
    def limits(self) -> Limits:
        """What it accepts, in bytes and rows."""

    @property
    def envelope(self) -> Envelope:
        """`envelope.separator` is one byte."""

    def request(self, body: bytes) -> Request:
        """The request that carries `body`, an enveloped run of payloads."""

    def judge(self, answer: Answer, now: float) -> Verdict:
        """What an answer means for the whole request. now: Unix seconds, for HTTP dates."""

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:
        """What will not come out as meant though the payload is accepted; for previews.

        May name fields and attributes, never show values. now: Unix seconds.
        """


class Transport(Protocol):
    """Moves bytes."""

    async def post(self, request: Request) -> Answer:
        """Send once, never retry; an Answer with status 0 stands for every network fault."""

    async def close(self) -> None:
        """Release connections; idempotent."""


class Deliverer(Protocol):
    """What the run needs of a Sender."""

    @property
    def sent(self) -> Counts:
        """Requests, retries and bytes of all deliveries so far, those that failed included."""

    async def deliver(self, batch: Batch) -> Delivery:
        """Until every row is delivered or rejected. Raises DestinationError, CredentialsError."""


# ------------------------------------------------------------------------------- checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A Run as the store knows it, new or to be gone on with.

    reading: None until the source has started.
    checkpoints: (destination, stream) -> rows settled from the stream's start.
    counts: per destination, as committed so far.
    attempt: 1 for a window's first run; a run that can't go on is followed by the next.
    """

    id: str
    sync: str
    window: Window
    fingerprint: str
    attempt: int
    reading: Reading | None
    checkpoints: Mapping[tuple[str, int], int]
    counts: Mapping[str, Counts]
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A Run of the history. Times are Unix seconds."""

    id: str
    sync: str
    window: Window
    started: float
    finished: float | None
    result: Result | None
    error: str
    query_started: int | None
    rows: int | None
    bytes_billed: int
    counts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A dead letter as kept. at: Unix seconds."""

    id: int
    run: str
    sync: str
    destination: str
    at: float
    letter: DeadLetter


class Settlements(Protocol):
    """What the run needs of a Ledger: one destination's settled rows, per stream."""

    def settle(self, span: Span) -> None:
        """Count a span as settled; in any order, each row once."""

    def checkpoints(self) -> dict[int, int]:
        """Stream -> rows settled without a gap from its start."""


class RunStore(Protocol):
    """What the run needs of a Store. Blocking: call it in a thread.

    Every method is one transaction. Raises StateError; LeaseError from begin when another live
    process runs the sync, and from commit, attach and finish when the lease was lost meanwhile.
    """

    def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
        """Take the sync's lease and open its run.

        Goes on with an unfinished run of the same fingerprint (and, if full, of a full window);
        ends one with another fingerprint as failed and opens a new one on the same window.
        full: the window starts at 0 instead of at last_sync_time.
        """

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """Keep what the source started, before the first row is read."""

    def restart(self, run: OpenRun, reason: str) -> OpenRun:
        """End `run` as failed and open the next attempt on its window, under the same lease."""

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """Durable on return. The same (run, destination, stream, row) again is ignored."""

    def commit(
        self,
        run: OpenRun,
        checkpoints: Mapping[tuple[str, int], int],
        counts: Mapping[str, Counts],
    ) -> None:
        """Make Checkpoints and counts (totals of the run) durable and renew the lease."""

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> None:
        """Release the lease. COMPLETE moves last_sync_time to the reading's query_started.

        INTERRUPTED and FAILED leave the run open for the next begin, with its result noted.
        """


class Store(RunStore, Protocol):
    """Windows, runs, Checkpoints and dead letters, durably."""

    def window(self, sync: str) -> Window:
        """The window the next run would get."""

    def set_window(self, sync: str, start: int) -> None:
        """Set last_sync_time; abandons an unfinished run. Raises LeaseError while one is live."""

    def runs(self, sync: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """Newest first."""

    def dead_letters(
        self, sync: str | None = None, run: str | None = None, limit: int = 50
    ) -> Sequence[DeadLetterRecord]:
        """Newest first."""

    def dead_letter(self, number: int) -> DeadLetterRecord | None:
        """One by its id; None when there is none."""

    def close(self) -> None:
        """Release connections; idempotent."""
