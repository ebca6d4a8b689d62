"""A Run driven with a source, a store and deliverers that live in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.checkpoint.ledger import Ledger
from pipeline.destination.file import File
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.events import Event
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
from pipeline.ports import ALONE, WHOLE, DryRun, Frame, OpenRun, RunStore, Shard, Standing
from pipeline.run.engine import execute
from pipeline.run.parts import RunParts
from pipeline.run.report import RunReport
from pipeline.run.route import LaneLimits, Route
from pipeline.send.cut import refuse

SCHEMA = pa.schema([("userId", pa.string()), ("x", pa.int64())])
WINDOW = Window(start=100, sequence=2)
LIMITS = Limits(payload_bytes=1_000, batch_bytes=5_000, batch_rows=4)


@dataclass
class MemoryFrame:
    span: Span
    batch: pa.RecordBatch
    nbytes: int = 100

    def record_batch(self) -> pa.RecordBatch:
        return self.batch


@dataclass
class MemorySource:
    """Streams of so many rows, five to a frame. fault: called before each frame.

    hang_start: called when the query would begin, which then never ends.
    """

    streams: Sequence[int]
    fault: Callable[[int, int], None] = lambda _stream, _row: None
    bad: frozenset[int] = frozenset()
    started: list[str] = field(default_factory=list)
    read_from: list[tuple[int, int]] = field(default_factory=list)
    hang_at: tuple[int, int] | None = None
    begin_fault: Exception | None = None
    hang_start: Callable[[], None] | None = None
    activity: str = ""

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None: ...

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
            self.hang_start()
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

    def begin(
        self, sync: str, fingerprint: str, *, full: bool = False, shard: Shard = WHOLE
    ) -> OpenRun:
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

    def follow(self, run: OpenRun) -> OpenRun:
        raise AssertionError  # nobody shares it

    def attach(self, run: OpenRun, reading: Reading) -> None:
        self.log.append(("attach", run.id))
        self.open = replace(run, reading=reading)

    def restart(
        self, run: OpenRun, reason: str, *, same_query: bool = False, done: Collection[str] = ()
    ) -> OpenRun:
        self.log.append(("restart", reason))
        finished = (run.done | {*done}) if same_query else frozenset[str]()
        counts = self.open.counts if self.open else {}
        self.checkpoints = {}
        self.open = replace(
            run,
            id=f"{run.id}'",
            attempt=run.attempt + 1,
            reading=None,
            checkpoints={},
            counts={name: each for name, each in counts.items() if name in finished},
            query_key=run.job_key if same_query else None,
            done=finished,
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
    ) -> Standing:
        if self.commit_fault:
            raise self.commit_fault
        self.log.append(("commit", dict(checkpoints)))
        self.checkpoints |= checkpoints
        assert self.open is not None
        self.open = replace(
            self.open,
            checkpoints=dict(self.checkpoints),
            counts={**self.open.counts, **counts},
            resumed=True,
        )
        return ALONE

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


async def run(
    source: MemorySource,
    store: RunStore,
    deliverers: Mapping[str, MemoryDeliverer],
    *,
    stop: asyncio.Event | None = None,
    events: list[Event] | None = None,
    observer: Callable[[Event], None] | None = None,
    tolerates: Callable[[int, int], bool] = lambda _bad, _read: True,
    drain: float = 5.0,
    call: Call = Call.IDENTIFY,
    buffer_bytes: int = 200_000,
    users: bool = False,
    shard: Shard = WHOLE,
    shares: list[tuple[int, int]] | None = None,
    clock: Callable[[], float] = lambda: 300.0,
) -> RunReport:
    """shares: gets the parts of the rate limit that were told, each time another one."""

    def share(place: int, of: int) -> None:
        if shares is not None and shares[-1:] != [(place, of)]:
            shares.append((place, of))

    heard = [] if events is None else events
    parts = RunParts(
        sync="users",
        fingerprint="f",
        full=False,
        source=source,
        routes=[
            Route(destination=File(name=name, limits=LIMITS), deliverer=deliverer, share=share)
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
            users=users,
        ),
        ledger=Ledger,
        store=store,
        limits=LaneLimits(buffer_bytes=buffer_bytes, streams=2, drain=drain, tolerates=tolerates),
        threads=2,
        observer=observer or heard.append,
        clock=clock,
        shard=shard,
    )
    return await execute(parts, stop or asyncio.Event())


def everything(streams: Sequence[int]) -> list[tuple[int, int]]:
    return [(stream, row) for stream, rows in enumerate(streams) for row in range(rows)]
