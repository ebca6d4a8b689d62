"""What a run needs of its stages: a source, an encoder, a destination, a transport, a sender."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.events import Event
from pipeline.model import (
    Answer,
    Batch,
    Body,
    Counts,
    Delivery,
    Envelope,
    Limits,
    Payloads,
    Reading,
    Request,
    Span,
    Verdict,
    Window,
)

if TYPE_CHECKING:
    import pyarrow as pa


class Observer(Protocol):
    """Hears every event, on the event loop's thread. Must return at once and never raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of one event."""


class Frame(Protocol):
    """One message of a stream, not decoded yet."""

    @property
    def span(self) -> Span:
        """The rows it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes as received."""

    def record_batch(self) -> pa.RecordBatch:
        """Decode: `span.rows` rows. Called once, in a worker thread.

        Valid Arrow data, with UTF-8 in its strings: the encoder trusts it, since looking would
        take up to a third of its time. A source that can't be sure looks itself.
        Raises BrokenFrame when it can't be decoded; reading from `span.first` on may help.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a query would do.

    bytes_processed: an upper bound, before any cache. columns: of its result, in their order;
    empty where that is not known.
    """

    bytes_processed: int
    statement_type: str
    columns: tuple[str, ...] = ()


class Source(Protocol):
    """Where rows come from, for one sync (its query is part of it)."""

    @property
    def activity(self) -> str:
        """What `start` is at just now, for people: "query running, 12 s"; else empty."""

    async def start(self, window: Window, job_key: str) -> Reading:
        """Run the query and make its result readable.

        job_key names the attempt: calling again with the same key must find the query that
        runs or ran under it rather than start a second one.
        Cancelling leaves the query running, for the next call with the same key to find; a
        source that was made for a run that nobody goes on with stops it instead.
        Raises ConfigError, SourceError, CredentialsError.
        """

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """Rows of a stream from row `first` on, in order, without gap or overlap.

        Goes on by itself after passing faults. Closing the iterator cancels the read.
        Raises SourceError when it can't go on, ReadingExpired when the Reading is gone, and
        ResultExpired when what was read from is gone too.
        """

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None:
        """Rows that every destination has settled for good: they are never asked for again.

        checkpoints: stream -> rows from its start. Called before the first read, then after each
        commit. Must return at once.
        """

    def sql(self, window: Window) -> str:
        """The query as it is sent for a window; empty where there is none."""

    async def dry_run(self, window: Window) -> DryRun:
        """Check the query and say what it would scan, without running it."""

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """At most `rows` rows of the query's result."""

    async def close(self) -> None:
        """Release connections; idempotent."""


class Encoder(Protocol):
    """Turns RecordBatches of one schema into payloads. Pure, thread-safe."""

    def encode(self, batch: pa.RecordBatch, span: Span) -> Payloads:
        """All rows of the batch, as payloads or as dead letters; in order."""


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

    def request(self, body: Body) -> Request:
        """The request that carries `body`, an enveloped run of payloads.

        Pass it on as it is: it lies in pieces, and nothing of it is copied. To look into it,
        `bytes(body)`.
        """

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
