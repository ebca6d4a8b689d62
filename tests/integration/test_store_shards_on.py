"""A run that several processes share, gone on with: restarted, begun anew, taken over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa
from postgres import Postgres
from shard_store import ROWS, SHARD_LEASE, THREE, Process, join, read, three
from stores import READING, Stores, letter

from pipeline.checkpoint import shard_views
from pipeline.errors import LeaseError, RunMoved, UnusableState
from pipeline.model import Counts, Result
from pipeline.ports import ALONE, Share, Standing

__all__ = ["join", "three"]

# ------------------------------------------------------------------------------- counts and letters


def test_a_shard_that_is_started_again_counts_nothing_twice(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    three[0].commit(rows={0: 2}, dead=1)
    three[1].commit()
    stores.clock.time += SHARD_LEASE
    three[1].commit()
    again = join(0)
    assert again.run.checkpoints == {("cio", 0): 2}
    assert again.run.counts["cio"] == Counts(read=2, delivered=1, dead_lettered=1, requests=1)
    assert read(again) == {"cio": 5}
    again.commit(dead=1)
    assert read(again) == {"cio": 7}


def test_dead_letters_of_a_shard_that_is_started_again(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    """Beyond the Checkpoints of its own streams they are forgotten; others' are left alone."""
    one, other = three[0], three[1]
    one.store.add_dead_letters(one.run, "cio", [letter(1), letter(3)])
    other.store.add_dead_letters(other.run, "cio", [letter(2, stream=1)])
    one.commit(rows={0: 2}, dead=1)
    stores.clock.time += SHARD_LEASE

    again = join(0)

    kept = {(x.letter.stream, x.letter.row) for x in again.store.dead_letters()}
    assert kept == {(0, 1), (1, 2)}


def test_each_process_has_only_its_own_streams(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    for process in three:
        process.commit()
    stores.clock.time += SHARD_LEASE
    assert [join(index).run.checkpoints for index in range(3)] == [
        {("cio", stream): rows} for stream, rows in enumerate(ROWS)
    ]


def test_more_streams_than_shards_and_fewer(stores: Stores) -> None:
    first, second = Process(stores, 0, of=2), Process(stores, 1, of=2)
    first.join()
    second.join()
    first.attach()
    second.follow()
    assert [stream for stream in range(3) if first.run.streams.has(stream)] == [0, 2]
    assert [stream for stream in range(3) if second.run.streams.has(stream)] == [1]


# ------------------------------------------------------------------------------- short streams


def test_streams_that_ended_too_early_are_all_the_last_shards(three: list[Process]) -> None:
    three[0].commit(dead=1)
    three[0].finish()
    three[1].commit(rows={1: 1})  # it believes that this was all
    three[1].finish()
    three[2].commit()
    left = three[2].finish()

    assert left is not None
    assert not left.over
    assert left.streams == Share()
    assert left.standing == ALONE
    assert left.checkpoints == {("cio", 0): 4, ("cio", 1): 1, ("cio", 2): 2}
    assert left.counts["cio"] == Counts(read=7, delivered=6, dead_lettered=1, requests=3)
    store, mine = three[2].store, three[2]
    assert store.window("users").sequence == 1
    mine.run = left
    whole = {"cio": replace(left.counts["cio"], read=9, delivered=8)}
    store.commit(left, {("cio", 1): 3}, whole)
    assert store.finish(left, Result.COMPLETE, whole) is None
    assert store.runs()[0].counts == whole
    assert store.window("users").sequence == 2


def test_the_one_that_has_all_streams_may_die_and_come_back(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    for process, rows in zip(three, ({0: 4}, {1: 1}, {2: 2}), strict=True):
        process.commit(rows=rows)
        process.finish()
    stores.clock.time += SHARD_LEASE
    assert join(0).run.over
    again = join(2)
    assert again.run.streams == Share()
    assert again.run.checkpoints == {("cio", 0): 4, ("cio", 1): 1, ("cio", 2): 2}
    assert read(again) == {"cio": 7}


def test_what_a_source_can_not_count_is_complete_when_all_shards_are(
    join: Callable[..., Process],
) -> None:
    processes = [join(index, of=2) for index in range(2)]
    processes[0].attach(replace(THREE, rows_exact=False, rows=1_000))
    processes[1].follow()
    for process in processes:
        process.commit()
    processes[0].finish()
    assert processes[1].finish() is None


# ------------------------------------------------------------------------------- another attempt


def test_an_expired_reading_is_begun_anew_by_one_and_followed_by_the_others(
    three: list[Process],
) -> None:
    one, two, three_ = three
    two.commit(dead=1)
    two.finish()
    one.commit()
    one.run = one.store.restart(one.run, "session expired", same_query=True)

    assert one.run.attempt == 2
    assert one.run.starts
    assert one.run.streams == Share(place=0, of=2)  # those that have not ended
    assert one.run.query_key == three_.run.id
    with pytest.raises(RunMoved, match="gone on with as another attempt"):
        three_.commit()
    with pytest.raises(RunMoved):
        three_.store.restart(three_.run, "session expired")
    assert three_.follow().id == one.run.id
    assert three_.run.streams == Share(place=1, of=2)
    assert not three_.run.starts
    one.attach()
    three_.follow()
    one.commit()
    three_.commit()
    one.finish()
    assert three_.finish() is None
    newest, before = one.store.runs()
    assert newest.counts["cio"].read == 9
    assert (newest.job, newest.shards) == ("job", 3)
    assert before.result is Result.FAILED
    assert before.counts["cio"].read == 7  # what it had come to
    assert one.store.window("users").sequence == 2


def test_after_another_attempt_only_its_shards_have_something_to_do(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    three[1].commit()
    three[1].finish()
    three[0].run = three[0].store.restart(three[0].run, "gone")
    assert join(1).run.over
    stores.clock.time += SHARD_LEASE
    again = join(2)
    assert (again.run.id, again.run.streams) == (three[0].run.id, Share(place=1, of=2))


def test_a_destination_that_had_all_rows_is_done_in_the_next_attempt(three: list[Process]) -> None:
    for process in three:
        process.commit()
    before = three[0].store.restart(three[0].run, "session expired", same_query=True)
    assert before.done == {"cio"}
    following = three[1].follow()
    assert following.done == {"cio"}
    assert three[0].store.runs()[0].counts["cio"].read == 9
    three[0].run, three[0].counts = before, {}
    three[0].attach()
    for process in three:
        process.follow()
        process.counts = {}
    assert [process.finish() is None for process in three] == [False, False, True]
    assert three[0].store.runs()[0].counts["cio"].read == 9


def test_a_destination_that_lacks_rows_gets_all_of_them_again(three: list[Process]) -> None:
    for process in three:
        process.commit(to="fast")
    three[0].commit(to="slow")
    following = three[0].store.restart(three[0].run, "session expired", same_query=True)
    assert following.done == {"fast"}
    assert set(three[0].store.runs()[0].counts) == {"fast"}


def test_a_commit_under_way_while_another_begins_anew_counts(
    stores: Stores,
    three: list[Process],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is durable before the next attempt, so its rows are in what decides who is done."""
    one, two, last = three
    one.commit()
    last.commit()
    within, go_on, standing = threading.Event(), threading.Event(), shard_views.standing

    def held(connection: sa.Connection, run: str, shard: int) -> Standing:
        within.set()
        assert go_on.wait(10)
        return standing(connection, run, shard)

    monkeypatch.setattr(shard_views, "standing", held)
    with ThreadPoolExecutor(2) as threads:
        commit = threads.submit(two.commit)
        assert within.wait(10)
        restart = threads.submit(one.store.restart, one.run, "expired", same_query=True)
        if stores.kind == "postgres":  # the other has one writer at a time
            server: Postgres = request.getfixturevalue("postgres")
            while not restart.done() and not server.run("SELECT 1 FROM pg_locks WHERE NOT granted"):
                pass
        go_on.set()
        commit.result(10)
        assert restart.result(10).done == {"cio"}
    assert [record.counts["cio"].read for record in one.store.runs()] == [9, 9]


def test_a_new_query_begins_with_nothing_done(three: list[Process]) -> None:
    for process in three:
        process.commit()
    following = three[0].store.restart(three[0].run, "result expired")
    assert (following.done, following.query_key) == (frozenset(), None)
    assert three[0].store.runs()[0].counts == {}


# ------------------------------------------------------------------------------- taken over


def test_a_job_whose_run_was_given_up_is_over(stores: Stores, three: list[Process]) -> None:
    for process in three:
        process.commit()
    three[0].finish()
    stores.clock.time += SHARD_LEASE
    three[0].store.set_window("users", 7)

    with pytest.raises(LeaseError):
        three[1].commit()
    with pytest.raises(LeaseError):
        three[1].follow()
    with pytest.raises(UnusableState, match=r"given up: last_sync_time was set by hand\. Start a"):
        Process(stores, 1, number=9).join()
    (record,) = three[0].store.runs()
    assert record.counts["cio"].read == 9  # what it had come to


def test_a_process_alone_goes_on_with_what_a_dead_job_left(
    stores: Stores, three: list[Process]
) -> None:
    three[0].commit(dead=1)
    three[0].finish()
    three[1].commit(rows={1: 1})
    stores.clock.time += SHARD_LEASE
    alone = stores.open("alone:1:a")

    run = alone.begin("users", "f")

    assert (run.id, run.streams, run.reading) == (three[0].run.id, Share(), THREE)
    assert run.checkpoints == {("cio", 0): 4, ("cio", 1): 1}
    assert run.counts["cio"] == Counts(read=5, delivered=4, dead_lettered=1, requests=2)
    with pytest.raises(LeaseError):
        three[1].commit()
    with pytest.raises(UnusableState, match="is gone on with by another process"):
        Process(stores, 2, number=9).join()
    whole = {"cio": Counts(read=9, delivered=8, dead_lettered=1)}
    alone.commit(run, {("cio", 1): 3, ("cio", 2): 2}, whole)
    alone.finish(run, Result.COMPLETE, whole)
    # By now there is nothing left to do for that Job either.
    assert Process(stores, 2, number=10).join().over
    assert alone.runs()[0].counts == whole


def test_the_next_job_goes_on_with_what_a_dead_one_left_in_other_parts(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    three[0].commit(dead=1)
    three[0].finish()
    three[1].commit(rows={1: 1})
    stores.clock.time += SHARD_LEASE

    one, two = join(0, of=2, job="next"), join(1, of=2, job="next")

    assert one.run.id == two.run.id == three[0].run.id
    assert one.run.checkpoints == {("cio", 0): 4}
    assert two.run.checkpoints == {("cio", 1): 1}
    assert one.run.reading == THREE
    one.commit()
    two.commit()
    one.finish()
    assert two.finish() is None
    (record,) = one.store.runs()
    assert record.counts["cio"] == Counts(read=9, delivered=8, dead_lettered=1, requests=4)
    assert (record.job, record.shards) == ("next", 2)
    assert Process(stores, 2, number=9).join().over


def test_the_job_after_a_complete_one_has_a_run_of_its_own(
    three: list[Process], join: Callable[..., Process]
) -> None:
    for process in three:
        process.commit()
        process.finish()
    following = join(1, job="next")
    assert following.run.id != three[0].run.id
    assert following.run.window.start == READING.query_started
    assert not following.run.over


def test_a_full_run_of_a_job(stores: Stores, three: list[Process]) -> None:
    for process in three:
        process.commit()
        process.finish()
    full = Process(stores, 0, job="full")
    assert full.join(full=True).window.start == 0
    other = Process(stores, 1, job="full")
    assert other.join(full=True).id == full.run.id
