"""A run is complete only when every row of the source was read, and every row read is settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pytest
from memory_run import MemoryDeliverer, MemoryFrame, MemorySource, MemoryStore, everything, run

from pipeline.errors import BrokenFrame, PipelineError, SourceError
from pipeline.model import Batch, Reading, Result, Window
from pipeline.ports import Frame


@dataclass
class Short(MemorySource):
    """Says that there are `said` rows. ends: (stream, row) -> how often it ends there."""

    said: int | None = None
    exact: bool = True
    ends: dict[tuple[int, int], int] = field(default_factory=dict)

    async def start(self, window: Window, job_key: str) -> Reading:
        reading = await super().start(window, job_key)
        return replace(reading, rows=self.said, rows_exact=self.exact)

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        async for frame in super().read(reading, stream, first):
            key = stream, frame.span.first
            if self.ends.get(key, 0):
                self.ends[key] -= 1
                return
            yield frame


async def test_a_stream_that_ends_early_is_read_on() -> None:
    source = Short([20, 20], said=40, ends={(0, 10): 1, (1, 0): 1})
    store, api = MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert sorted(api.delivered) == everything([20, 20])
    assert source.read_from == [(0, 0), (1, 0), (0, 10), (1, 0)]


async def test_rows_that_never_come_keep_the_window_open_and_the_next_run_goes_on() -> None:
    source = Short([20, 20], said=40, ends={(0, 10): 2})
    store, api = MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert isinstance(report.error, SourceError)
    assert (report.result, report.exit_code) == (Result.FAILED, 75)
    assert "has 40 rows, and 30 came for api" in str(report.error)
    assert store.results == [Result.FAILED]
    assert report.destinations["api"].delivered == 30
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert sorted(api.delivered) == everything([20, 20])


async def test_more_rows_than_the_source_said_are_no_complete_run() -> None:
    report = await run(Short([20], said=19), MemoryStore(), {"api": MemoryDeliverer()})
    assert isinstance(report.error, SourceError)
    assert "has 19 rows, and 20 came" in str(report.error)


@pytest.mark.parametrize(("said", "exact"), [(None, True), (25, False), (15, False)])
async def test_an_estimate_and_an_unknown_number_check_nothing(
    *, said: int | None, exact: bool
) -> None:
    source = Short([20], said=said, exact=exact)
    report = await run(source, MemoryStore(), {"api": MemoryDeliverer()})
    assert report.result is Result.COMPLETE
    assert source.read_from == [(0, 0)]


async def test_no_stream_and_no_row_is_complete_and_no_stream_with_rows_is_not() -> None:
    report = await run(Short([], said=0), MemoryStore(), {"api": MemoryDeliverer()})
    assert report.result is Result.COMPLETE
    report = await run(Short([], said=3), MemoryStore(), {"api": MemoryDeliverer()})
    assert report.result is Result.FAILED


@pytest.mark.parametrize("end", [0, 10])  # at 0, all that was read is settled
async def test_a_reader_that_ends_by_its_own_cancellation_completes_nothing(end: int) -> None:
    def fault(_stream: int, row: int) -> None:
        if row == end:
            raise asyncio.CancelledError

    source = Short([20, 20], said=None, fault=fault)  # so many rows as come
    store, api = MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert report.result is Result.FAILED
    assert "a read for api was cancelled by nobody" in str(report.error)
    source.fault = lambda _stream, _row: None
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert set(api.delivered) == set(everything([20, 20]))


async def test_a_delivery_that_ends_by_its_own_cancellation_completes_nothing() -> None:
    def behave(batch: Batch) -> None:
        if batch.span.first == 4:
            raise asyncio.CancelledError

    store, api = MemoryStore(), MemoryDeliverer(behave)
    report = await run(MemorySource([20]), store, {"api": api})
    assert report.result is Result.FAILED
    assert isinstance(report.error, PipelineError)
    assert "20 rows were read for api and 4 are settled" in str(report.error)
    assert store.checkpoints == {("api", 0): 4}
    api.behave = lambda _batch: None
    report = await run(MemorySource([20]), store, {"api": api})
    assert report.result is Result.COMPLETE
    assert set(api.delivered) == set(everything([20]))


async def test_a_delivery_that_was_lost_as_the_run_was_stopped_is_an_interruption() -> None:
    stop = asyncio.Event()

    def behave(batch: Batch) -> None:
        if batch.span.first == 16:
            stop.set()
            raise asyncio.CancelledError

    store, api = MemoryStore(), MemoryDeliverer(behave)
    report = await run(MemorySource([20]), store, {"api": api}, stop=stop)
    assert report.result is Result.INTERRUPTED
    assert store.results == [Result.INTERRUPTED]


# ------------------------------------------------------------------------------- broken frames


@dataclass
class Breaking(MemorySource):
    """A frame at a row can't be decoded so many times."""

    row: int = 10
    times: int = 1

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        async for frame in super().read(reading, stream, first):
            assert isinstance(frame, MemoryFrame)
            if frame.span.first == self.row and self.times:
                self.times -= 1
                yield BadFrame(frame.span, frame.batch)
            else:
                yield frame


class BadFrame(MemoryFrame):
    def record_batch(self) -> pa.RecordBatch:
        raise BrokenFrame("a message is broken.")


@pytest.mark.parametrize("times", [1, 3])
async def test_a_broken_frame_is_read_again_alone(times: int) -> None:
    source, api = Breaking([20], times=times), MemoryDeliverer()
    report = await run(source, MemoryStore(), {"api": api})
    assert report.result is Result.COMPLETE
    assert sorted(api.delivered) == everything([20])
    assert source.read_from == [(0, 0), *[(0, 10)] * times]


async def test_a_frame_that_stays_broken_ends_the_run() -> None:
    source, store, api = Breaking([20], times=4), MemoryStore(), MemoryDeliverer()
    report = await run(source, store, {"api": api})
    assert isinstance(report.error, BrokenFrame)
    assert (report.exit_code, len(source.read_from)) == (75, 4)
    report = await run(source, store, {"api": api})
    assert report.result is Result.COMPLETE
    assert set(api.delivered) == set(everything([20]))
