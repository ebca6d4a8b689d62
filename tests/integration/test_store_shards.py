"""A run that several processes share: joined, started once, fenced, closed once by the last."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from shard_store import SHARD_LEASE, THREE, Process, join, three
from stores import READING, START, Stores, letter

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError, RunMoved, ShardHeld, UnusableState
from pipeline.model import Counts, Result
from pipeline.ports import ALONE, OpenRun, Shard, Share

__all__ = ["join", "three"]

# ------------------------------------------------------------------------------- joining


def test_the_first_opens_the_run_and_the_others_join_it(join: Callable[..., Process]) -> None:
    first, second, third = join(1), join(0), join(2)

    assert len({process.run.id for process in (first, second, third)}) == 1
    assert [process.run.starts for process in (first, second, third)] == [True, False, False]
    assert [process.run.streams for process in (second, first, third)] == [
        Share(place=place, of=3) for place in range(3)
    ]
    first.attach()
    assert second.follow().reading == THREE
    assert not second.run.over
    assert len(first.store.runs()) == 1


def test_a_second_process_on_one_index_is_refused(
    stores: Stores, join: Callable[..., Process]
) -> None:
    first = join(1)
    with pytest.raises(ShardHeld, match=r"Shard 1 of run .*\(pod-1:1\), for 15 s more if"):
        join(1)
    stores.clock.time += SHARD_LEASE - 1
    first.commit(rows={})  # which renews it
    stores.clock.time += SHARD_LEASE - 1
    with pytest.raises(ShardHeld):
        join(1)
    stores.clock.time += 1
    assert join(1).run.id == first.run.id


WRITES: dict[str, Callable[[Process], object]] = {
    "attach": lambda process: process.attach(),
    "commit": lambda process: process.commit(),
    "letters": lambda process: process.store.add_dead_letters(process.run, "cio", [letter(1)]),
    "follow": lambda process: process.follow(),
    "restart": lambda process: process.store.restart(process.run, "gone"),
    "finish": lambda process: process.finish(),
    "fail": lambda process: process.finish(Result.FAILED, "x"),
}


@pytest.mark.parametrize("write", WRITES)
def test_one_that_slept_while_another_took_its_shard_changes_nothing(
    stores: Stores, three: list[Process], join: Callable[..., Process], write: str
) -> None:
    asleep = three[1]
    stores.clock.time += SHARD_LEASE
    awake = join(1)
    before = (awake.store.run(awake.run.id), awake.store.dead_letters())
    with pytest.raises(LeaseError, match=r"Shard 1 of run .* lease was lost") as caught:
        WRITES[write](asleep)
    assert not isinstance(caught.value, RunMoved)
    assert (awake.store.run(awake.run.id), awake.store.dead_letters()) == before
    awake.commit()


def test_one_that_slept_and_was_missed_by_nobody_goes_on(
    stores: Stores, three: list[Process]
) -> None:
    stores.clock.time += 3 * SHARD_LEASE
    three[1].commit()
    with pytest.raises(ShardHeld):
        Process(stores, 1).join()


def test_a_whole_run_beside_shards_is_refused_and_the_other_way_round(
    stores: Stores, join: Callable[..., Process]
) -> None:
    process = join(2)
    alone = stores.open("alone:1:a")
    with pytest.raises(LeaseError, match=r"another run is under way \(pod-2:1\)"):
        alone.begin("users", "f")
    with pytest.raises(LeaseError):
        alone.begin_replay("users")
    with pytest.raises(LeaseError):
        alone.set_window("users", 7)
    process.finish(Result.INTERRUPTED)

    run = alone.begin("users", "f")
    assert run.id == process.run.id
    with pytest.raises(LeaseError, match=r"another run is under way \(alone:1\)"):
        join(0, job="another")
    alone.finish(run, Result.INTERRUPTED, {})
    assert join(0, job="another").run.id == run.id


def test_a_replay_while_all_shards_sleep_keeps_them_out_until_it_has_ended(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    stores.clock.time += SHARD_LEASE
    operator = stores.open("operator:1:a")
    replay = operator.begin_replay("users")
    with pytest.raises(LeaseError, match=r"Shard 1 of run .* lease was lost"):
        three[1].commit()  # it wakes
    with pytest.raises(LeaseError, match=r"another run is under way \(operator:1\)"):
        join(2)
    operator.end_replay(replay)
    with pytest.raises(LeaseError):
        three[1].commit()
    assert join(1).run.id == join(2).run.id == three[0].run.id


def test_two_jobs_at_once_are_apart(stores: Stores, three: list[Process]) -> None:
    with pytest.raises(LeaseError, match="another run is under way"):
        Process(stores, 0, job="next").join()
    other = stores.open("pod-0:1:z")
    shard = Shard(index=0, of=2, job="job")  # the same Job has other syncs too
    run = other.begin("orders", "f", shard=shard)
    assert run.sync == "orders"
    assert run.id != three[0].run.id


def test_shards_that_do_not_agree_on_their_number(stores: Stores, three: list[Process]) -> None:
    with pytest.raises(UnusableState, match=r"shared by 3 shards, and RETL_SHARDS says 4 here"):
        Process(stores, 3, of=4).join()


def test_a_sync_that_was_changed_while_its_job_runs(stores: Stores, three: list[Process]) -> None:
    three[1].finish(Result.FAILED, "x")
    with pytest.raises(UnusableState, match=r"before what the sync does was changed\. Start a new"):
        Process(stores, 1, number=9).join("another fingerprint")
    three[0].commit()  # the others go on


# ------------------------------------------------------------------------------- starting


def test_a_starter_that_dies_before_it_attached_is_followed_by_another(
    stores: Stores, join: Callable[..., Process]
) -> None:
    dead, waiting, last = join(0), join(1), join(2)
    stores.clock.time += SHARD_LEASE - 1
    assert not waiting.follow().starts
    assert not last.follow().starts
    stores.clock.time += 1

    assert waiting.follow().starts
    assert not last.follow().starts
    with pytest.raises(RunMoved, match="started by another process"):
        dead.attach()  # it only slept
    assert not dead.follow().starts
    assert waiting.run.job_key == dead.run.job_key  # the same query's job is found
    waiting.attach()
    assert dead.follow().reading == last.follow().reading == THREE


def test_a_starter_whose_query_takes_minutes_keeps_the_others_waiting(
    stores: Stores, join: Callable[..., Process]
) -> None:
    starter, waiting = join(0), join(1)
    for _ in range(20):
        stores.clock.time += SHARD_LEASE / 2
        starter.commit(rows={})
        assert not waiting.follow().starts
    starter.attach()
    assert waiting.follow().reading == THREE


def test_a_starter_that_fails_leaves_it_to_the_next(join: Callable[..., Process]) -> None:
    starter, waiting = join(0), join(1)
    starter.finish(Result.FAILED, "the query is wrong")
    assert waiting.follow().starts
    assert waiting.store.runs()[0].error == "the query is wrong"
    assert waiting.store.runs()[0].result is None  # it goes on


# ------------------------------------------------------------------------------- ending


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_shard_closes_the_run_once_whatever_the_order(
    three: list[Process], order: tuple[int, ...]
) -> None:
    store = three[0].store
    for process in three:
        process.commit(dead=1)
    *before, last = order
    for index in before:
        left = three[index].finish()
        assert left is not None
        assert left.over
        assert store.window("users").sequence == 1
        assert store.runs()[0].result is None

    assert three[last].finish() is None

    (record,) = store.runs()
    assert record.result is Result.COMPLETE
    assert record.counts == {"cio": Counts(read=9, delivered=6, dead_lettered=3, requests=3)}
    assert (record.job, record.shards) == ("job", 3)
    window = store.window("users")
    assert (window.start, window.sequence) == (READING.query_started, 2)
    assert store.syncs()[0].holder is None
    for process in three:
        with pytest.raises(LeaseError):
            process.finish()
    assert store.window("users").sequence == 2


def test_who_comes_back_when_all_is_done_has_nothing_to_do(
    stores: Stores, three: list[Process]
) -> None:
    for process in three:
        process.commit()
    three[0].finish()
    assert Process(stores, 0, number=8).join().over  # this shard of it
    three[1].finish()
    three[2].finish()

    again = Process(stores, 1, number=9).join()

    assert (again.over, again.id, again.counts) == (True, three[0].run.id, {})
    assert len(three[0].store.runs()) == 1


def test_the_rate_is_shared_by_those_that_are_unfinished(three: list[Process]) -> None:
    assert three[2].run.standing.share == Share(place=2, of=3)
    three[0].commit()
    three[0].finish()
    three[2].commit()
    assert three[2].standing.share == Share(place=1, of=2)
    three[1].commit()
    three[1].finish(Result.INTERRUPTED)  # it has to come back: its part is kept for it
    three[2].commit()
    assert three[2].standing.share == Share(place=1, of=2)


def test_what_the_others_have_done_is_told_at_every_commit(three: list[Process]) -> None:
    three[0].commit(dead=2)
    assert three[0].standing.elsewhere == {}
    three[1].commit(dead=1)
    elsewhere = three[1].standing.elsewhere["cio"]
    assert (elsewhere.read, elsewhere.dead_lettered) == (4, 2)


def test_a_shard_that_fails_lets_the_others_go_on(three: list[Process]) -> None:
    for process in three:
        process.commit()
    store = three[0].store
    three[1].finish(Result.FAILED, "the key is refused")
    assert (store.runs()[0].result, store.runs()[0].error) == (None, "the key is refused")
    three[0].finish()
    assert store.runs()[0].result is None
    three[2].finish()

    (record,) = store.runs()

    assert (record.result, record.error) == (Result.FAILED, "the key is refused")
    assert store.window("users").sequence == 1
    assert store.syncs()[0].unfinished == record.id


def test_a_shard_that_died_leaves_an_interrupted_run_when_the_others_have_ended(
    stores: Stores, three: list[Process], join: Callable[..., Process]
) -> None:
    for process in three[:2]:
        process.commit()
        process.finish()
    stores.clock.time += SHARD_LEASE
    three[0].store.runs()
    again = join(2)
    again.finish(Result.INTERRUPTED)
    assert again.store.runs()[0].result is Result.INTERRUPTED
    last = join(2)
    assert last.store.runs()[0].result is None  # it goes on
    last.commit()
    assert last.finish() is None


# ------------------------------------------------------------------------------- seen from outside


def test_what_is_shown_of_a_shared_run_while_it_goes_on(
    stores: Stores, three: list[Process]
) -> None:
    three[0].commit(dead=1)
    three[0].finish()
    three[1].commit()
    three[2].finish(Result.INTERRUPTED)
    store = stores.open("looker:1:a")
    detail = store.run(three[0].run.id)
    assert detail is not None
    assert [(x.index, x.done, x.holder) for x in detail.shards] == [
        (0, True, None),
        (1, False, "pod-1:1"),
        (2, False, None),
    ]
    assert [x.counts["cio"].read if x.counts else None for x in detail.shards] == [4, 3, None]
    assert detail.record.counts["cio"] == Counts(read=7, delivered=6, dead_lettered=1, requests=2)
    assert detail.settled == {"cio": 7}
    (state,) = store.syncs()
    assert (state.holder, state.unfinished) == ("pod-1:1", three[0].run.id)
    assert state.shards == detail.shards
    stores.clock.time += SHARD_LEASE
    assert store.syncs()[0].holder is None


def test_what_is_moved_elsewhere_has_the_counts_of_all_shards(three: list[Process]) -> None:
    for process in three:
        process.commit()
    document = three[0].store.export_state(history=True)
    (run,) = document["runs"]  # type: ignore[misc]
    assert run["counts"]["cio"]["read"] == 9


def test_a_run_that_nobody_shares_takes_and_tells_nothing_of_shards(
    stores: Stores, store: SqlStore
) -> None:
    run = store.begin("users", "f")
    assert store.follow(run) is run
    assert store.commit(run, {}, {}) == ALONE
    assert (run.streams, run.starts, run.over) == (Share(), True, False)
    assert store.syncs()[0].shards == ()
    (record,) = store.runs()
    assert (record.job, record.shards) == (None, 1)


@pytest.mark.slow
def test_old_shared_runs_are_deleted_with_their_jobs(stores: Stores) -> None:
    one, other = stores.open("pod-0:1:a"), stores.open("pod-1:1:b")
    for number in range(102):
        stores.clock.time = START + number
        job = f"job-{number}"
        first = one.begin("users", "f", shard=Shard(index=0, of=2, job=job))
        second = other.begin("users", "f", shard=Shard(index=1, of=2, job=job))
        one.attach(first, replace(THREE, rows_exact=False))
        one.finish(first, Result.COMPLETE, {})
        other.finish(second, Result.COMPLETE, {})
    stores.clock.time += 10_000
    assert one.prune(runs=60, dead_letters=60).runs == 2
    assert len(one.runs(limit=1_000)) == 100


@pytest.mark.slow
def test_many_at_once_close_the_run_once(stores: Stores) -> None:
    """Threads with connections of their own, as fast as they can; some begin the run anew."""
    of, streams = 8, 24
    reading = replace(READING, streams=tuple(map(str, range(streams))), rows=streams * 20)
    together, closed, restarts = threading.Barrier(of), list[str](), itertools.count()

    def deliver(process: Process) -> OpenRun | None:
        while process.follow().reading is None:
            if process.run.starts:
                process.attach(reading)
        for rows in range(1, 21):
            if rows == 12 and process.shard.index % 4 == 0 and next(restarts) < 3:
                process.store.restart(process.run, "expired")
            mine = filter(process.run.streams.has, range(streams))
            process.commit(rows=dict.fromkeys(mine, rows))
        return process.finish()

    def work(index: int) -> None:
        process, left = Process(stores, index, of), None
        together.wait()
        process.join()
        while left is None and process.run.id not in closed:
            with suppress(RunMoved):
                left = deliver(process)
                if left is None:
                    closed.append(process.run.id)

    with ThreadPoolExecutor(of) as threads:
        for done in [threads.submit(work, index) for index in range(of)]:
            done.result(timeout=100)

    looker = stores.open("looker:1:a")
    records = looker.runs()
    assert closed == [records[0].id]
    assert [record.result for record in records].count(Result.COMPLETE) == 1
    assert records[0].counts["cio"].read == streams * 20
    assert looker.window("users").sequence == 2
