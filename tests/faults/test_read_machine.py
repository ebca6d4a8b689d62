"""Faults, crashes, stops, expired sessions and lost results in any order, over whole runs.

Everything is in memory and the waiting is noted instead of done: only the engine, its state and
the reader are real. In the end the faults stop; then a run must complete, every row must have
arrived under one message id, and no row more often than crashes and new sessions explain.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from fake_read_api import SCHEMA, FakeReadApi, Trouble
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory_run import MemoryStore, run

from pipeline.errors import DestinationError, ResultExpired
from pipeline.events import Event, Restarted
from pipeline.model import Batch, Counts, Delivery, Reading, Result, Window
from pipeline.ports import DryRun, Frame
from pipeline.run.report import RunReport
from pipeline.source.read import StreamReader

PASSING = ("UNAVAILABLE", "UNKNOWN", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
WRONG = ("truncated", "garbled", "uncounted", "ended", "silent", "reordered")
FATAL = ("DATA_LOSS", "PERMISSION_DENIED", "INTERNAL", "UNAUTHENTICATED")
TROUBLES = st.builds(
    Trouble,
    kind=st.sampled_from((*PASSING, *WRONG, *FATAL)),
    after=st.integers(0, 3),
    retry_after=st.sampled_from((None, 0.0, 5.0, 10_000.0)),
)


@dataclass
class Service:
    """A Source over the fake channel: what a BigQuery with one table would do."""

    api: FakeReadApi
    results: set[str] = field(default_factory=set)
    queries: list[str] = field(default_factory=list)
    activity: str = ""

    async def start(self, window: Window, job_key: str) -> Reading:
        if job_key not in self.results:
            if job_key in self.queries:
                raise ResultExpired("the result is gone.")
            self.queries.append(job_key)
            self.results.add(job_key)
        self.api.session += 1
        return Reading(
            streams=self.api.names(),
            schema=SCHEMA.serialize().to_pybytes(),
            query_started=200,
            rows=sum(self.api.streams),
            bytes_billed=10,
        )

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        reader = StreamReader(
            self.api,
            pa.ipc.read_schema(pa.py_buffer(reading.schema)),
            where="sync users",
            sleep=self.api.sleep,
            clock=self.api.clock,
            uniform=lambda low, high: (low + high) / 2,
        )
        return reader.read(reading.streams[stream], stream, first)

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None: ...

    def sql(self, window: Window) -> str:
        return ""

    async def dry_run(self, window: Window) -> DryRun:
        raise AssertionError

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        raise AssertionError

    async def close(self) -> None: ...


@dataclass
class Recorder:
    """A deliverer that knows every user and message id; crash: at which batch, by whom."""

    arrived: Counter[tuple[str, str]] = field(default_factory=Counter)
    lately: Counter[str] = field(default_factory=Counter)  # users, in this run
    sent: Counts = field(default_factory=Counts)
    batches: int = 0
    crash: int | None = None
    stop: int | None = None
    stopping: asyncio.Event | None = None

    async def deliver(self, batch: Batch) -> Delivery:
        await asyncio.sleep(0)
        self.batches += 1
        if self.batches == self.stop and self.stopping is not None:
            self.stopping.set()
        if self.batches == self.crash:
            raise DestinationError("down")
        for piece in batch.slices:
            for line in bytes(piece.view).splitlines():
                call = json.loads(line)
                self.arrived[call["userId"], call["messageId"]] += 1
                self.lately[call["userId"]] += 1
        return Delivery(batch=batch)


class ReadMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(
        streams=st.lists(st.integers(0, 40), min_size=1, max_size=4), message=st.integers(1, 9)
    )
    def begin(self, streams: list[int], message: int) -> None:
        self.api = FakeReadApi(streams, message=message)
        self.service = Service(self.api)
        self.store = MemoryStore()
        self.sinks = {"a": Recorder(), "b": Recorder()}
        self.explained = {"a": 0, "b": 0}  # rows that may have come twice
        self.done = False

    @property
    def rows(self) -> int:
        return sum(self.api.streams)

    @rule(troubles=st.lists(TROUBLES, max_size=12))
    def trouble(self, troubles: list[Trouble]) -> None:
        self.api.troubles.extend(troubles)

    @rule()
    def expire(self) -> None:
        self.api.session += 1

    @rule()
    def lose(self) -> None:
        self.api.session += 1
        self.service.results.clear()

    @rule(
        crash=st.none() | st.integers(1, 9),
        stop=st.none() | st.integers(1, 9),
        who=st.sampled_from(["a", "b"]),
    )
    def attempt(self, crash: int | None, stop: int | None, who: str) -> None:
        # How far a run gets is the threads' business: no rule may depend on it.
        if not self.done:
            self._run(crash=crash, stop=stop, who=who)

    def _run(self, *, crash: int | None, stop: int | None, who: str) -> RunReport:
        events: list[Event] = []

        async def once() -> RunReport:
            stopping = asyncio.Event()
            for sink in self.sinks.values():
                sink.batches, sink.crash, sink.stop = 0, None, None
                sink.lately.clear()
                sink.stopping = stopping
            self.sinks[who].crash, self.sinks[who].stop = crash, stop
            return await run(self.service, self.store, self.sinks, stop=stopping, events=events)  # type: ignore[arg-type]  # fakes of the same ports

        report = asyncio.run(once())
        restarts = sum(isinstance(event, Restarted) for event in events)
        assert restarts == sum(report.restarts.values()) <= 2
        for name, sink in self.sinks.items():
            # One process sends a row once for each session that it reads, whatever breaks.
            assert max(sink.lately.values(), default=0) <= 1 + restarts
            # A restart may send all again; a run that ends early, what was in flight.
            self.explained[name] += restarts * self.rows
            if report.result is not Result.COMPLETE:
                self.explained[name] += self.rows
        if report.result is Result.COMPLETE:
            self._check_complete(report)
        return report

    def _check_complete(self, report: RunReport) -> None:
        self.done = True
        everyone = {f"{s}-{row}" for s, rows in enumerate(self.api.streams) for row in range(rows)}
        for name, sink in self.sinks.items():
            assert {user for user, _ in sink.arrived} == everyone
            assert len(sink.arrived) == self.rows  # one message id each
            assert sink.arrived.total() <= self.rows + self.explained[name]
            assert report.destinations[name].delivered == self.rows
            assert report.destinations[name].read == self.rows

    @invariant()
    def no_call_is_left_open(self) -> None:
        if hasattr(self, "api"):
            assert self.api.open_calls == 0

    @invariant()
    def nothing_is_checkpointed_that_did_not_arrive(self) -> None:
        if not hasattr(self, "store") or self.done:
            return
        for (name, stream), rows in self.store.checkpoints.items():
            here = {user for user, _ in self.sinks[name].arrived}
            assert {f"{stream}-{row}" for row in range(rows)} <= here

    def teardown(self) -> None:
        if not hasattr(self, "api") or self.done:
            return
        self.api.troubles.clear()
        # A session or result lost while no run was under way costs this run one new attempt.
        report = self._run(crash=None, stop=None, who="a")
        assert report.error is None
        assert report.result is Result.COMPLETE


TestReadMachine = ReadMachine.TestCase
TestReadMachine.settings = settings(
    max_examples=60,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
