"""Runs: begun, gone on with, restarted, committed, finished."""

from __future__ import annotations

from dataclasses import fields

import pytest
from stores import COUNTS, LEASE, READING, Stores, complete

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError, PipelineError
from pipeline.model import Counts, Reading, Result, Window
from pipeline.ports import OpenRun, Store

# ------------------------------------------------------------------------------- begin


def test_protocol(store: SqlStore) -> None:
    held: Store = store  # and mypy agrees in wiring

    assert held is store


def test_the_first_run_of_a_sync(store: SqlStore) -> None:
    run = store.begin("users", "f")

    assert run.window == Window(start=0, sequence=1)
    assert (run.sync, run.fingerprint, run.attempt, run.resumed) == ("users", "f", 1, False)
    assert (run.reading, run.checkpoints, run.counts) == (None, {}, {})


def test_run_ids_are_readable_and_sort_by_time(stores: Stores) -> None:
    store = stores.open(token=lambda: "1f3a")
    first = complete(store)
    stores.clock.time += 1
    second = complete(store)

    assert first.id == "20261124T153000Z-users-1f3a"
    assert first.id < second.id


def test_run_ids_are_never_given_twice(stores: Stores) -> None:
    tokens = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    store = stores.open(token=lambda: next(tokens))

    assert complete(store).id != complete(store).id


def test_a_complete_run_moves_the_window(store: SqlStore) -> None:
    complete(store, query_started=500)

    assert store.begin("users", "f").window == Window(start=500, sequence=2)


@pytest.mark.parametrize("result", [Result.INTERRUPTED, Result.FAILED])
def test_a_run_that_did_not_complete_is_gone_on_with(store: SqlStore, result: Result) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.commit(run, {("customerio", 0): 40, ("file", 1): 7}, COUNTS)
    store.finish(run, result, {"file": Counts(read=7)}, error="the network is down")
    noted = store.runs()[0]
    assert (noted.result, noted.error) == (result, "the network is down")

    again = store.begin("users", "f")

    assert again.id == run.id
    assert again.resumed
    assert again.attempt == 1
    assert again.window == run.window
    assert again.reading == READING
    assert again.checkpoints == {("customerio", 0): 40, ("file", 1): 7}
    assert again.counts == {**COUNTS, "file": Counts(read=7)}
    under_way = store.runs()[0]
    assert (under_way.finished, under_way.result, under_way.error) == (None, None, "")


def test_a_run_whose_source_never_started_is_gone_on_with(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.finish(run, Result.FAILED, {})

    again = store.begin("users", "f")

    assert (again.id, again.resumed, again.reading) == (run.id, True, None)


def test_another_fingerprint_ends_the_run_and_opens_one_on_the_same_window(store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f")
    store.commit(run, {("customerio", 0): 40}, COUNTS)
    store.finish(run, Result.INTERRUPTED, {})

    other = store.begin("users", "g")

    assert other.id != run.id
    assert other.window == run.window == Window(start=500, sequence=2)
    assert (other.attempt, other.resumed) == (2, False)
    assert (other.checkpoints, other.counts) == ({}, {})
    ended = store.runs()[1]
    assert (ended.id, ended.result) == (run.id, Result.FAILED)
    assert "changed" in ended.error
    store.finish(other, Result.INTERRUPTED, {})
    assert store.begin("users", "f").id not in {run.id, other.id}


def test_full_starts_at_0_with_the_same_sequence(store: SqlStore) -> None:
    complete(store, query_started=500)

    assert store.begin("users", "f", full=True).window == Window(start=0, sequence=2)


def test_full_does_not_go_on_with_a_window_that_is_not(store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f")
    store.finish(run, Result.INTERRUPTED, {})

    full = store.begin("users", "f", full=True)

    assert (full.id == run.id, full.resumed, full.attempt) == (False, False, 1)
    ended = store.runs()[1]
    assert (ended.id, ended.result) == (run.id, Result.FAILED)
    assert "full" in ended.error


def test_full_goes_on_with_a_full_window(store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f", full=True)
    store.finish(run, Result.INTERRUPTED, {})

    again = store.begin("users", "f", full=True)

    assert (again.id, again.resumed) == (run.id, True)


def test_an_unfinished_full_run_is_not_lost_by_one_that_is_not(store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f", full=True)
    store.finish(run, Result.INTERRUPTED, {})

    again = store.begin("users", "f")

    assert (again.id, again.resumed, again.window.start) == (run.id, True, 0)


def test_syncs_do_not_touch_each_other(store: SqlStore) -> None:
    complete(store, "users", query_started=500)
    users, events = store.begin("users", "f"), store.begin("events", "f")

    assert users.window == Window(start=500, sequence=2)
    assert events.window == Window(start=0, sequence=1)
    store.finish(events, Result.FAILED, {})
    store.commit(users, {}, COUNTS)


# ------------------------------------------------------------------------------- attach, restart


def test_all_of_a_reading_is_kept(stores: Stores, store: SqlStore) -> None:
    assert all(getattr(READING, field.name) for field in fields(READING))
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.close()

    assert stores.open("elsewhere:2:b").runs()[0].query_started == READING.query_started
    stores.clock.time += LEASE
    assert stores.open("elsewhere:3:c").begin("users", "f").reading == READING


def test_a_reading_of_unknown_size_that_never_expires(store: SqlStore) -> None:
    bare = Reading(streams=(), schema=b"", query_started=3)
    run = store.begin("users", "f")
    store.attach(run, bare)
    store.finish(run, Result.INTERRUPTED, {})

    assert store.begin("users", "f").reading == bare


def test_restart_ends_the_run_and_opens_the_next_attempt(stores: Stores, store: SqlStore) -> None:
    complete(store, query_started=500)
    run = store.begin("users", "f", full=True)
    store.attach(run, READING)
    store.commit(run, {("customerio", 0): 40}, COUNTS)

    following = store.restart(run, "the result table is gone")

    assert following.id != run.id
    assert (following.window, following.fingerprint) == (run.window, "f")
    assert (following.attempt, following.resumed) == (2, False)
    assert (following.reading, following.checkpoints, following.counts) == (None, {}, {})
    ended = store.runs()[1]
    assert (ended.id, ended.result) == (run.id, Result.FAILED)
    assert ended.error == "the result table is gone"
    with pytest.raises(LeaseError):
        stores.open("elsewhere:2:b").begin("users", "f")
    store.attach(following, READING)
    store.finish(following, Result.COMPLETE, {})
    assert store.window("users") == Window(start=READING.query_started, sequence=3)


def test_a_run_that_was_restarted_can_not_write_any_more(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.restart(run, "gone")

    with pytest.raises(LeaseError, match="has ended"):
        store.commit(run, {("customerio", 0): 1}, {})


# ------------------------------------------------------------------------------- commit, finish


def test_commit_keeps_what_is_left_out(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.commit(run, {("a", 0): 1, ("a", 1): 5}, {"a": Counts(read=6), "b": Counts(read=1)})
    store.commit(run, {("a", 0): 3}, {"a": Counts(read=8)})
    store.commit(run, {}, {})
    store.finish(run, Result.INTERRUPTED, {})

    again = store.begin("users", "f")

    assert again.checkpoints == {("a", 0): 3, ("a", 1): 5}
    assert again.counts == {"a": Counts(read=8), "b": Counts(read=1)}


def test_complete_without_a_reading_is_our_own_fault_and_changes_nothing(store: SqlStore) -> None:
    run = store.begin("users", "f")

    with pytest.raises(PipelineError, match="our own fault") as caught:
        store.finish(run, Result.COMPLETE, COUNTS)

    assert type(caught.value) is PipelineError
    assert store.runs()[0].counts == {}
    store.commit(run, {}, {})


def test_finish_releases_the_lease_at_once(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.finish(run, Result.INTERRUPTED, {})

    assert stores.open("elsewhere:2:b").begin("users", "f").id == run.id
    for late in (
        lambda: store.commit(run, {("a", 0): 1}, COUNTS),
        lambda: store.finish(run, Result.FAILED, {}),
    ):
        with pytest.raises(LeaseError):
            late()


def test_a_run_of_no_store_is_our_own_fault(store: SqlStore) -> None:
    run = store.begin("users", "f")
    foreign = OpenRun(**{field.name: getattr(run, field.name) for field in fields(OpenRun)})

    with pytest.raises(PipelineError, match="not opened by a store"):
        store.commit(foreign, {}, {})
