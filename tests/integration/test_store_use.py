"""A store in use: closed, opened anew, by several threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from stores import COUNTS, LEASE, READING, Stores, letter

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError, PipelineError
from pipeline.model import Counts, Result
from pipeline.ports import LetterFilter


def test_all_of_it_outlives_the_process(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "a", [letter(1)])
    store.commit(run, {("a", 1): 9}, COUNTS)
    store.close()

    reopened = stores.open("elsewhere:1:b")

    assert [each.letter for each in reopened.dead_letters()] == [letter(1)]
    stores.clock.time += LEASE
    again = reopened.begin("users", "f")
    assert (again.id, again.reading, again.counts) == (run.id, READING, COUNTS)
    assert again.checkpoints == {("a", 1): 9}


def test_close_is_idempotent_and_final(store: SqlStore) -> None:
    store.close()
    store.close()

    with pytest.raises(PipelineError, match="closed"):
        store.runs()


def test_several_threads_run_several_syncs(store: SqlStore) -> None:
    def run_one(number: int) -> str:
        sync = f"sync{number}"
        run = store.begin(sync, "f")
        store.attach(run, READING)
        for row in range(10):
            store.add_dead_letters(run, "a", [letter(row)])
            store.commit(run, {("a", 0): row + 1}, {"a": Counts(read=row + 1)})
            assert len(store.dead_letters(LetterFilter(sync=sync))) == row + 1
        store.finish(run, Result.COMPLETE, {})
        return run.id

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(run_one, range(8)))

    assert {run.id for run in store.runs(limit=100)} == set(ids)
    assert {run.counts["a"] for run in store.runs()} == {Counts(read=10)}
    assert {row.letters for row in store.dead_letter_summary()} == {10}


def test_threads_that_contend_for_one_sync_get_it_once(stores: Stores) -> None:
    contenders = [stores.open(f"here:{os.getpid()}:{number}") for number in range(6)]

    def begin(store: SqlStore) -> bool:
        try:
            store.begin("users", "f")
        except LeaseError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        won = list(threads.map(begin, contenders))

    assert sum(won) == 1
