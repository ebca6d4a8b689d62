"""Windows and the history of runs."""

from __future__ import annotations

import pytest
from stores import COUNTS, LEASE, START, Stores, complete

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError
from pipeline.model import Result, Window

# ------------------------------------------------------------------------------- windows


def test_the_window_of_an_unknown_sync(store: SqlStore) -> None:
    assert store.window("users") == Window(start=0, sequence=1)


def test_the_window_is_what_the_next_run_gets(store: SqlStore) -> None:
    complete(store, query_started=500)
    assert store.window("users") == Window(start=500, sequence=2)
    run = store.begin("users", "f", full=True)
    store.finish(run, Result.INTERRUPTED, {})
    assert store.window("users") == Window(start=0, sequence=2)


def test_set_window_of_an_unknown_sync(store: SqlStore) -> None:
    store.set_window("users", 900)

    assert store.window("users") == Window(start=900, sequence=1)
    assert store.begin("users", "f").window == Window(start=900, sequence=1)


def test_set_window_keeps_the_sequence_and_abandons_the_unfinished_run(store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f")
    store.finish(run, Result.INTERRUPTED, {}, "stopped")

    store.set_window("users", 0)

    assert store.window("users") == Window(start=0, sequence=2)
    ended = store.runs()[0]
    assert (ended.id, ended.result) == (run.id, Result.FAILED)
    assert "by hand" in ended.error
    following = store.begin("users", "f")
    assert (following.id == run.id, following.resumed, following.attempt) == (False, False, 1)


def test_set_window_is_refused_while_a_run_is_live(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    other = stores.open("far:99:b")

    for each in (store, other):
        with pytest.raises(LeaseError):
            each.set_window("users", 7)

    assert store.window("users") == Window(start=0, sequence=1)
    store.commit(run, {}, {})


def test_set_window_fences_off_a_run_that_went_silent(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    stores.clock.time += LEASE
    stores.open("far:99:b").set_window("users", 7)

    with pytest.raises(LeaseError):
        store.commit(run, {}, {})
    assert store.begin("users", "f").window.start == 7


# ------------------------------------------------------------------------------- history


def test_runs_newest_first_with_what_is_known_of_them(stores: Stores, store: SqlStore) -> None:
    first = complete(store, "users", query_started=500)
    events = store.begin("events", "f")
    stores.clock.time += 2.5
    store.finish(events, Result.FAILED, {}, "no such table")
    second = complete(store, "users")

    assert [run.id for run in store.runs()] == [second.id, events.id, first.id]
    assert [run.id for run in store.runs("users")] == [second.id, first.id]
    assert [run.id for run in store.runs("users", limit=1)] == [second.id]
    assert store.runs("nobody") == []
    oldest = store.runs()[-1]
    assert oldest.window == Window(start=0, sequence=1)
    assert (oldest.started, oldest.finished, oldest.result) == (START, START, Result.COMPLETE)
    assert (oldest.query_started, oldest.rows, oldest.bytes_billed) == (500, 1_000, 10_000)
    assert (oldest.counts, oldest.error) == (COUNTS, "")
    failed = store.runs("events")[0]
    assert (failed.started, failed.finished) == (START, START + 2.5)
    assert (failed.query_started, failed.rows, failed.bytes_billed) == (None, None, 0)


def test_runs_opened_in_one_instant_still_have_an_order(store: SqlStore) -> None:
    opened = [complete(store).id for _ in range(5)]

    assert [run.id for run in store.runs()] == opened[::-1]
