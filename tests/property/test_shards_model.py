"""Shards of a run that join, commit, sleep, crash, come back, begin anew and end in any order.

The oracle is which rows were made durable, who ended well, and when each was last heard of. It
knows no epochs, places, folds or tables. What it holds the store to: a run is closed once, by the
last of its shards, never early; its counts are those of the durable rows; who was replaced, or
whose run went on without it, changes nothing.
"""

from __future__ import annotations

import copy
import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.schema import SHARDS
from pipeline.checkpoint.shard_leases import Member
from pipeline.errors import LeaseError, PipelineError, RunMoved, ShardHeld, UnusableState
from pipeline.model import Counts, DeadLetter, Reading, Result
from pipeline.ports import OpenRun, Shard

LEASE = 15.0
ROWS = {0: 4, 1: 3, 2: 2, 3: 5, 4: 1}
READING = Reading(
    streams=tuple("abcde"), schema=b"x", query_started=7, rows=sum(ROWS.values()), rows_exact=True
)
INDEXES, WHICH = st.integers(0, 2), st.integers(0, 5)


def is_dead(stream: int, row: int) -> bool:
    """For any row it is always the same whether it can be delivered."""
    return (stream + row) % 4 == 1


def dead_in(stream: int, first: int, end: int) -> int:
    return sum(is_dead(stream, row) for row in range(first, end))


@dataclass
class Process:
    """What one process holds in memory, as the engine does."""

    store: SqlStore
    index: int
    run: OpenRun
    heard: float
    settled: dict[int, int] = field(default_factory=dict)
    dead: int = 0

    def go_on_with(self, run: OpenRun) -> None:
        self.run = run
        self.settled = {stream: rows for (_, stream), rows in run.checkpoints.items()}
        self.dead = run.counts.get("cio", Counts()).dead_lettered

    @property
    def streams(self) -> list[int]:
        return [stream for stream in ROWS if self.run.streams.has(stream)]

    @property
    def known(self) -> dict[int, int]:
        return {stream: self.settled.get(stream, 0) for stream in self.streams}

    @property
    def whole(self) -> bool:
        return all(self.settled.get(stream, 0) == ROWS[stream] for stream in self.streams)

    @property
    def counts(self) -> dict[str, Counts]:
        read = sum(self.settled.get(stream, 0) for stream in self.streams)
        return {"cio": Counts(read=read, delivered=read - self.dead, dead_lettered=self.dead)}


class Jobs(RuleBasedStateMachine):
    """One sync and destination, one Job after another, and between them a process alone."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="retl-shards-"))
        self.now = 1_000.0
        self.numbers = itertools.count()
        self.state = SqlStore(
            f"sqlite:///{self.folder}/state.db",
            holder="looker:1:x",
            now=lambda: self.now,
            token=lambda: f"t{next(self.numbers)}",
        )
        self.job, self.of = "job-0", 3
        self.live: dict[int, Process] = {}
        self.asleep: dict[int, list[Process]] = {}  # until another has the shard, it could go on
        self.fenced: list[Process] = []
        # The oracle.
        self.durable = dict.fromkeys(ROWS, 0)
        self.done: set[int] = set()
        self.gone: set[int] = set()  # ended well before the attempt that is made now
        self.closed, self.begun = False, False
        self.completed = 0
        self.lost: dict[str, int] = {}  # Job whose run others took -> how many were complete then

    def teardown(self) -> None:
        self.state.close()
        shutil.rmtree(self.folder)

    def open(self) -> SqlStore:
        """Another process's: with the connections of this one, which cost most of it."""
        store = copy.copy(self.state)
        store._holder = f"host{next(self.numbers)}:1:x"
        return store

    def held_till(self, index: int) -> float:
        """When a shard is free, as far as the store can know."""
        holders = [*self.asleep.get(index, []), *([self.live[index]] if index in self.live else [])]
        return max([one.heard + LEASE for one in holders], default=0.0)

    def reading(self) -> list[Process]:
        return [one for one in self.live.values() if one.run.reading is not None]

    def one_of(self, which: int, *, reading: bool = False) -> Process:
        found = self.reading() if reading else list(self.live.values())
        return sorted(found, key=lambda one: one.index)[which % len(found)]

    def nobody_is_at_work(self) -> bool:
        return all(self.held_till(index) <= self.now for index in range(self.of))

    def leave_all(self) -> None:
        """Whoever is left has lost its shard."""
        self.fenced += [*self.live.values(), *itertools.chain(*self.asleep.values())]
        self.live, self.asleep, self.done, self.gone = {}, {}, set(), set()

    # ------------------------------------------------------------------ a shard

    @initialize()
    def first(self) -> None:
        self.join(0)

    @rule(index=INDEXES)
    def join(self, index: int) -> None:
        """Kubernetes starts an index, once or once too often."""
        if index >= self.of:
            return
        store, shard = self.open(), Shard(index=index, of=self.of, job=self.job)
        over = self.closed or index in self.done | self.gone
        if not over and self.held_till(index) > self.now:
            with pytest.raises(ShardHeld):
                store.begin("users", "f", shard=shard)
            return
        run = store.begin("users", "f", shard=shard)
        self.begun = True
        assert run.over == over
        if over:
            return
        replaced = [self.live.pop(index)] if index in self.live else []
        self.fenced += replaced + self.asleep.pop(index, [])
        process = Process(store, index, run, self.now)
        process.go_on_with(run)
        self.live[index] = process
        # What it knows of its streams is what was durable, and exactly that.
        assert process.known == {stream: self.durable[stream] for stream in process.streams}

    @rule()
    def join_all(self) -> None:
        for index in range(self.of):
            if index not in self.live:
                self.join(index)
        for which in range(len(self.live)):
            self.look(which)

    @precondition(lambda self: self.live)
    @rule(which=WHICH)
    def look(self, which: int) -> None:
        """Start the source, or see whether another has."""
        process = self.one_of(which)
        self.follow(process)
        if process.run.starts and process.run.reading is None:
            process.store.attach(process.run, READING)
            self.follow(process)
            assert process.run.reading == READING

    def follow(self, process: Process) -> None:
        before = process.run
        following = process.store.follow(before)
        process.heard = self.now
        if following.id != before.id or before.reading is None:
            process.go_on_with(following)

    @precondition(lambda self: self.reading())
    @rule(which=WHICH, rows=st.lists(st.sampled_from([0, 1, 2, 5, 5]), min_size=5, max_size=5))
    def commit(self, which: int, rows: list[int]) -> None:
        """Some more rows of its streams are settled, and made durable."""
        process = self.one_of(which, reading=True)
        kept, dead = dict(process.settled), process.dead
        for stream, more in zip(ROWS, rows, strict=True):
            if stream in process.streams:
                first = process.settled.get(stream, 0)
                end = process.settled[stream] = min(ROWS[stream], first + more)
                process.dead += dead_in(stream, first, end)
        checkpoints = {("cio", stream): count for stream, count in process.settled.items()}
        try:
            standing = process.store.commit(process.run, checkpoints, process.counts)
        except RunMoved:
            process.settled, process.dead = kept, dead
            self.follow(process)
            return
        process.heard = self.now
        self.durable |= process.settled
        assert standing.share.of == self.of - len(self.done | self.gone)
        mine = process.counts["cio"].dead_lettered
        others = standing.elsewhere.get("cio", Counts()).dead_lettered
        assert mine + others == sum(dead_in(s, 0, rows) for s, rows in self.durable.items())

    @precondition(lambda self: self.reading())
    @rule(which=WHICH)
    def go_to_the_end(self, which: int) -> None:
        process = self.one_of(which, reading=True)
        self.commit(which, [5] * 5)
        if self.live.get(process.index) is process and process.run.reading is not None:
            self.end(process)

    @precondition(lambda self: self.reading())
    @rule(which=WHICH)
    def believe_to_be_complete(self, which: int) -> None:
        """Its streams ended too early."""
        self.end(self.one_of(which, reading=True))

    def end(self, process: Process) -> None:
        index = process.index
        last = len(self.done | self.gone) == self.of - 1
        try:
            left = process.store.finish(process.run, Result.COMPLETE, process.counts)
        except RunMoved:
            self.follow(process)
            return
        process.heard = self.now
        assert last == (left is None or not left.over)
        if left is None:
            assert self.durable == ROWS
            self.closed, self.completed = True, self.completed + 1
            self.leave_all()
        elif left.over:
            self.fenced.append(self.live.pop(index))
            self.done.add(index)
        else:
            assert self.durable != ROWS
            process.go_on_with(left)
            assert process.known == self.durable  # all streams are its own now

    @precondition(lambda self: self.live)
    @rule(which=WHICH, result=st.sampled_from([Result.INTERRUPTED, Result.FAILED]))
    def stop(self, which: int, result: Result) -> None:
        """It may be started again at once."""
        process = self.one_of(which)
        try:
            process.store.finish(process.run, result, {}, "x")
        except RunMoved:
            self.follow(process)
        else:
            self.fenced.append(self.live.pop(process.index))

    @precondition(lambda self: self.live)
    @rule(which=WHICH)
    def crash(self, which: int) -> None:
        """Gone, or asleep: nobody can tell."""
        process = self.live.pop(self.one_of(which).index)
        self.asleep.setdefault(process.index, []).append(process)

    # Who has all rows is sent nothing again: that has tests of its own.
    @precondition(lambda self: self.reading() and self.durable != ROWS)
    @rule(which=WHICH, same_query=st.booleans())
    def expire(self, which: int, *, same_query: bool) -> None:
        """What it reads is gone: all unfinished shards begin anew."""
        process = self.one_of(which, reading=True)
        try:
            following = process.store.restart(process.run, "expired", same_query=same_query)
        except RunMoved:
            self.follow(process)
            return
        process.heard = self.now
        process.go_on_with(following)
        assert following.starts
        self.durable, self.gone = dict.fromkeys(ROWS, 0), self.gone | self.done
        self.done = set()

    # ------------------------------------------------------------------ all of them

    @rule(seconds=st.sampled_from([1.0, 6.0, LEASE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(of=st.integers(2, 3))
    def another_job(self, of: int) -> None:
        """The next Job: it goes on with what is left, once nobody is at work any more."""
        job = f"job-{next(self.numbers)}"
        store = self.open()
        if not self.closed and self.begun and not self.nobody_is_at_work():
            with pytest.raises(LeaseError):
                store.begin("users", "f", shard=Shard(index=0, of=of, job=job))
            with pytest.raises(LeaseError):
                store.begin("users", "f")
            return
        if self.begun:
            self.lost[self.job] = self.completed - self.closed
        self.leave_all()
        if self.closed:
            self.durable, self.closed = dict.fromkeys(ROWS, 0), False
        self.job, self.of = job, of
        self.join(0)

    @precondition(lambda self: not self.closed and self.nobody_is_at_work())
    @rule(complete=st.booleans())
    def a_process_alone(self, *, complete: bool) -> None:
        """It goes on with what is left, and the Job has lost its run."""
        store = self.open()
        run = store.begin("users", "f")
        if self.begun:
            self.lost[self.job] = self.completed
        self.leave_all()
        if run.reading is None:
            store.attach(run, READING)
        found = {stream: rows for (_, stream), rows in run.checkpoints.items()}
        assert dict.fromkeys(ROWS, 0) | found == self.durable
        dead = run.counts.get("cio", Counts()).dead_lettered
        if complete:
            dead = sum(dead_in(stream, 0, rows) for stream, rows in ROWS.items())
            self.durable, self.closed, self.completed = dict(ROWS), True, self.completed + 1
        read = sum(self.durable.values())
        counts = {"cio": Counts(read=read, delivered=read - dead, dead_lettered=dead)}
        store.commit(run, {("cio", stream): rows for stream, rows in self.durable.items()}, counts)
        store.finish(run, Result.COMPLETE if complete else Result.INTERRUPTED, counts)
        self.job = f"job-{next(self.numbers)}"  # whoever comes next is of another
        if complete:
            self.durable, self.closed = dict.fromkeys(ROWS, 0), False
            self.checked_after_close()
        self.begun = False

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def a_lost_job_comes_back(self, data: st.DataObject) -> None:
        """It never opens a second run: that would never be complete."""
        job = data.draw(st.sampled_from(sorted(self.lost)))
        store, shard = self.open(), Shard(index=0, of=3, job=job)
        runs = len(store.runs(limit=1_000))
        try:
            assert store.begin("users", "f", shard=shard).over
            assert self.completed > self.lost[job]
        except UnusableState:
            assert self.completed == self.lost[job]
        assert len(store.runs(limit=1_000)) == runs

    @precondition(lambda self: self.fenced)
    @rule(data=st.data())
    def a_late_one_wakes(self, data: st.DataObject) -> None:
        """Whatever it tries once another has its shard, or its part is over, changes nothing."""
        process = data.draw(st.sampled_from(self.fenced))
        ahead = {("cio", stream): rows for stream, rows in ROWS.items()}
        letter = DeadLetter(stream=0, row=1, reason="late", message="", payload=b"")
        for write in (
            lambda: process.store.commit(process.run, ahead, {"cio": Counts(read=99)}),
            lambda: process.store.add_dead_letters(process.run, "cio", [letter]),
            lambda: process.store.attach(process.run, READING),
            lambda: process.store.restart(process.run, "late"),
            lambda: process.store.finish(process.run, Result.COMPLETE, {}),
            lambda: process.store.follow(process.run),
        ):
            with pytest.raises(LeaseError):
                write()

    # ------------------------------------------------------------------ what always holds

    def checked_after_close(self) -> None:
        window = self.state.window("users")
        assert (window.sequence, window.start) == (self.completed + 1, 7 if self.completed else 0)

    @invariant()
    def the_state_is_what_the_oracle_says(self) -> None:
        self.checked_after_close()
        records = self.state.runs(limit=1_000)
        complete = [record for record in records if record.result is Result.COMPLETE]
        assert len(complete) == self.completed
        assert not self.state.dead_letters()  # the late ones' alone would be there
        if self.begun:
            dead = sum(dead_in(stream, 0, rows) for stream, rows in self.durable.items())
            read = sum(self.durable.values())
            counts = records[0].counts.get("cio", Counts())
            assert counts == Counts(read=read, delivered=read - dead, dead_lettered=dead)

    @invariant()
    def no_stream_is_two_processes(self) -> None:
        newest = max((one.run.attempt for one in self.live.values()), default=0)
        mine = [one.streams for one in self.live.values() if one.run.attempt == newest]
        streams = list(itertools.chain(*mine))
        assert len(streams) == len(set(streams))


TestJobs = pytest.mark.slow(Jobs.TestCase)
TestJobs.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)


# ------------------------------------------------------------------------------- the model itself


def take_from_anybody(connection: sa.Connection, run: str, shard: int, me: Member) -> None:
    mine = (SHARDS.c.run == run, SHARDS.c.shard == shard)
    connection.execute(
        sa.update(SHARDS).where(*mine).values(holder=me.holder, expires=me.now + me.seconds)
    )


CARELESS: dict[str, tuple[str, Callable[..., object]]] = {
    "no fence": ("pipeline.checkpoint.shard_leases.keep", lambda *_: None),
    "a shard for everybody": ("pipeline.checkpoint.shard_leases.take", take_from_anybody),
    "rows that are missing": ("pipeline.checkpoint.shards._is_short", lambda *_: False),
    "counts of one shard only": (
        "pipeline.checkpoint.shard_counts.summed",
        lambda many: dict([*many][-1]),
    ),
    "what was counted before is forgotten": ("pipeline.checkpoint.shards._fold", lambda *_: None),
    "a Job that opens another run": (
        "pipeline.checkpoint.shard_joining._of_job",
        lambda *_: None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("careless", CARELESS)
def test_the_model_notices(careless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*CARELESS[careless])
    with pytest.raises(
        (AssertionError, PipelineError, pytest.fail.Exception, sa.exc.SQLAlchemyError)
    ):
        run_state_machine_as_test(
            Jobs,
            settings=settings(
                max_examples=400,
                stateful_step_count=50,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )
