"""Ledger and Store under any order of deliveries, commits, crashes and wakings, against an oracle.

The oracle is the set of rows that the world has seen settled, and what was last made durable. It
knows no spans, prefixes, epochs or tables.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.checkpoint import Ledger, SqlStore
from pipeline.errors import LeaseError, PipelineError
from pipeline.model import Counts, DeadLetter, Reading, Result, Span
from pipeline.ports import OpenRun

LEASE = 60.0
ROWS = {0: 17, 1: 9, 2: 0}
READING = Reading(streams=("a", "b", "c"), schema=b"x", query_started=7, rows=sum(ROWS.values()))
# For any row it is always the same whether it can be delivered.
DEAD = {(stream, row) for stream in ROWS for row in range(ROWS[stream]) if (stream + row) % 5 == 3}


@dataclass
class Process:
    """What one process holds in memory, as the engine does."""

    store: SqlStore
    run: OpenRun
    ledger: Ledger
    read: dict[int, int]
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def settled(self) -> dict[int, int]:
        """Stream -> rows settled without a gap, of all streams."""
        return dict.fromkeys(ROWS, 0) | self.ledger.checkpoints()


class Worlds(RuleBasedStateMachine):
    """One sync, one destination; a process that has lost its lease may live on for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="retl-model-"))
        self.now = 1_000.0
        self.numbers = itertools.count()
        self.live: Process | None = None
        self.late: list[Process] = []
        self.in_flight: list[tuple[Process, Span]] = []
        # The oracle.
        self.seen: set[tuple[int, int]] = set()
        self.durable = dict.fromkeys(ROWS, 0)
        self.durable_letters: set[tuple[int, int]] = set()
        self.completed = 0

    def teardown(self) -> None:
        for process in [*self.late, *([self.live] if self.live else [])]:
            process.store.close()
        shutil.rmtree(self.folder)

    def open(self) -> SqlStore:
        number = next(self.numbers)
        return SqlStore(
            f"sqlite:///{self.folder}/state.db",
            holder=f"host{number}:1:x",
            now=lambda: self.now,
            lease_seconds=LEASE,
            token=lambda: f"t{number}",
        )

    def begin(self) -> None:
        store = self.open()
        run = store.begin("users", "f")
        if run.reading is None:
            store.attach(run, READING)
        found = {stream: rows for (_, stream), rows in run.checkpoints.items()}
        # All that a process can know of the past is what was durable, and exactly that.
        assert dict.fromkeys(ROWS, 0) | found == self.durable
        self.durable_letters = {
            (stream, row) for stream, row in self.durable_letters if row < self.durable[stream]
        }
        self.live = Process(store, run, Ledger(found), dict(self.durable))

    # ------------------------------------------------------------------ what may happen

    @initialize()
    def start(self) -> None:
        self.begin()

    @precondition(lambda self: self.live is not None)
    @rule(stream=st.sampled_from([0, 0, 1, 2]), sizes=st.lists(st.integers(1, 4), max_size=4))
    def read(self, stream: int, sizes: list[int]) -> None:
        """The next rows of a stream leave in several Batches; their outcome is open."""
        process = self.live
        assert process is not None
        for size in sizes:
            first = process.read[stream]
            rows = min(size, ROWS[stream] - first)
            process.read[stream] = first + rows
            if rows:
                self.in_flight.append((process, Span(stream=stream, first=first, rows=rows)))

    @precondition(lambda self: self.in_flight)
    @rule(which=st.lists(st.integers(0, 99), min_size=1, max_size=6))
    def arrive(self, which: list[int]) -> None:
        """Batches end, in any order: the world has their rows, whoever sent them."""
        for number in which:
            if self.in_flight:
                self.settle(*self.in_flight.pop(number % len(self.in_flight)))

    def settle(self, process: Process, span: Span) -> None:
        rows = [(span.stream, row) for row in range(span.first, span.end)]
        self.seen.update(rows)
        dead = [row for row in rows if row in DEAD]
        process.letters += [
            DeadLetter(stream=stream, row=row, reason="r", message="m", payload=b"p")
            for stream, row in dead
        ]
        process.ledger.settle(span, dead=len(dead))

    @precondition(lambda self: self.live is not None)
    @rule(letters_only=st.booleans())
    def commit(self, *, letters_only: bool) -> None:
        """Dead letters, then the Checkpoint; the process may die between the two."""
        process = self.live
        assert process is not None
        settled, letters = process.settled, list(process.letters)
        process.store.add_dead_letters(process.run, "cio", letters)
        self.durable_letters |= {(each.stream, each.row) for each in letters}
        if letters_only:
            self.crash()
            return
        process.store.commit(process.run, keyed(settled), {"cio": counts(settled)})
        process.letters = process.letters[len(letters) :]
        self.durable = settled

    @precondition(lambda self: self.live is not None)
    @rule(interrupt=st.booleans())
    def end(self, *, interrupt: bool) -> None:
        """Complete when every row is settled; interrupted else, or when asked to be."""
        process = self.live
        assert process is not None
        self.commit(letters_only=False)
        whole = process.settled == ROWS and not interrupt
        result = Result.COMPLETE if whole else Result.INTERRUPTED
        process.store.finish(process.run, result, {"cio": counts(process.settled)})
        self.late.append(process)
        self.live = None
        if whole:
            assert self.seen >= {(stream, row) for stream in ROWS for row in range(ROWS[stream])}
            kept = {(one.letter.stream, one.letter.row) for one in self.letters_of(process)}
            assert kept == DEAD
            self.completed += 1
            self.durable = dict.fromkeys(ROWS, 0)
            self.durable_letters = set()
            self.seen = set()

    @precondition(lambda self: self.live is not None)
    @rule()
    def crash(self) -> None:
        """All that is in memory is gone, for the state; the process itself may only be paused."""
        assert self.live is not None
        self.late.append(self.live)
        self.live = None

    @precondition(lambda self: self.live is not None)
    @rule()
    def another_comes_too_early(self) -> None:
        store = self.open()
        with pytest.raises(LeaseError):
            store.begin("users", "f")
        store.close()

    @precondition(lambda self: self.live is None)
    @rule()
    def go_on(self) -> None:
        self.now += LEASE
        self.begin()

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_one_wakes(self, data: st.DataObject) -> None:
        """Whatever it tries once its lease was taken, or its run ended, changes nothing."""
        process = data.draw(st.sampled_from(self.late))
        if self.live is None and process is self.late[-1]:
            return  # nobody has taken the lease: it may go on
        ahead = keyed(ROWS)
        letter = DeadLetter(stream=0, row=16, reason="late", message="", payload=b"")
        for write in (
            lambda: process.store.commit(process.run, ahead, {}),
            lambda: process.store.add_dead_letters(process.run, "cio", [letter]),
            lambda: process.store.attach(process.run, READING),
            lambda: process.store.restart(process.run, "late"),
            lambda: process.store.finish(process.run, Result.COMPLETE, {}),
        ):
            with pytest.raises(LeaseError):
                write()

    # ------------------------------------------------------------------ what always holds

    def letters_of(self, process: Process) -> list[object]:
        return [one for one in process.store.dead_letters(limit=1_000) if one.run == process.run.id]

    @invariant()
    def no_row_is_lost(self) -> None:
        """Below the durable Checkpoint every row was settled, and the bad ones are kept."""
        below = {(stream, row) for stream in ROWS for row in range(self.durable[stream])}
        assert below <= self.seen
        assert below & DEAD <= self.durable_letters

    @invariant()
    def the_state_is_what_the_oracle_says(self) -> None:
        process = self.live
        if process is None:
            return
        kept = process.store.dead_letters(limit=1_000)
        mine = [(one.letter.stream, one.letter.row) for one in kept if one.run == process.run.id]
        assert len(mine) == len(set(mine))
        assert set(mine) == self.durable_letters
        record = process.store.runs(limit=1)[0]
        assert sum(each.read for each in record.counts.values()) == sum(self.durable.values())
        assert process.store.window("users").sequence == self.completed + 1
        assert process.store.window("users").start == (7 if self.completed else 0)


def keyed(settled: dict[int, int]) -> dict[tuple[str, int], int]:
    return {("cio", stream): rows for stream, rows in settled.items()}


def counts(settled: dict[int, int]) -> Counts:
    return Counts(read=sum(settled.values()))


TestWorlds = pytest.mark.slow(Worlds.TestCase)
TestWorlds.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------------------- the model itself

CARELESS: dict[str, tuple[str, Callable[..., object]]] = {
    "a Checkpoint over a gap": (
        "pipeline.checkpoint.Ledger.checkpoints",
        lambda ledger: {
            stream: each.prefix + each.pending_rows for stream, each in ledger._streams.items()
        },
    ),
    "dead letters that are not kept": (
        "pipeline.checkpoint.dead_letters.add",
        lambda *_, **__: None,
    ),
    "letters kept that will be read again": (
        "pipeline.checkpoint.dead_letters.drop_uncovered",
        lambda *_: None,
    ),
    "a Checkpoint that is not durable": (
        "pipeline.checkpoint.runs.set_checkpoints",
        lambda *_: None,
    ),
    "no fence": ("pipeline.checkpoint.leases.keep", lambda *_, **__: None),
}


def one_way(world: Worlds) -> None:
    """A way through the model with a gap, bad rows, a crash between two writes, one that wakes."""

    def step(rule: Callable[..., object], *args: object, **kwargs: object) -> None:
        rule(*args, **kwargs)
        world.no_row_is_lost()
        world.the_state_is_what_the_oracle_says()

    step(world.start)
    step(world.read, 0, [4, 4])
    step(world.arrive, [1])
    step(world.commit, letters_only=False)
    step(world.arrive, [0])
    step(world.commit, letters_only=False)
    step(world.read, 0, [4, 4])
    step(world.arrive, [0, 0])
    step(world.commit, letters_only=True)
    step(world.go_on)
    step(world.a_late_one_wakes, SimpleNamespace(draw=lambda _: world.late[0]))
    step(world.end, interrupt=True)


@contextmanager
def a_world() -> Iterator[Worlds]:
    world = Worlds()
    try:
        yield world
    finally:
        world.teardown()


def test_that_way_can_be_gone() -> None:
    with a_world() as world:
        one_way(world)


@pytest.mark.parametrize("careless", CARELESS)
def test_the_model_notices(careless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*CARELESS[careless])
    with (
        a_world() as world,
        pytest.raises((AssertionError, PipelineError, pytest.fail.Exception)),
    ):
        one_way(world)
