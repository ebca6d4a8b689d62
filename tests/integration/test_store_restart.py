"""A run that follows one whose reading expired: on the same query's result, or on a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from stores import KINDS, Stores

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.scratch import ScratchStore
from pipeline.model import Counts, Result, Window
from pipeline.ports import RunStore

COUNTS = {"a": Counts(read=9, delivered=9), "b": Counts(read=4, delivered=4)}


@pytest.fixture(params=[*KINDS, "scratch"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    if request.param == "scratch":
        yield ScratchStore(Window(start=5, sequence=2))
        return
    url = KINDS[request.param](request, tmp_path)
    with closing(SqlStore(url, holder="here:1:a")) as store:
        yield store


def test_the_same_query_keeps_its_key_over_any_number_of_restarts(store: RunStore) -> None:
    first = store.begin("users", "f")
    second = store.restart(first, "expired", same_query=True)
    third = store.restart(second, "expired", same_query=True)
    assert (first.query_key, first.job_key) == (None, first.id)
    assert second.job_key == third.job_key == first.id
    assert len({first.id, second.id, third.id}) == 3
    assert [run.attempt for run in (first, second, third)] == [1, 2, 3]


def test_a_new_query_has_a_key_of_its_own_and_forgets_who_had_it_all(store: RunStore) -> None:
    first = store.begin("users", "f")
    store.commit(first, {("a", 0): 9}, COUNTS)
    second = store.restart(first, "expired", same_query=True, done=["a"])
    third = store.restart(second, "the result is gone")
    assert (third.query_key, third.job_key) == (None, third.id)
    assert (third.done, third.counts) == (frozenset(), {})


def test_destinations_that_have_it_all_keep_their_counts(store: RunStore) -> None:
    first = store.begin("users", "f")
    store.commit(first, {("a", 0): 9, ("b", 0): 4}, COUNTS)
    second = store.restart(first, "expired", same_query=True, done=["a"])
    assert (second.done, second.counts) == (frozenset({"a"}), {"a": COUNTS["a"]})
    assert second.checkpoints == {}
    store.commit(second, {("b", 0): 9}, {"b": COUNTS["b"]})
    third = store.restart(second, "expired", same_query=True, done=["b"])
    assert (third.done, third.counts) == (frozenset({"a", "b"}), COUNTS)


def test_key_and_done_outlive_the_process(stores: Stores) -> None:
    url = stores.url
    with closing(SqlStore(url, holder="here:1:a")) as store:
        first = store.begin("users", "f")
        store.commit(first, {}, COUNTS)
        second = store.restart(first, "expired", same_query=True, done=["a"])
        store.finish(second, Result.INTERRUPTED, {})
    with closing(SqlStore(url, holder="here:2:b")) as store:
        again = store.begin("users", "f")
        assert (again.id, again.resumed) == (second.id, True)
        assert (again.job_key, again.done) == (first.id, frozenset({"a"}))
        assert again.counts == {"a": COUNTS["a"]}
