"""What `pipeline.ports.Store` promises, sentence by sentence, held against every kind of store.

Another kind of store runs through all of it by one more entry of KINDS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError, PipelineError
from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import OpenRun, Store

LEASE = 60.0
START = 1_795_534_200.0  # 2026-11-24T15:30:00Z


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class Stores:
    """One state, opened by as many holders as a test wants."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Clock()
        self._opened: list[SqlStore] = []

    def open(
        self, holder: str = "elsewhere:1:a", token: Callable[[], str] | None = None
    ) -> SqlStore:
        more = {} if token is None else {"token": token}
        store = SqlStore(self.url, holder=holder, now=self.clock, lease_seconds=LEASE, **more)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


KINDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/made/by/the/store/state.db",
}


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(KINDS[request.param](tmp_path))
    yield stores
    stores.close()


@pytest.fixture
def store(stores: Stores) -> SqlStore:
    return stores.open()


READING = Reading(
    streams=("projects/p/streams/0", "projects/p/streams/1"),
    schema=b"\x00\xff arrow",
    query_started=1_795_534_100,
    rows=1_000,
    expires=1_795_555_700,
    bytes_processed=9_000,
    bytes_billed=10_000,
    slot_ms=70,
    cache_hit=True,
    estimated_bytes=8_000,
    details={"job": "retl-1", "table": "p.d.t"},
)
COUNTS = {"customerio": Counts(read=9, delivered=7, dead_lettered=2, requests=3, bytes_sent=99)}


def letter(row: int, *, stream: int = 0, reason: str = "missing_id") -> DeadLetter:
    return DeadLetter(
        stream=stream, row=row, reason=reason, message="no userId", payload=b'{"n":%d}' % row
    )


def complete(store: Store, sync: str = "users", *, query_started: int = 500) -> OpenRun:
    run = store.begin(sync, "f")
    store.attach(run, replace(READING, query_started=query_started))
    store.finish(run, Result.COMPLETE, COUNTS)
    return run


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


# ------------------------------------------------------------------------------- leases


def test_a_live_lease_is_refused_until_it_expires(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    other = stores.open("far:99:b")

    stores.clock.time += LEASE - 1
    with pytest.raises(LeaseError, match=r"users: another run is under way \(elsewhere:1\).* 1 s"):
        other.begin("users", "f")
    stores.clock.time += 1
    assert other.begin("users", "f").id == run.id


def test_the_same_holder_can_not_run_a_sync_twice_at_once(store: SqlStore) -> None:
    store.begin("users", "f")

    with pytest.raises(LeaseError):
        store.begin("users", "f")


WRITES: dict[str, Callable[[SqlStore, OpenRun], object]] = {
    "attach": lambda store, run: store.attach(run, READING),
    "commit": lambda store, run: store.commit(run, {("a", 0): 1}, COUNTS),
    "dead letters": lambda store, run: store.add_dead_letters(run, "a", [letter(1)]),
    "restart": lambda store, run: store.restart(run, "gone"),
    "finish": lambda store, run: store.finish(run, Result.FAILED, COUNTS, "x"),
    "complete": lambda store, run: store.finish(run, Result.COMPLETE, COUNTS),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_run_that_lost_its_lease_changes_nothing(
    stores: Stores, store: SqlStore, write: Callable[[SqlStore, OpenRun], object]
) -> None:
    run = store.begin("users", "f")
    store.attach(run, replace(READING, query_started=77))
    stores.clock.time += LEASE
    other = stores.open("far:99:b")
    theirs = other.begin("users", "f")
    before = (other.runs(), other.window("users"), other.dead_letters())

    with pytest.raises(LeaseError, match="users: this run's lease was lost"):
        write(store, run)

    assert (other.runs(), other.window("users"), other.dead_letters()) == before
    other.commit(theirs, {("a", 0): 2}, {})
    other.finish(theirs, Result.INTERRUPTED, {})
    assert other.begin("users", "f").checkpoints == {("a", 0): 2}


@pytest.mark.parametrize("write", [name for name in WRITES if name not in {"finish", "complete"}])
def test_every_write_renews_the_lease_an_expired_one_too(
    stores: Stores, store: SqlStore, write: str
) -> None:
    run = store.begin("users", "f")
    stores.clock.time += LEASE + 5  # nobody took it

    WRITES[write](store, run)

    stores.clock.time += LEASE - 1
    with pytest.raises(LeaseError):
        stores.open("far:99:b").begin("users", "f")


def test_the_same_holder_is_fenced_off_by_its_own_next_run(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    stores.clock.time += LEASE
    again = store.begin("users", "f")

    with pytest.raises(LeaseError):
        store.commit(run, {("a", 0): 1}, {})
    store.commit(replace(again, reading=READING), {("a", 0): 1}, {})


def test_a_dead_process_of_this_host_is_taken_over_at_once(stores: Stores) -> None:
    child = subprocess.run([sys.executable, "-c", ""], check=True)
    assert child.returncode == 0
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    run = stores.open(f"here:{gone.pid}:a").begin("users", "f")

    with pytest.raises(LeaseError):
        stores.open("far:1:b").begin("users", "f")
    assert stores.open("here:2:c").begin("users", "f").id == run.id


def test_a_live_process_of_this_host_is_not(stores: Stores) -> None:
    stores.open(f"here:{os.getppid()}:a").begin("users", "f")

    with pytest.raises(LeaseError):
        stores.open("here:2:b").begin("users", "f")


def test_a_restarted_container_takes_over_from_itself(stores: Stores) -> None:
    """The same host name and process id again, but another nonce."""
    before = stores.open(f"pod-0:{os.getpid()}:a")
    run = before.begin("users", "f")
    after = stores.open(f"pod-0:{os.getpid()}:b")
    with pytest.raises(LeaseError):  # both live in this very process
        after.begin("users", "f")

    before.close()

    assert after.begin("users", "f").id == run.id


@pytest.mark.parametrize("holder", ["", "x", "here:pid:a", "here:0:a", "here:-1:a", "a:b"])
def test_a_holder_of_another_form_is_alive_until_its_lease_expires(
    stores: Stores, holder: str
) -> None:
    stores.open(holder).begin("users", "f")
    other = stores.open("here:2:b")

    with pytest.raises(LeaseError):
        other.begin("users", "f")
    stores.clock.time += LEASE
    other.begin("users", "f")


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


# ------------------------------------------------------------------------------- dead letters


def test_dead_letters_newest_first(stores: Stores, store: SqlStore) -> None:
    users, events = store.begin("users", "f"), store.begin("events", "f")
    store.add_dead_letters(users, "customerio", [letter(1), letter(2)])
    stores.clock.time += 3
    store.add_dead_letters(events, "customerio", [letter(1)])

    listed = store.dead_letters()

    assert [(each.sync, each.letter) for each in listed] == [
        ("events", letter(1)),
        ("users", letter(2)),
        ("users", letter(1)),
    ]
    assert [each.at for each in listed] == [START + 3, START, START]
    assert {each.destination for each in listed} == {"customerio"}
    assert store.dead_letters(limit=1) == listed[:1]
    assert store.dead_letters("users") == listed[1:]
    assert store.dead_letters(run=events.id) == listed[:1]
    assert store.dead_letters("users", events.id) == []


def test_the_same_row_again_is_ignored(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.add_dead_letters(run, "a", [letter(1), letter(1)])
    store.add_dead_letters(run, "a", [letter(1, reason="rejected_400"), letter(2)])
    store.add_dead_letters(run, "b", [letter(1)])
    store.add_dead_letters(run, "a", [letter(1, stream=1)])

    kept = {(each.destination, each.letter) for each in store.dead_letters()}

    assert kept == {
        ("a", letter(1)),
        ("a", letter(2)),
        ("b", letter(1)),
        ("a", letter(1, stream=1)),
    }
    assert len(store.dead_letters()) == len(kept)


def test_no_dead_letters_are_no_write(store: SqlStore) -> None:
    store.add_dead_letters(store.begin("users", "f"), "a", [])

    assert store.dead_letters() == []


def test_dead_letters_outlive_a_restart_and_an_abandoned_run(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.add_dead_letters(run, "a", [letter(1)])
    store.finish(store.restart(run, "gone"), Result.INTERRUPTED, {})
    store.set_window("users", 0)

    assert [each.run for each in store.dead_letters()] == [run.id]


def test_a_run_that_is_gone_on_with_keeps_the_letters_that_its_checkpoints_cover(
    store: SqlStore,
) -> None:
    complete(store)
    other = store.begin("events", "f")
    store.add_dead_letters(other, "a", [letter(9)])
    run = store.begin("users", "f")
    for destination in ("a", "b", "c"):
        store.add_dead_letters(run, destination, [letter(row) for row in (4, 5, 6)])
        store.add_dead_letters(run, destination, [letter(row, stream=1) for row in (0, 9)])
    store.commit(run, {("a", 0): 5, ("a", 1): 9, ("b", 0): 7, ("b", 1): 0}, COUNTS)
    store.finish(run, Result.INTERRUPTED, {})
    assert len(store.dead_letters("users", limit=99)) == 15  # to be seen until it goes on

    again = store.begin("users", "f")

    kept = {
        (each.destination, each.letter.stream, each.letter.row)
        for each in store.dead_letters("users", limit=99)
    }
    assert kept == {("a", 0, 4), ("a", 1, 0), ("b", 0, 4), ("b", 0, 5), ("b", 0, 6)}
    assert len(store.dead_letters("events")) == 1
    store.add_dead_letters(again, "a", [letter(5, reason="rejected_400")])
    assert store.dead_letters("users", limit=1)[0].letter.reason == "rejected_400"


def test_one_dead_letter(store: SqlStore) -> None:
    run = store.begin("users", "f")
    odd = replace(letter(2**40), payload=b'{"\xc3\xa9":"\\u0000"}', message="")
    store.add_dead_letters(run, "a", [letter(1), odd])
    newest = store.dead_letters()[0]

    assert store.dead_letter(newest.id) == newest
    assert newest.letter == odd
    assert type(newest.letter.payload) is bytes
    assert store.dead_letter(newest.id + 1) is None


def test_the_summary_counts_by_reason(store: SqlStore) -> None:
    users, events = store.begin("users", "f"), store.begin("events", "f")
    store.add_dead_letters(users, "a", [letter(1), letter(2), letter(3, reason="rejected_400")])
    store.add_dead_letters(users, "b", [letter(1)])
    following = store.restart(users, "gone")
    store.add_dead_letters(following, "a", [letter(1)])
    store.add_dead_letters(events, "a", [letter(1)])

    of_users = [
        ("users", "a", "missing_id", 3),
        ("users", "a", "rejected_400", 1),
        ("users", "b", "missing_id", 1),
    ]
    assert store.dead_letter_summary() == [("events", "a", "missing_id", 1), *of_users]
    assert store.dead_letter_summary(sync="users") == of_users
    assert store.dead_letter_summary(run=following.id) == [("users", "a", "missing_id", 1)]
    assert store.dead_letter_summary(run=following.id, sync="events") == []


# ------------------------------------------------------------------------------- use


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
            assert len(store.dead_letters(sync)) == row + 1
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
