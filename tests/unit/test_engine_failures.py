"""A Run whose source, destination, store or rows fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import pytest
from memory_run import WINDOW, MemoryDeliverer, MemorySource, MemoryStore, everything, run

from pipeline.errors import (
    ConfigError,
    DestinationError,
    LeaseError,
    ReadingExpired,
    SourceError,
    StateError,
    TooManyRejected,
)
from pipeline.events import Committed, Event
from pipeline.model import Batch, Call, Counts, Reading, Result, Window
from pipeline.ports import WHOLE, OpenRun, Shard, Standing


async def test_a_destination_that_fails_costs_the_others_nothing() -> None:
    def down(_batch: Batch) -> None:
        raise DestinationError("down")

    bad, good = MemoryDeliverer(down), MemoryDeliverer()
    source, store = MemorySource([30]), MemoryStore()
    report = await run(source, store, {"bad": bad, "good": good})
    assert (report.result, report.exit_code, str(report.error)) == (Result.FAILED, 75, "down")
    assert sorted(good.delivered) == everything([30])
    assert store.checkpoints == {("good", 0): 30}

    bad.behave = lambda _batch: None
    good.delivered.clear()
    report = await run(source, store, {"bad": bad, "good": good})
    assert report.result is Result.COMPLETE
    assert sorted(bad.delivered) == everything([30])
    assert good.delivered == []


async def test_a_source_that_fails_leaves_the_run_open() -> None:
    def fault(_stream: int, row: int) -> None:
        if row == 10:
            raise SourceError("gone")

    store = MemoryStore()
    report = await run(MemorySource([20], fault=fault), store, {"api": MemoryDeliverer()})
    assert (report.exit_code, store.results) == (75, [Result.FAILED])


async def test_an_expired_reading_starts_the_window_again() -> None:
    gone = [True]

    def fault(_stream: int, row: int) -> None:
        if row == 10 and gone.pop() if gone else False:
            raise ReadingExpired("expired")

    source, store, api = MemorySource([20], fault=fault), MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert source.started == ["run-1", "run-1"]  # the same query, another reading
    assert ("restart", "expired") in store.log
    assert set(api.delivered) == set(everything([20]))


async def test_a_reading_that_expires_for_ever_ends_the_run() -> None:
    def fault(_stream: int, _row: int) -> None:
        raise ReadingExpired("expired")

    source = MemorySource([20], fault=fault)
    report = await run(source, MemoryStore(), {"api": MemoryDeliverer()})
    assert (report.exit_code, len(source.started)) == (75, 3)


async def test_columns_that_can_not_become_the_call_are_refused_before_anything_is_kept() -> None:
    store, api = MemoryStore(), MemoryDeliverer()
    report = await run(MemorySource([5]), store, {"api": api}, call=Call.TRACK)
    assert isinstance(report.error, ConfigError)
    assert report.exit_code == 78
    assert api.delivered == []
    assert "attach" not in [kind for kind, _ in store.log]


async def test_too_many_dead_letters_end_the_run_and_are_kept() -> None:
    source, store = MemorySource([50], bad=frozenset(range(10))), MemoryStore()
    report = await run(
        source, store, {"api": MemoryDeliverer()}, tolerates=lambda bad, read: bad <= 0.1 * read
    )
    assert isinstance(report.error, TooManyRejected)
    assert report.exit_code == 65
    assert len(store.letters) >= 6


async def test_a_commit_that_fails_ends_the_run() -> None:
    store = MemoryStore()
    store.commit_fault = StateError("disk full")
    report = await run(MemorySource([20]), store, {"api": MemoryDeliverer()})
    assert (report.result, report.exit_code, str(report.error)) == (Result.FAILED, 75, "disk full")
    assert store.results == []


async def test_a_lost_lease_ends_a_run_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)

    async def stuck(_batch: Batch) -> None:
        await asyncio.Event().wait()

    store = MemoryStore()
    store.commit_fault = LeaseError("taken over")
    report = await run(MemorySource([20]), store, {"api": MemoryDeliverer(stuck)})
    assert (report.exit_code, store.results) == (75, [])


async def test_a_lease_held_by_another_is_reported() -> None:
    class Busy(MemoryStore):
        def begin(
            self, sync: str, fingerprint: str, *, full: bool = False, shard: Shard = WHOLE
        ) -> OpenRun:
            raise LeaseError("another run is under way")

    report = await run(MemorySource([1]), Busy(), {"api": MemoryDeliverer()})
    assert (report.run, report.exit_code) == ("", 75)
    assert report.as_dict()["error"] == "another run is under way"


async def test_our_own_fault_is_raised_after_the_run_is_closed() -> None:
    def bug(_batch: Batch) -> None:
        raise ZeroDivisionError

    store = MemoryStore()
    with pytest.raises(ZeroDivisionError):
        await run(MemorySource([5]), store, {"api": MemoryDeliverer(bug)})
    assert store.results == [Result.FAILED]


async def test_dead_letters_that_could_not_be_written_are_written_by_the_next_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    source, store = MemorySource([20], bad=frozenset({2, 3, 11}), hang_at=(0, 15)), MemoryStore()
    store.letter_faults = [StateError("locked")]
    report = await run(source, store, {"api": MemoryDeliverer()})
    # The commit in mid-run failed and ended the run; the last one made up for it.
    assert (report.exit_code, str(report.error)) == (75, "locked")
    covered = {row for row in (2, 3, 11) if row < store.checkpoints.get(("api", 0), 0)}
    assert covered <= {letter.row for letter in store.letters}
    source.hang_at = None
    report = await run(source, store, {"api": MemoryDeliverer()})
    assert sorted(letter.row for letter in store.letters) == [2, 3, 11]
    assert (report.destinations["api"].delivered, report.destinations["api"].dead_lettered) == (
        17,
        3,
    )


async def test_failed_runs_do_not_count_a_row_twice() -> None:
    def down(_batch: Batch) -> None:
        raise DestinationError("down")

    source, store = MemorySource([10], bad=frozenset({1, 8})), MemoryStore()
    api = MemoryDeliverer(down)
    for _ in range(4):
        report = await run(source, store, {"api": api}, tolerates=lambda bad, _rows: bad <= 2)
        assert report.exit_code == 75
    api.behave = lambda _batch: None
    report = await run(source, store, {"api": api}, tolerates=lambda bad, _rows: bad <= 2)
    counts = report.destinations["api"]
    assert (counts.read, counts.delivered, counts.dead_lettered) == (10, 8, 2)


async def test_an_old_window_may_expire_in_every_new_process() -> None:
    store = MemoryStore()
    store.open = OpenRun(
        id="old",
        sync="users",
        window=WINDOW,
        fingerprint="f",
        attempt=9,
        reading=None,
        checkpoints={},
        counts={},
        resumed=True,
    )
    gone = [ReadingExpired("expired")]

    def fault(_stream: int, _row: int) -> None:
        if gone:
            raise gone.pop()

    report = await run(MemorySource([5], fault=fault), store, {"api": MemoryDeliverer()})
    assert report.result is Result.COMPLETE


async def test_a_commit_that_is_under_way_when_the_query_ends_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)

    committing, asked, sent = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(MemoryStore):
        def commit(
            self,
            run: OpenRun,
            checkpoints: Mapping[tuple[str, int], int],
            counts: Mapping[str, Counts],
        ) -> Standing:
            if not asked.is_set():  # the first one: it began without lanes, and ends with one
                loop.call_soon_threadsafe(committing.set)
                assert asked.wait(10)
            return super().commit(run, checkpoints, counts)

    class Later(MemorySource):
        async def start(self, window: Window, job_key: str) -> Reading:
            await committing.wait()
            return await super().start(window, job_key)

    async def wait(_batch: Batch) -> None:
        asked.set()
        await sent.wait()

    def heard(event: Event) -> None:
        if isinstance(event, Committed):
            sent.set()

    report = await run(Later([9]), Slow(), {"api": MemoryDeliverer(wait)}, observer=heard)
    assert report.result is Result.COMPLETE
