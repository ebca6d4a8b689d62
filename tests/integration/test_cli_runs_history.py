"""The history in a store: a run in full, its reports, and what is deleted by age."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from stores import Clock, Stores

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.schema import CHECKPOINTS, REPORTS, RUNS
from pipeline.config import Config
from pipeline.errors import StateError
from pipeline.events import Event, HistoryPruned, Warned
from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import OpenRun, Pruned, Store, SyncState
from pipeline.run.report import RunReport
from pipeline.wiring.history import keep_history, prune

DAY = 86_400.0
READING = Reading(streams=("s0", "s1"), schema=b"x", query_started=500, rows=10)
COUNTS = {"cio": Counts(read=10, delivered=8, dead_lettered=2)}


@pytest.fixture
def clock(stores: Stores) -> Clock:
    return stores.clock


def letter(row: int, reason: str = "missing_id") -> DeadLetter:
    return DeadLetter(stream=0, row=row, reason=reason, message="no", payload=b"{}")


def complete(store: Store, sync: str = "users", *, full: bool = False, rows: int = 10) -> OpenRun:
    run = store.begin(sync, "f", full=full)
    store.attach(run, replace(READING, rows=rows))
    store.finish(run, Result.COMPLETE, COUNTS)
    return run


def fail(store: Store, sync: str = "users") -> None:
    """Two runs, the first of which ends for good."""
    for fingerprint in ("x", "y"):
        store.finish(store.begin(sync, fingerprint), Result.FAILED, {}, "down")


def pruned(store: Store, *, runs: float = 90 * DAY, dead_letters: float = 90 * DAY) -> Pruned:
    total = Pruned()
    while (step := store.prune(runs=runs, dead_letters=dead_letters)) != Pruned():
        total += step
    return total


def kept(store: Store, sync: str | None = None) -> list[str]:
    return [run.id for run in store.runs(sync, 10_000)]


# ------------------------------------------------------------------------------- one run


def test_a_run_in_full(store: SqlStore) -> None:
    first = store.begin("users", "f")
    store.attach(first, READING)
    second = store.restart(first, "the session expired", same_query=True)
    store.attach(second, READING)
    letters = [letter(1), letter(3), letter(4, "rejected_400")]
    store.add_dead_letters(second, "cio", letters)
    store.commit(second, {("cio", 0): 5, ("cio", 1): 3, ("seg", 0): 1}, COUNTS)
    store.keep_report(second.id, {"seconds": 1.5, "restarts": {"session_expired": 1}})
    store.keep_report(second.id, {"seconds": 2})
    store.finish(second, Result.INTERRUPTED, COUNTS)

    found = store.run(second.id)

    assert found is not None
    assert (found.record, found.attempt, found.unfinished) == (store.runs()[0], 2, True)
    assert (found.query_key, found.reading) == (first.id, READING)
    assert found.settled == {"cio": 8, "seg": 1}
    assert [one.restarts for one in store.runs()] == [1, 0]
    assert [one.id for one in found.attempts] == [first.id, second.id]
    assert found.attempts[0].error == "the session expired"
    assert found.dead_letters == {("cio", "missing_id"): 2, ("cio", "rejected_400"): 1}
    assert found.reports == (
        {"seconds": 1.5, "restarts": {"session_expired": 1}},
        {"seconds": 2},
    )


def test_a_run_that_has_not_read_yet_and_one_that_never_was(store: SqlStore) -> None:
    run = store.begin("users", "f")
    found = store.run(run.id)
    assert found is not None
    assert (found.reading, found.settled, found.reports) == (None, {}, ())
    assert store.run("nobody's") is None


def test_the_attempts_are_those_of_the_window(store: SqlStore) -> None:
    complete(store, "other")
    complete(store)
    run = complete(store)
    found = store.run(run.id)
    assert found is not None
    assert [one.id for one in found.attempts] == [run.id]


def test_the_last_full_run_is_complete_and_from_the_beginning(store: SqlStore) -> None:
    assert store.last_full_run("users") is None
    first = complete(store)
    complete(store)
    assert (found := store.last_full_run("users")) is not None
    assert found.id == first.id
    full = complete(store, full=True, rows=77)
    store.finish(store.begin("users", "f", full=True), Result.FAILED, {}, "down")
    assert (found := store.last_full_run("users")) is not None
    assert (found.id, found.rows) == (full.id, 77)
    assert store.last_full_run("other") is None


def test_syncs_at_a_glance(stores: Stores, store: SqlStore, clock: Clock) -> None:
    complete(store, "done")
    store.set_window("set", 42)
    stopped = store.begin("stopped", "f")
    store.finish(stopped, Result.INTERRUPTED, {})
    running = store.begin("running", "f")
    other = stores.open("other:1:b")
    assert other.syncs() == [
        SyncState(name="done", window=Window(start=500, sequence=2)),
        SyncState(
            name="running",
            window=Window(start=0, sequence=1),
            unfinished=running.id,
            holder="elsewhere:1",
        ),
        SyncState(name="set", window=Window(start=42, sequence=1)),
        SyncState(name="stopped", window=Window(start=0, sequence=1), unfinished=stopped.id),
    ]
    clock.time += 61
    assert other.syncs()[1].holder is None


# ------------------------------------------------------------------------------- retention


@pytest.mark.slow
def test_young_runs_are_kept_however_many(store: SqlStore, clock: Clock) -> None:
    for _ in range(103):
        complete(store)
    clock.time += 90 * DAY - 1
    assert pruned(store) == Pruned()
    clock.time += 2
    assert pruned(store) == Pruned(runs=3)


@pytest.mark.slow
def test_old_runs_go_but_for_the_last_hundred_of_each_sync(store: SqlStore, clock: Clock) -> None:
    runs = [complete(store).id for _ in range(160)]
    others = [complete(store, "other").id for _ in range(2)]
    for run in runs:
        store.keep_report(run, {"seconds": 1})
    clock.time += 91 * DAY
    steps = [store.prune(runs=90 * DAY, dead_letters=0) for _ in range(3)]
    assert steps == [Pruned(runs=50), Pruned(runs=10), Pruned()]
    assert kept(store, "users") == runs[60:][::-1]
    assert kept(store, "other") == others[::-1]
    with store._read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(REPORTS)) == 100
    assert store.window("users") == Window(start=500, sequence=161)


@pytest.mark.slow
def test_the_last_complete_run_stays_however_old(store: SqlStore, clock: Clock) -> None:
    older, last = complete(store).id, complete(store).id
    for _ in range(55):
        fail(store)
    clock.time += 91 * DAY
    before = kept(store)
    gone = pruned(store).runs
    assert gone == len(before) - 101
    after = kept(store)
    assert last in after
    assert older not in after


@pytest.mark.slow
def test_a_run_with_dead_letters_stays_as_long_as_they(store: SqlStore, clock: Clock) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "cio", [letter(row) for row in range(3)])
    store.commit(run, {("cio", 0): 5}, {})
    store.finish(run, Result.COMPLETE, COUNTS)
    for _ in range(101):
        complete(store)
    clock.time += 91 * DAY
    assert pruned(store, dead_letters=365 * DAY) == Pruned(runs=1)
    assert run.id in kept(store)
    assert pruned(store) == Pruned(runs=1, dead_letters=3)
    assert run.id not in kept(store)
    assert store.run(run.id) is None
    with store._read() as connection:
        for table in (CHECKPOINTS, REPORTS):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_dead_letters_go_by_their_own_age_and_a_thousand_at_a_time(
    store: SqlStore, clock: Clock
) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "cio", [letter(row) for row in range(1_500)])
    clock.time += 8 * DAY
    run = store.begin("other", "f")
    store.add_dead_letters(run, "cio", [letter(7)])
    steps = [store.prune(runs=0, dead_letters=7 * DAY) for _ in range(3)]
    assert steps == [Pruned(dead_letters=1_000), Pruned(dead_letters=500), Pruned()]
    assert [one.sync for one in store.dead_letters()] == ["other"]


@pytest.mark.slow
def test_an_unfinished_run_is_never_deleted(store: SqlStore, clock: Clock) -> None:
    for _ in range(101):
        complete(store)
    run = store.begin("users", "f")
    store.attach(run, READING)
    # As if it were the oldest: only its being unfinished keeps it.
    with store._write() as connection:
        connection.execute(sa.update(RUNS).where(RUNS.c.id == run.id).values(number=0, finished=1))
    clock.time += 91 * DAY
    assert pruned(store).runs == 1
    assert store.begin("users", "f").id == run.id


# ------------------------------------------------------------------------------- after a run

CONFIG = {
    "version": 1,
    "sources": {"lake": {"type": "file", "path": "x"}},
    "destinations": {"out": {"type": "file", "path": "y"}},
    "syncs": {"users": {"source": "lake", "call": "identify", "destinations": ["out"]}},
    "retention": {"runs": "1d", "dead_letters": "1d"},
}


def report(run: str, **more: Any) -> RunReport:
    kept = RunReport(
        sync="users",
        run=run,
        result=Result.COMPLETE,
        window=Window(start=0, sequence=1),
        query_started=500,
        rows=10,
        bytes_processed=1,
        bytes_billed=2,
        seconds=0.5,
        destinations=COUNTS,
    )
    return replace(kept, **more)


def keep(store: Store, told: RunReport, *, stopped: bool = False) -> list[Event]:
    events: list[Event] = []
    stop = asyncio.Event()
    if stopped:
        stop.set()
    config = Config.model_validate(CONFIG)
    asyncio.run(keep_history(store, config, told, events.append, stop))
    return events


def test_the_report_is_kept_and_what_was_deleted_is_told(store: SqlStore, clock: Clock) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "cio", [letter(1)])
    store.finish(run, Result.COMPLETE, COUNTS)
    assert keep(store, report(run.id)) == []
    clock.time += 2 * DAY
    told = keep(store, report(run.id, seconds=9.0))
    assert told == [HistoryPruned(sync="users", destination="", runs=0, dead_letters=1)]
    found = store.run(run.id)
    assert found is not None
    assert [one["seconds"] for one in found.reports] == [0.5, 9.0]
    assert found.reports[0] == report(run.id).as_dict()


def test_nothing_is_deleted_after_a_signal(store: SqlStore, clock: Clock) -> None:
    run = complete(store)
    again = store.begin("users", "f")
    store.add_dead_letters(again, "cio", [letter(1)])
    clock.time += 2 * DAY
    assert keep(store, report(run.id), stopped=True) == []
    assert len(store.dead_letters()) == 1
    assert (found := store.run(run.id)) is not None
    assert len(found.reports) == 1


def test_a_state_that_fails_is_warned_of_and_no_more(store: SqlStore) -> None:
    run = complete(store)
    store.close()
    (told,) = keep(store, report(run.id))
    assert isinstance(told, Warned)
    assert "history could not be kept" in told.text
    # It failed the run already, which says so by itself.
    failed = report(run.id, result=Result.FAILED, error=StateError("full"))
    assert keep(store, failed) == []


def test_a_run_that_never_began_has_no_report(store: SqlStore) -> None:
    assert keep(store, report("", result=Result.FAILED)) == []


def test_deleting_ends_when_its_time_is_over(store: SqlStore, clock: Clock) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "cio", [letter(row) for row in range(2_500)])
    clock.time += 2 * DAY
    ticks = iter([0.0, 1.0, 5.0])
    config = Config.model_validate(CONFIG)
    told = prune(store, config, seconds=5.0, clock=lambda: next(ticks))
    assert told == Pruned(dead_letters=2_000)
