"""One Run driven with a source, a store and deliverers that live in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.checkpoint.ledger import Ledger
from pipeline.destination.file import File
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.errors import (
    ConfigError,
    DestinationError,
    LeaseError,
    ReadingExpired,
    SourceError,
    StateError,
    TooManyRejected,
)
from pipeline.events import Buffered, Encoded, Event, Finished, Settled, Started
from pipeline.model import (
    Batch,
    Call,
    Counts,
    DeadLetter,
    Delivery,
    Limits,
    Reading,
    Result,
    Span,
    Window,
)
from pipeline.ports import DryRun, Frame, OpenRun
from pipeline.run.engine import RunParts, execute
from pipeline.run.lane import LaneLimits, Route
from pipeline.run.report import RunReport
from pipeline.send.cut import refuse

SCHEMA = pa.schema([("userId", pa.string()), ("x", pa.int64())])
WINDOW = Window(start=100, sequence=2)


@dataclass
class MemoryFrame:
    span: Span
    batch: pa.RecordBatch
    nbytes: int = 100

    def record_batch(self) -> pa.RecordBatch:
        return self.batch


@dataclass
class MemorySource:
    """Streams of so many rows, five to a frame. fault: called before each frame."""

    streams: Sequence[int]
    fault: Callable[[int, int], None] = lambda _stream, _row: None
    bad: frozenset[int] = frozenset()
    started: list[str] = field(default_factory=list)
    read_from: list[tuple[int, int]] = field(default_factory=list)
    hang_at: tuple[int, int] | None = None
    begin_fault: Exception | None = None
    hang_start: bool = False

    def sql(self, window: Window) -> str:
        return ""

    async def dry_run(self, window: Window) -> DryRun:
        return DryRun(bytes_processed=0, statement_type="SELECT")

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        raise AssertionError

    async def start(self, window: Window, job_key: str) -> Reading:
        self.started.append(job_key)
        if self.begin_fault:
            raise self.begin_fault
        if self.hang_start:
            await asyncio.Event().wait()
        names = tuple(f"s{index}" for index in range(len(self.streams)))
        return Reading(
            streams=names,
            schema=SCHEMA.serialize().to_pybytes(),
            query_started=200,
            rows=sum(self.streams),
            bytes_billed=10,
        )

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        self.read_from.append((stream, first))
        for row in range(first, self.streams[stream], 5):
            if self.hang_at == (stream, row):
                await asyncio.Event().wait()
            self.fault(stream, row)
            rows = range(row, min(row + 5, self.streams[stream]))
            ids = [None if r in self.bad else f"{stream}-{r}" for r in rows]
            batch = pa.record_batch(
                [pa.array(ids, pa.string()), pa.array(rows, pa.int64())], schema=SCHEMA
            )
            yield MemoryFrame(Span(stream=stream, first=row, rows=len(rows)), batch)

    async def close(self) -> None: ...


class MemoryStore:
    """Remembers every call in order."""

    def __init__(self) -> None:
        self.open: OpenRun | None = None
        self.log: list[tuple[str, Any]] = []
        self.letters: list[DeadLetter] = []
        self.checkpoints: dict[tuple[str, int], int] = {}
        self.results: list[Result] = []
        self.commit_fault: Exception | None = None
        self.letter_faults: list[Exception] = []

    def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
        self.log.append(("begin", full))
        if self.open is None:
            self.open = OpenRun(
                id="run-1",
                sync=sync,
                window=WINDOW,
                fingerprint=fingerprint,
                attempt=1,
                reading=None,
                checkpoints={},
                counts={},
                resumed=False,
            )
        return self.open

    def attach(self, run: OpenRun, reading: Reading) -> None:
        self.log.append(("attach", run.id))
        self.open = replace(run, reading=reading)

    def restart(self, run: OpenRun, reason: str) -> OpenRun:
        self.log.append(("restart", reason))
        self.checkpoints = {}
        self.open = replace(
            run, id=f"{run.id}'", attempt=run.attempt + 1, reading=None, checkpoints={}
        )
        return self.open

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        if self.letter_faults:
            raise self.letter_faults.pop()
        self.log.append(("letters", [(x.stream, x.row) for x in letters]))
        self.letters += [x for x in letters if x not in self.letters]

    def commit(
        self, run: OpenRun, checkpoints: Mapping[tuple[str, int], int], counts: Mapping[str, Counts]
    ) -> None:
        if self.commit_fault:
            raise self.commit_fault
        self.log.append(("commit", dict(checkpoints)))
        self.checkpoints |= checkpoints
        assert self.open is not None
        self.open = replace(
            self.open, checkpoints=dict(self.checkpoints), counts=dict(counts), resumed=True
        )

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> None:
        self.log.append(("finish", result))
        self.results.append(result)


class MemoryDeliverer:
    """Delivers at once, but for what `behave` raises, awaits or rejects."""

    def __init__(self, behave: Callable[[Batch], Any] = lambda _batch: None) -> None:
        self.behave = behave
        self.delivered: list[tuple[int, int]] = []
        self.sent = Counts()

    async def deliver(self, batch: Batch) -> Delivery:
        rejected = self.behave(batch)
        if asyncio.iscoroutine(rejected):
            rejected = await rejected
        letters = tuple(
            x for x in refuse(batch.slices, "rejected_400", "no") if x.row in (rejected or ())
        )
        bad = {letter.row for letter in letters}
        self.delivered += [
            (x.stream, x.row) for x in refuse(batch.slices, "", "") if x.row not in bad
        ]
        self.sent += Counts(requests=1, bytes_sent=batch.nbytes)
        return Delivery(batch=batch, rejections=letters)


LIMITS = Limits(payload_bytes=1_000, batch_bytes=5_000, batch_rows=4)


async def run(
    source: MemorySource,
    store: MemoryStore,
    deliverers: Mapping[str, MemoryDeliverer],
    *,
    stop: asyncio.Event | None = None,
    events: list[Event] | None = None,
    tolerates: Callable[[int, int], bool] = lambda _bad, _read: True,
    drain: float = 5.0,
    call: Call = Call.IDENTIFY,
    buffer_bytes: int = 200_000,
) -> RunReport:
    heard = [] if events is None else events
    parts = RunParts(
        sync="users",
        fingerprint="f",
        full=False,
        source=source,
        routes=[
            Route(destination=File(name=name, limits=LIMITS), deliverer=deliverer)
            for name, deliverer in deliverers.items()
        ],
        encoder=lambda route, window, schema: CallEncoder(
            sync="users",
            call=call,
            window=window,
            schema=schema,
            rules=Rules(),
            separator=b"\n",
            payload_bytes=1_000,
        ),
        ledger=Ledger,
        store=store,
        limits=LaneLimits(buffer_bytes=buffer_bytes, streams=2, drain=drain, tolerates=tolerates),
        threads=2,
        observer=heard.append,
        clock=lambda: 300.0,
    )
    return await execute(parts, stop or asyncio.Event())


def everything(streams: Sequence[int]) -> list[tuple[int, int]]:
    return [(stream, row) for stream, rows in enumerate(streams) for row in range(rows)]


async def test_every_row_is_delivered_once_and_the_window_closes() -> None:
    source, store, api = MemorySource([12, 7, 0, 1]), MemoryStore(), MemoryDeliverer()
    events: list[Event] = []
    report = await run(source, store, {"api": api}, events=events)
    assert sorted(api.delivered) == everything([12, 7, 0, 1])
    assert (report.result, report.exit_code, report.error) == (Result.COMPLETE, 0, None)
    assert report.destinations["api"].delivered == report.rows == 20
    assert store.checkpoints == {("api", 0): 12, ("api", 1): 7, ("api", 3): 1}
    assert [entry[0] for entry in store.log if entry[0] != "commit"] == [
        "begin",
        "attach",
        "finish",
    ]
    assert store.log[-1] == ("finish", Result.COMPLETE)
    assert isinstance(events[0], Started)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.result, finished.bytes_billed, finished.at) == (Result.COMPLETE, 10, 300.0)


async def test_a_result_without_rows_completes() -> None:
    store = MemoryStore()
    report = await run(MemorySource([]), store, {"api": MemoryDeliverer()})
    assert (report.result, store.results) == (Result.COMPLETE, [Result.COMPLETE])


async def test_what_is_read_is_settled_or_in_flight_after_every_event() -> None:
    events: list[Event] = []
    source = MemorySource([40, 30], bad=frozenset({3, 17}))
    api = MemoryDeliverer(lambda batch: [20] if batch.span.first <= 20 < batch.span.end else [])
    report = await run(source, MemoryStore(), {"api": api}, events=events)
    read = settled = 0
    for event in events:
        if isinstance(event, Encoded):
            read += event.rows
            settled += sum(event.invalid.values())
        elif isinstance(event, Settled):
            settled += event.delivered + sum(event.rejected.values())
        elif isinstance(event, Buffered):
            assert event.rows == read - settled >= 0
    assert read == settled == 70
    counts = report.destinations["api"]
    assert (counts.delivered, counts.dead_lettered) == (64, 6)


async def test_dead_letters_are_durable_before_the_checkpoint_that_covers_them() -> None:
    source, store = MemorySource([10], bad=frozenset({0, 9})), MemoryStore()
    api = MemoryDeliverer(lambda batch: [4] if batch.span.first <= 4 < batch.span.end else [])
    await run(source, store, {"api": api})
    assert sorted(letter.row for letter in store.letters) == [0, 4, 9]
    known: set[int] = set()
    for kind, what in store.log:
        if kind == "letters":
            known |= {row for _, row in what}
        if kind == "commit":
            assert {row for row in (0, 4, 9) if row < what.get(("api", 0), 0)} <= known
    assert store.checkpoints == {("api", 0): 10}


async def test_rows_that_are_all_invalid_settle_without_a_request() -> None:
    api = MemoryDeliverer()
    store = MemoryStore()
    report = await run(MemorySource([7], bad=frozenset(range(7))), store, {"api": api})
    assert api.delivered == []
    assert store.checkpoints == {("api", 0): 7}
    assert report.destinations["api"].dead_lettered == 7


async def test_a_stop_drains_what_was_sent_and_the_next_run_goes_on_there() -> None:
    stop, sent = asyncio.Event(), asyncio.Event()

    async def slow(_batch: Batch) -> None:
        stop.set()
        await asyncio.sleep(0)
        sent.set()

    source, store, api = MemorySource([20], hang_at=(0, 10)), MemoryStore(), MemoryDeliverer(slow)
    report = await run(source, store, {"api": api}, stop=stop)
    assert sent.is_set()
    assert (report.result, report.exit_code) == (Result.INTERRUPTED, 75)
    assert store.results == [Result.INTERRUPTED]
    settled = store.checkpoints[("api", 0)]
    assert settled == len(api.delivered) > 0

    source.hang_at = None
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert source.started == ["run-1"]  # one query for both
    assert source.read_from[-1] == (0, settled)
    assert sorted(api.delivered) == everything([20])
    assert report.destinations["api"] == replace(
        report.destinations["api"], read=20, delivered=20, dead_lettered=0
    )


async def test_a_drain_does_not_wait_for_ever() -> None:
    stop = asyncio.Event()

    async def stuck(_batch: Batch) -> None:
        stop.set()
        await asyncio.Event().wait()

    store = MemoryStore()
    report = await run(
        MemorySource([20]), store, {"api": MemoryDeliverer(stuck)}, stop=stop, drain=0.0
    )
    assert report.exit_code == 75
    assert store.checkpoints == {}


async def test_a_stop_while_the_query_runs_leaves_the_run_open() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    store = MemoryStore()
    report = await run(
        MemorySource([5], hang_start=True), store, {"api": MemoryDeliverer()}, stop=stop
    )
    assert (report.exit_code, store.results) == (75, [Result.INTERRUPTED])
    assert ("attach", "run-1") not in store.log


async def test_a_destination_that_fails_costs_the_others_nothing() -> None:
    def down(_batch: Batch) -> None:
        raise DestinationError("down")

    bad, good = MemoryDeliverer(down), MemoryDeliverer()
    source, store = MemorySource([30]), MemoryStore()
    report = await run(source, store, {"bad": bad, "good": good})
    assert (report.result, report.exit_code, str(report.error)) == (Result.FAILED, 75, "down")
    assert sorted(good.delivered) == everything([30])
    assert store.checkpoints == {("good", 0): 30}

    bad.behave = lambda _batch: None
    good.delivered.clear()
    report = await run(source, store, {"bad": bad, "good": good})
    assert report.result is Result.COMPLETE
    assert sorted(bad.delivered) == everything([30])
    assert good.delivered == []


async def test_a_source_that_fails_leaves_the_run_open() -> None:
    def fault(_stream: int, row: int) -> None:
        if row == 10:
            raise SourceError("gone")

    store = MemoryStore()
    report = await run(MemorySource([20], fault=fault), store, {"api": MemoryDeliverer()})
    assert (report.exit_code, store.results) == (75, [Result.FAILED])


async def test_an_expired_reading_starts_the_window_again() -> None:
    gone = [True]

    def fault(_stream: int, row: int) -> None:
        if row == 10 and gone.pop() if gone else False:
            raise ReadingExpired("expired")

    source, store, api = MemorySource([20], fault=fault), MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert source.started == ["run-1", "run-1'"]
    assert ("restart", "expired") in store.log
    assert set(api.delivered) == set(everything([20]))


async def test_a_reading_that_expires_for_ever_ends_the_run() -> None:
    def fault(_stream: int, _row: int) -> None:
        raise ReadingExpired("expired")

    source = MemorySource([20], fault=fault)
    report = await run(source, MemoryStore(), {"api": MemoryDeliverer()})
    assert (report.exit_code, len(source.started)) == (75, 3)


async def test_columns_that_can_not_become_the_call_are_refused_before_anything_is_kept() -> None:
    store, api = MemoryStore(), MemoryDeliverer()
    report = await run(MemorySource([5]), store, {"api": api}, call=Call.TRACK)
    assert isinstance(report.error, ConfigError)
    assert report.exit_code == 78
    assert api.delivered == []
    assert "attach" not in [kind for kind, _ in store.log]


async def test_too_many_dead_letters_end_the_run_and_are_kept() -> None:
    source, store = MemorySource([50], bad=frozenset(range(10))), MemoryStore()
    report = await run(
        source, store, {"api": MemoryDeliverer()}, tolerates=lambda bad, read: bad <= 0.1 * read
    )
    assert isinstance(report.error, TooManyRejected)
    assert report.exit_code == 65
    assert len(store.letters) >= 6


async def test_a_commit_that_fails_ends_the_run() -> None:
    store = MemoryStore()
    store.commit_fault = StateError("disk full")
    report = await run(MemorySource([20]), store, {"api": MemoryDeliverer()})
    assert (report.result, report.exit_code, str(report.error)) == (Result.FAILED, 75, "disk full")
    assert store.results == []


@pytest.mark.slow
async def test_a_lost_lease_ends_a_run_that_waits() -> None:
    async def stuck(_batch: Batch) -> None:
        await asyncio.Event().wait()

    store = MemoryStore()
    store.commit_fault = LeaseError("taken over")
    report = await run(MemorySource([20]), store, {"api": MemoryDeliverer(stuck)})
    assert (report.exit_code, store.results) == (75, [])


async def test_a_lease_held_by_another_is_reported() -> None:
    class Busy(MemoryStore):
        def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
            raise LeaseError("another run is under way")

    report = await run(MemorySource([1]), Busy(), {"api": MemoryDeliverer()})
    assert (report.run, report.exit_code) == ("", 75)
    assert report.as_dict()["error"] == "another run is under way"


async def test_our_own_fault_is_raised_after_the_run_is_closed() -> None:
    def bug(_batch: Batch) -> None:
        raise ZeroDivisionError

    store = MemoryStore()
    with pytest.raises(ZeroDivisionError):
        await run(MemorySource([5]), store, {"api": MemoryDeliverer(bug)})
    assert store.results == [Result.FAILED]


async def test_memory_is_bounded_by_the_budget() -> None:
    events: list[Event] = []
    gate = asyncio.Event()

    async def wait(_batch: Batch) -> None:
        await gate.wait()

    asyncio.get_running_loop().call_later(0.05, gate.set)
    await run(
        MemorySource([200, 200]),
        MemoryStore(),
        {"api": MemoryDeliverer(wait)},
        events=events,
        buffer_bytes=60_000,
    )
    most = max(event.nbytes for event in events if isinstance(event, Buffered))
    assert 10_000 < most <= 60_000 + 2 * (5_000 + 4_096)


async def test_a_huge_frame_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = CallEncoder.encode

    def noted(self: CallEncoder, batch: pa.RecordBatch, span: Span) -> Any:
        sizes.append(batch.num_rows)
        assert span.rows == batch.num_rows
        return encode(self, batch, span)

    monkeypatch.setattr("pipeline.run.lane._PIECE_BYTES", 40)
    monkeypatch.setattr(CallEncoder, "encode", noted)
    source, store, api = (
        MemorySource([23], bad=frozenset({3, 4, 22})),
        MemoryStore(),
        MemoryDeliverer(),
    )
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert max(sizes) < 5
    assert sorted(api.delivered) == [row for row in everything([23]) if row[1] not in {3, 4, 22}]
    assert [x.row for x in store.letters] == [3, 4, 22]
    assert store.checkpoints == {("api", 0): 23}


async def test_dead_letters_that_could_not_be_written_are_written_by_the_next_commit() -> None:
    source, store = MemorySource([20], bad=frozenset({2, 3, 11}), hang_at=(0, 15)), MemoryStore()
    store.letter_faults = [StateError("locked")]
    report = await run(source, store, {"api": MemoryDeliverer()})
    # The commit in mid-run failed and ended the run; the last one made up for it.
    assert (report.exit_code, str(report.error)) == (75, "locked")
    covered = {row for row in (2, 3, 11) if row < store.checkpoints.get(("api", 0), 0)}
    assert covered <= {letter.row for letter in store.letters}
    source.hang_at = None
    report = await run(source, store, {"api": MemoryDeliverer()})
    assert sorted(letter.row for letter in store.letters) == [2, 3, 11]
    assert (report.destinations["api"].delivered, report.destinations["api"].dead_lettered) == (
        17,
        3,
    )


async def test_a_stop_is_heard_after_the_last_row_is_read() -> None:
    stop = asyncio.Event()

    async def stuck(_batch: Batch) -> None:
        asyncio.get_running_loop().call_later(0.02, stop.set)
        await asyncio.Event().wait()

    store = MemoryStore()
    report = await run(
        MemorySource([3]), store, {"api": MemoryDeliverer(stuck)}, stop=stop, drain=0.0
    )
    assert (report.exit_code, store.results) == (75, [Result.INTERRUPTED])


async def test_failed_runs_do_not_count_a_row_twice() -> None:
    def down(_batch: Batch) -> None:
        raise DestinationError("down")

    source, store = MemorySource([10], bad=frozenset({1, 8})), MemoryStore()
    api = MemoryDeliverer(down)
    for _ in range(4):
        report = await run(source, store, {"api": api}, tolerates=lambda bad, _rows: bad <= 2)
        assert report.exit_code == 75
    api.behave = lambda _batch: None
    report = await run(source, store, {"api": api}, tolerates=lambda bad, _rows: bad <= 2)
    counts = report.destinations["api"]
    assert (counts.read, counts.delivered, counts.dead_lettered) == (10, 8, 2)


async def test_an_old_window_may_expire_in_every_new_process() -> None:
    store = MemoryStore()
    store.open = OpenRun(
        id="old",
        sync="users",
        window=WINDOW,
        fingerprint="f",
        attempt=9,
        reading=None,
        checkpoints={},
        counts={},
        resumed=True,
    )
    gone = [ReadingExpired("expired")]

    def fault(_stream: int, _row: int) -> None:
        if gone:
            raise gone.pop()

    report = await run(MemorySource([5], fault=fault), store, {"api": MemoryDeliverer()})
    assert report.result is Result.COMPLETE


@pytest.mark.parametrize(
    ("streams", "bad", "capacity"),
    [
        ([5], range(5), 17_000),
        ([5], (0, 1), 16_900),
        ([5, 5], range(5), 20_000),
        ([10, 10], (0, 1, 5, 6), 34_000),
        ([40, 40, 40], (0, 7, 20), 1),
    ],
)
async def test_a_budget_smaller_than_a_frame_and_its_dead_letters_only_slows_down(
    streams: list[int], bad: Sequence[int], capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    api = MemoryDeliverer()
    async with asyncio.timeout(20):
        report = await run(
            MemorySource(streams, bad=frozenset(bad)),
            MemoryStore(),
            {"api": api},
            buffer_bytes=capacity,
        )
    assert report.result is Result.COMPLETE
    counts = report.destinations["api"]
    assert counts.delivered + counts.dead_lettered == sum(streams)


async def test_frames_smaller_than_a_batch_are_bounded_too() -> None:
    flying = [0, 0]

    async def stuck(batch: Batch) -> None:
        flying[0] += 1
        flying[1] += batch.nbytes
        await asyncio.Event().wait()

    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, stop.set)
    source = MemorySource([20_000])  # five rows to a frame, four to a batch
    await run(
        source,
        MemoryStore(),
        {"api": MemoryDeliverer(stuck)},
        stop=stop,
        drain=0.0,
        buffer_bytes=100_000,
    )
    assert 1 <= flying[0] < 30
    assert flying[1] < 100_000


async def test_a_commit_that_is_under_way_when_the_query_ends_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)

    class Slow(MemoryStore):
        def commit(
            self,
            run: OpenRun,
            checkpoints: Mapping[tuple[str, int], int],
            counts: Mapping[str, Counts],
        ) -> None:
            time.sleep(0.02)
            super().commit(run, checkpoints, counts)

    class Later(MemorySource):
        async def start(self, window: Window, job_key: str) -> Reading:
            await asyncio.sleep(0.01)
            return await super().start(window, job_key)

    async def wait(_batch: Batch) -> None:
        await asyncio.sleep(0.03)

    report = await run(Later([9]), Slow(), {"api": MemoryDeliverer(wait)})
    assert report.result is Result.COMPLETE
