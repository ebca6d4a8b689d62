"""A Run whose budget is small, and frames of unusual sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from memory_run import MemoryDeliverer, MemorySource, MemoryStore, everything, run

from pipeline.encode.encoder import CallEncoder
from pipeline.events import Buffered, Event
from pipeline.model import Batch, Counts, Result, Span
from pipeline.ports import OpenRun, Standing
from pipeline.run.budget import ByteBudget


def when_readers_wait(
    monkeypatch: pytest.MonkeyPatch, readers: int, full: Callable[[], None]
) -> None:
    """Call `full` when so many of them find no room in the budget at once."""

    class Noted(ByteBudget):
        async def acquire(self, nbytes: int) -> None:
            if len(self._waiting) + 1 == readers and not self._fits(nbytes):
                full()
            await super().acquire(nbytes)

    monkeypatch.setattr("pipeline.run.lane.ByteBudget", Noted)


async def test_memory_is_bounded_by_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    gate = asyncio.Event()

    async def wait(_batch: Batch) -> None:
        await gate.wait()

    when_readers_wait(monkeypatch, 2, gate.set)
    await run(
        MemorySource([200, 200]),
        MemoryStore(),
        {"api": MemoryDeliverer(wait)},
        events=events,
        buffer_bytes=60_000,
    )
    most = max(event.nbytes for event in events if isinstance(event, Buffered))
    assert 10_000 < most <= 60_000 + 2 * (5_000 + 4_096)


async def test_a_huge_frame_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = CallEncoder.encode

    def noted(self: CallEncoder, batch: pa.RecordBatch, span: Span) -> Any:
        sizes.append(batch.num_rows)
        assert span.rows == batch.num_rows
        return encode(self, batch, span)

    monkeypatch.setattr("pipeline.run.encoding._PIECE_BYTES", 40)
    monkeypatch.setattr(CallEncoder, "encode", noted)
    source, store, api = (
        MemorySource([23], bad=frozenset({3, 4, 22})),
        MemoryStore(),
        MemoryDeliverer(),
    )
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert max(sizes) < 5
    assert sorted(api.delivered) == [row for row in everything([23]) if row[1] not in {3, 4, 22}]
    assert [x.row for x in store.letters] == [3, 4, 22]
    assert store.checkpoints == {("api", 0): 23}


@pytest.mark.parametrize(
    ("streams", "bad", "capacity"),
    [
        ([5], range(5), 17_000),
        ([5], (0, 1), 16_900),
        ([5, 5], range(5), 20_000),
        ([10, 10], (0, 1, 5, 6), 34_000),
        ([40, 40, 40], (0, 7, 20), 1),
    ],
)
async def test_a_budget_smaller_than_a_frame_and_its_dead_letters_only_slows_down(
    streams: list[int], bad: Sequence[int], capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    api = MemoryDeliverer()
    async with asyncio.timeout(20):
        report = await run(
            MemorySource(streams, bad=frozenset(bad)),
            MemoryStore(),
            {"api": api},
            buffer_bytes=capacity,
        )
    assert report.result is Result.COMPLETE
    counts = report.destinations["api"]
    assert counts.delivered + counts.dead_lettered == sum(streams)


async def test_frames_smaller_than_a_batch_are_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flying = [0, 0]

    async def stuck(batch: Batch) -> None:
        flying[0] += 1
        flying[1] += batch.nbytes
        await asyncio.Event().wait()

    stop = asyncio.Event()
    when_readers_wait(monkeypatch, 1, stop.set)
    source = MemorySource([20_000])  # five rows to a frame, four to a batch
    await run(
        source,
        MemoryStore(),
        {"api": MemoryDeliverer(stuck)},
        stop=stop,
        drain=0.0,
        buffer_bytes=100_000,
    )
    assert 1 <= flying[0] < 30
    assert flying[1] < 100_000


async def test_dead_letters_behind_a_stuck_batch_are_counted_once_it_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run.engine._COMMIT_EVERY", 0.001)
    gate = asyncio.Event()

    async def first_waits(batch: Batch) -> list[int]:
        if batch.span.first == 0:
            await gate.wait()
        return [batch.span.first]

    class Watching(MemoryStore):
        def commit(
            self,
            run: OpenRun,
            checkpoints: Mapping[tuple[str, int], int],
            counts: Mapping[str, Counts],
        ) -> Standing:
            standing = super().commit(run, checkpoints, counts)
            if counts and not self.checkpoints.get(("api", 0)):
                assert counts["api"].dead_lettered == 0  # kept, and not covered yet
                if len(self.letters) >= bad:
                    loop.call_soon_threadsafe(gate.set)
            return standing

    loop, bad = asyncio.get_running_loop(), 2_000 - 400
    source = MemorySource([2_000], bad=frozenset(row for row in range(2_000) if row % 5))
    store = Watching()
    report = await run(source, store, {"api": MemoryDeliverer(first_waits)})
    assert report.result is Result.COMPLETE
    counts = report.destinations["api"]
    assert (counts.read, counts.delivered, counts.dead_lettered) == (2_000, 300, 1_700)
    assert store.open is not None
    assert store.open.counts["api"] == counts
    assert len(store.letters) == 1_700
