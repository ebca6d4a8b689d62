"""A Run from its lease to its report, stopped and gone on with."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from memory_run import MemoryDeliverer, MemorySource, MemoryStore, everything, run

from pipeline.events import Buffered, Encoded, Event, Finished, Settled, Started
from pipeline.model import Batch, Result


async def test_every_row_is_delivered_once_and_the_window_closes() -> None:
    source, store, api = MemorySource([12, 7, 0, 1]), MemoryStore(), MemoryDeliverer()
    events: list[Event] = []
    report = await run(source, store, {"api": api}, events=events)
    assert sorted(api.delivered) == everything([12, 7, 0, 1])
    assert (report.result, report.exit_code, report.error) == (Result.COMPLETE, 0, None)
    assert report.destinations["api"].delivered == report.rows == 20
    assert store.checkpoints == {("api", 0): 12, ("api", 1): 7, ("api", 3): 1}
    assert [entry[0] for entry in store.log if entry[0] != "commit"] == [
        "begin",
        "attach",
        "finish",
    ]
    assert store.log[-1] == ("finish", Result.COMPLETE)
    assert isinstance(events[0], Started)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.result, finished.bytes_billed, finished.at) == (Result.COMPLETE, 10, 300.0)


async def test_a_result_without_rows_completes() -> None:
    store = MemoryStore()
    report = await run(MemorySource([]), store, {"api": MemoryDeliverer()})
    assert (report.result, store.results) == (Result.COMPLETE, [Result.COMPLETE])


async def test_what_is_read_is_settled_or_in_flight_after_every_event() -> None:
    events: list[Event] = []
    source = MemorySource([40, 30], bad=frozenset({3, 17}))
    api = MemoryDeliverer(lambda batch: [20] if batch.span.first <= 20 < batch.span.end else [])
    report = await run(source, MemoryStore(), {"api": api}, events=events)
    read = settled = 0
    for event in events:
        if isinstance(event, Encoded):
            read += event.rows
            settled += sum(event.invalid.values())
        elif isinstance(event, Settled):
            settled += event.delivered + sum(event.rejected.values())
        elif isinstance(event, Buffered):
            assert event.rows == read - settled >= 0
    assert read == settled == 70
    counts = report.destinations["api"]
    assert (counts.delivered, counts.dead_lettered) == (64, 6)


async def test_dead_letters_are_durable_before_the_checkpoint_that_covers_them() -> None:
    source, store = MemorySource([10], bad=frozenset({0, 9})), MemoryStore()
    api = MemoryDeliverer(lambda batch: [4] if batch.span.first <= 4 < batch.span.end else [])
    await run(source, store, {"api": api})
    assert sorted(letter.row for letter in store.letters) == [0, 4, 9]
    known: set[int] = set()
    for kind, what in store.log:
        if kind == "letters":
            known |= {row for _, row in what}
        if kind == "commit":
            assert {row for row in (0, 4, 9) if row < what.get(("api", 0), 0)} <= known
    assert store.checkpoints == {("api", 0): 10}


async def test_rows_that_are_all_invalid_settle_without_a_request() -> None:
    api = MemoryDeliverer()
    store = MemoryStore()
    report = await run(MemorySource([7], bad=frozenset(range(7))), store, {"api": api})
    assert api.delivered == []
    assert store.checkpoints == {("api", 0): 7}
    assert report.destinations["api"].dead_lettered == 7


async def test_a_stop_drains_what_was_sent_and_the_next_run_goes_on_there() -> None:
    stop, sent = asyncio.Event(), asyncio.Event()

    async def slow(_batch: Batch) -> None:
        stop.set()
        await asyncio.sleep(0)
        sent.set()

    source, store, api = MemorySource([20], hang_at=(0, 10)), MemoryStore(), MemoryDeliverer(slow)
    report = await run(source, store, {"api": api}, stop=stop)
    assert sent.is_set()
    assert (report.result, report.exit_code) == (Result.INTERRUPTED, 75)
    assert store.results == [Result.INTERRUPTED]
    settled = store.checkpoints[("api", 0)]
    assert settled == len(api.delivered) > 0

    source.hang_at = None
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert source.started == ["run-1"]  # one query for both
    assert source.read_from[-1] == (0, settled)
    assert sorted(api.delivered) == everything([20])
    assert report.destinations["api"] == replace(
        report.destinations["api"], read=20, delivered=20, dead_lettered=0
    )


async def test_a_drain_does_not_wait_for_ever() -> None:
    stop = asyncio.Event()

    async def stuck(_batch: Batch) -> None:
        stop.set()
        await asyncio.Event().wait()

    store = MemoryStore()
    report = await run(
        MemorySource([20]), store, {"api": MemoryDeliverer(stuck)}, stop=stop, drain=0.0
    )
    assert report.exit_code == 75
    assert store.checkpoints == {}


async def test_a_stop_while_the_query_runs_leaves_the_run_open() -> None:
    stop = asyncio.Event()
    store = MemoryStore()
    report = await run(
        MemorySource([5], hang_start=stop.set), store, {"api": MemoryDeliverer()}, stop=stop
    )
    assert (report.exit_code, store.results) == (75, [Result.INTERRUPTED])
    assert ("attach", "run-1") not in store.log


async def test_a_stop_is_heard_after_the_last_row_is_read() -> None:
    stop = asyncio.Event()

    async def stuck(_batch: Batch) -> None:
        for _ in range(10):  # the last batch leaves a few steps before the reading is over
            await asyncio.sleep(0)
        stop.set()
        await asyncio.Event().wait()

    store = MemoryStore()
    report = await run(
        MemorySource([3]), store, {"api": MemoryDeliverer(stuck)}, stop=stop, drain=0.0
    )
    assert (report.exit_code, store.results) == (75, [Result.INTERRUPTED])
