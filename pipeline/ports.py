"""The seams of the engine, as Protocols: what a source, destination, transport or store must keep.

Implementations live in the rooms below `run`; only `wiring` names them. Every comment here is a
contract that the tests of each implementation hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import pyarrow as pa

from pipeline.events import Event
from pipeline.model import (
    Answer,
    Batch,
    Body,
    Counts,
    DeadLetter,
    Delivery,
    Envelope,
    Kept,
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
        """Decode: `span.rows` rows. Called once, in a worker thread.

        Valid Arrow data, with UTF-8 in its strings: the encoder trusts it, since looking would
        take up to a third of its time. A source that can't be sure looks itself.
        Raises BrokenFrame when it can't be decoded; reading from `span.first` on may help.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a query would do. bytes_processed: an upper bound, before any cache."""

    bytes_processed: int
    statement_type: str


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


# ------------------------------------------------------------------------------- shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which of how many processes delivers a run together with the others.

    index: below `of`. job: what all of them have in common and no other run has; empty for a
    process that delivers the whole run alone.
    """

    index: int = 0
    of: int = 1
    job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `of` equal parts, the one at `place`: of a run's streams, or of a rate limit."""

    place: int = 0
    of: int = 1

    def has(self, stream: int) -> bool:
        """Whether a stream is in this part."""
        return stream % self.of == self.place


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a run is beside this process's shard of it.

    share: the shard among those that are unfinished, which have the rate limit to share.
    elsewhere: destination -> what the other shards have committed.
    """

    share: Share = Share()
    elsewhere: Mapping[str, Counts] = field(default_factory=dict)


ALL, WHOLE, ALONE = Share(), Shard(), Standing()
"""What a process has, is and sees that delivers a run by itself."""


# ------------------------------------------------------------------------------- checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A Run as the store knows it, new or to be gone on with.

    reading: None until the source has started.
    checkpoints: (destination, stream) -> rows settled from the stream's start; of all streams.
    counts: per destination, as committed so far; of this shard's streams.
    attempt: 1 for a window's first run; a run that can't go on is followed by the next.
    query_key: the id of the earlier run whose query's result this one reads; None: its own.
    done: destinations that have settled every row of that result in earlier runs.
    streams: which of the reading's streams are this process's.
    starts: whether this process starts the source; if not, another one does.
    over: there is nothing left to do here: the run is complete, or this shard of it.
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
    query_key: str | None = None
    done: frozenset[str] = frozenset()
    streams: Share = ALL
    standing: Standing = ALONE
    starts: bool = True
    over: bool = False

    @property
    def job_key(self) -> str:
        """What the query's job is named by."""
        return self.query_key or self.id


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
    """A dead letter as kept. at: Unix seconds.

    kept: how much of its payload. sealed: the payload is encrypted, with a key that is not at
    hand; it is empty then.
    """

    id: int
    run: str
    sync: str
    destination: str
    at: float
    letter: DeadLetter
    kept: Kept = Kept.FULL
    sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters are meant: those that all of it fits. since: Unix seconds."""

    sync: str | None = None
    run: str | None = None
    destination: str | None = None
    reason: str | None = None
    since: float | None = None


EVERY_LETTER = LetterFilter()


class ReasonCount(NamedTuple):
    """How many dead letters have one reason."""

    sync: str
    destination: str
    reason: str
    letters: int


class Obstacle(StrEnum):
    """Why a dead letter can't be replayed. Of several, the first here counts."""

    INVALID = "invalid"  # we refused it: its payload can't be what the API takes
    NOT_KEPT = "not_kept"  # of its payload only ids are kept, or nothing
    PENDING = "pending"  # its run is unfinished and will send the row again by itself
    SEALED = "encrypted"  # its payload is encrypted, and there is no key
    TOO_LARGE = "too_large"  # for what the destination takes now
    NO_DESTINATION = "no_destination"  # the configuration has it no more


class ReplayCount(NamedTuple):
    """How many dead letters can be replayed (no obstacle), or can't."""

    sync: str
    destination: str
    obstacle: Obstacle | None
    letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReplay:
    """A replay under the lease of its sync."""

    sync: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """All that is kept of one Run, but for its dead letters themselves.

    unfinished: the next begin may go on with it. query_key: see OpenRun.
    settled: destination -> rows below its Checkpoints, over all streams.
    attempts: the runs on the same window in their order, this one among them.
    dead_letters: (destination, reason) -> how many are kept.
    reports: what each process that worked on it reported, JSON-ready, in their order.
    """

    record: RunRecord
    attempt: int
    unfinished: bool
    query_key: str | None
    reading: Reading | None
    settled: Mapping[str, int]
    attempts: tuple[RunRecord, ...]
    dead_letters: Mapping[tuple[str, str], int]
    reports: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """A sync between and during runs. window: the next run's, or that of the unfinished one.

    unfinished: the id of the run that the next one goes on with.
    holder: "host:process" of a live lease; None when no run is under way, as far as is known.
    """

    name: str
    window: Window
    unfinished: str | None = None
    holder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How much of the history was deleted."""

    runs: int = 0
    dead_letters: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(
            runs=self.runs + other.runs, dead_letters=self.dead_letters + other.dead_letters
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import brought. kept: syncs whose history was left as it was."""

    syncs: tuple[str, ...]
    runs: int
    kept: tuple[str, ...]


class Settlements(Protocol):
    """What the run needs of a Ledger: one destination's settled rows, per stream."""

    def settle(self, span: Span, dead: int = 0) -> None:
        """Count a span as settled, `dead` of its rows as dead letters; in any order, rows once."""

    def checkpoints(self) -> dict[int, int]:
        """Stream -> rows settled without a gap from its start."""

    def dead(self) -> int:
        """Dead letters below the checkpoints, but for those of the processes before."""


class RunStore(Protocol):
    """What the run needs of a Store. Blocking: call it in a thread.

    Every method is one transaction. Raises StateError; LeaseError from begin when another live
    process runs the sync, and from commit, attach and finish when the lease was lost meanwhile.
    Where several processes share a run, ShardHeld from begin while another has the same shard,
    and RunMoved from whatever writes when `follow` tells how the run goes on.
    """

    def begin(
        self, sync: str, fingerprint: str, *, full: bool = False, shard: Shard = WHOLE
    ) -> OpenRun:
        """Take the sync's lease, or the shard's, and open the sync's run.

        Goes on with an unfinished run of the same fingerprint (and, if full, of a full window);
        ends one with another fingerprint as failed and opens a new one on the same window.
        Dead letters beyond the Checkpoints of the run gone on with are forgotten: their rows are
        read again.
        full: the window starts at 0 instead of at last_sync_time.
        shard: the first shard of a job opens the run, the others join it.
        """

    def follow(self, run: OpenRun) -> OpenRun:
        """A shared run as it is now: read by then, or to be started here, or its next attempt."""

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """Keep what the source started, before the first row is read."""

    def restart(
        self, run: OpenRun, reason: str, *, same_query: bool = False, done: Collection[str] = ()
    ) -> OpenRun:
        """End `run` as failed and open the next attempt on its window, under the same lease.

        same_query: it reads the result of the same query, and the destinations `done`, which
        have all of it, keep their counts and get nothing more.
        Of a shared run, its unfinished shards are those of the next attempt, whose streams they
        have among them; and the store knows by itself which destinations are done.
        """

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """Durable on return. The same (run, destination, stream, row) again is ignored."""

    def commit(
        self,
        run: OpenRun,
        checkpoints: Mapping[tuple[str, int], int],
        counts: Mapping[str, Counts],
    ) -> Standing:
        """Make Checkpoints and counts (totals of the shard) durable and renew the lease."""

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> OpenRun | None:
        """Release the lease. COMPLETE moves last_sync_time to the reading's query_started.

        INTERRUPTED and FAILED leave the run open for the next begin, with its result noted.
        Of a shared run, COMPLETE says that this shard is, and the last of them closes the run. If
        rows are missing then, it gets the run back as its own alone, to look at every stream once
        more; else None.
        """


class LetterStore(Protocol):
    """What is done with dead letters afterwards. Blocking; each method is one transaction.

    Raises StateError.
    """

    def dead_letters(
        self, which: LetterFilter = EVERY_LETTER, limit: int = 50
    ) -> Sequence[DeadLetterRecord]:
        """Newest first."""

    def dead_letter(self, number: int) -> DeadLetterRecord | None:
        """One by its id; None when there is none."""

    def dead_letter_summary(self, which: LetterFilter = EVERY_LETTER) -> Sequence[ReasonCount]:
        """By sync, destination and reason, in this order."""

    def dead_letter_page(
        self, which: LetterFilter, *, after: int, rows: int = 1_000, replayable: bool = False
    ) -> Sequence[DeadLetterRecord]:
        """The next of them by ascending id, of a bounded size in bytes; empty at the end.

        after: the last id seen, 0 at first. replayable: those without an Obstacle only.
        """

    def clear_dead_letters(self, which: LetterFilter = EVERY_LETTER) -> int:
        """Forget them; how many. In several transactions, so that a run can write meanwhile."""

    def replay_counts(self, which: LetterFilter = EVERY_LETTER) -> Sequence[ReplayCount]:
        """By sync, destination and obstacle, in this order."""

    def begin_replay(self, sync: str) -> OpenReplay:
        """Take the sync's lease: no run and no other replay of it until `end_replay`.

        Raises LeaseError while it is held.
        """

    def settle_replay(
        self,
        replay: OpenReplay,
        delivered: Collection[int],
        rejected: Mapping[int, DeadLetter],
    ) -> None:
        """Forget the ids delivered, note why others were rejected again; renew the lease.

        Raises LeaseError when the lease was lost meanwhile; then nothing is changed.
        """

    def end_replay(self, replay: OpenReplay) -> None:
        """Release the lease, if it is still held."""


class Store(RunStore, LetterStore, Protocol):
    """Windows, runs, Checkpoints and dead letters, durably."""

    def window(self, sync: str) -> Window:
        """The window the next run would get."""

    def set_window(self, sync: str, start: int) -> None:
        """Set last_sync_time; abandons an unfinished run. Raises LeaseError while one is live."""

    def runs(self, sync: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """Newest first."""

    def run(self, run: str) -> RunDetail | None:
        """One by its id; None when there is none."""

    def last_full_run(self, sync: str) -> RunRecord | None:
        """The newest complete run whose window started at 0."""

    def syncs(self) -> Sequence[SyncState]:
        """Every sync that ever ran or was set, by name."""

    def keep_report(self, run: str, report: Mapping[str, object]) -> None:
        """Add what a process reports of a run, JSON-ready. Needs no lease."""

    def prune(self, *, runs: float, dead_letters: float) -> Pruned:
        """Delete some of the history, in one short transaction; Pruned() when nothing is left to.

        runs, dead_letters: seconds that each is kept. Beside them the last 100 runs of each sync,
        its last complete one, unfinished ones and those with dead letters are kept.
        """

    def export_state(self, *, history: bool = False) -> dict[str, object]:
        """Windows, and the runs if asked for, JSON-ready; never a payload."""

    def import_state(self, document: Mapping[str, object], *, force: bool = False) -> Imported:
        """Set the windows, and add the runs, of what `export_state` returned, or nothing of it.

        Raises ConfigError when it is no such document; LeaseError while a run of one of its syncs
        is live; UnusableState, unless force, where a sync here is further or has an unfinished run.
        """

    def close(self) -> None:
        """Release connections; idempotent."""
