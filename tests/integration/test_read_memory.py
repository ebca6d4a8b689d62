"""What a read holds, counted in frames and bytes: hundreds of streams, huge messages, stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pyarrow as pa
import pytest
from local_system import Starter, system
from read_server import read_server

from pipeline.events import Buffered, Encoded
from pipeline.local.bigquery.memory import MemoryTable
from pipeline.model import Result
from pipeline.ports import Frame
from pipeline.run.frames import FrameRoom

__all__ = ["system"]
# The plan's proxy only counts: its rule is met by no connection.
COUNTING = "- {on: connection, after: 1000, do: {hang: true}}"


class Counting(FrameRoom):
    """Counts the frames that were given out and are not over with."""

    bytes_now = bytes_most = frames_now = frames_most = 0

    async def each(self, frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[Frame, None]:
        async for frame in super().each(frames):
            Counting.bytes_now += frame.nbytes
            Counting.frames_now += 1
            Counting.bytes_most = max(Counting.bytes_most, Counting.bytes_now)
            Counting.frames_most = max(Counting.frames_most, Counting.frames_now)
            try:
                yield frame
            finally:
                Counting.bytes_now -= frame.nbytes
                Counting.frames_now -= 1


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr("pipeline.run.encoding.FrameRoom", Counting)
    for name in ("bytes_now", "bytes_most", "frames_now", "frames_most"):
        setattr(Counting, name, 0)
    return Counting


@pytest.mark.slow
async def test_256_streams_at_a_time_hold_what_the_budget_says(
    system: Starter, counting: type[Counting]
) -> None:
    rows = 256 * 100
    async with system(rows=rows, message_rows=100, latency=0.02) as one:
        report = await one.run(RETL_READ__STREAMS="256", RETL_SEND__BUFFER_BYTES="1MB")
        assert report.result is Result.COMPLETE
        assert report.destinations["cio"].delivered == rows
        assert one.plan.seen() == {}
        assert (await one.stats())["accepted"] == rows
    assert counting.frames_now == counting.bytes_now == 0
    assert counting.frames_most >= 8  # and the room is used
    assert counting.bytes_most <= 500_000
    # A batch on its way costs 4 kB beside what waits for the budget; each stream has one at least.
    assert max(event.nbytes for event in one.events if isinstance(event, Buffered)) <= 2_200_000


@pytest.mark.slow
async def test_256_streams_that_nobody_asks_let_little_come_ahead() -> None:
    table = MemoryTable.users(4_096 * 256 * 8, streams=256)
    async with read_server(table, faults=COUNTING, readers=256) as served:
        reading = await served.reading(readers=64)
        assert len(reading.streams) == 256
        streams = [served.storage.read(reading, number, 0) for number in range(256)]
        taken = 0
        for stream in streams:
            taken += (await anext(stream)).nbytes
        assert served.proxy is not None
        before = -1
        while served.proxy.passed != before:  # until the windows are full
            before = served.proxy.passed
            await asyncio.sleep(0.1)
        ahead = served.proxy.passed - taken
        for stream in streams:
            await stream.aclose()
    assert ahead < 256 * 1_000_000  # of 2.2 GB that are there


@pytest.mark.slow
async def test_a_frame_of_100_mb_goes_through_in_pieces(
    system: Starter, counting: type[Counting]
) -> None:
    rows = 17_000
    query = "SELECT id AS userId, REPEAT(name, 500) AS notes FROM app.users"
    async with system(rows=rows, message_rows=10**6, message_bytes=2 * 10**8) as one:
        report = await one.run(query, RETL_SEND__BUFFER_BYTES="20MB")
        assert report.result is Result.COMPLETE
        assert report.destinations["cio"].delivered == rows
        assert (await one.stats())["unique_message_ids"] == rows
    assert counting.bytes_most > 95_000_000
    assert counting.frames_most == 1
    pieces = [event for event in one.events if isinstance(event, Encoded)]
    assert len(pieces) >= 12
    assert max(piece.nbytes for piece in pieces) <= 8_100_000
    assert max(event.nbytes for event in one.events if isinstance(event, Buffered)) <= 30_000_000


async def test_whoever_does_not_ask_waits_for_nothing() -> None:
    numbers = pa.table({"n": pa.array(range(40_000), pa.int64()), "s": ["x" * 300] * 40_000})
    # A rule that is never due: an empty plan counts no calls.
    plan = "- {on: read_rows, after: 1000, do: {hang: true}}"
    async with read_server(numbers, faults=plan, message_rows=2_000) as served:
        reading = await served.reading(readers=1)
        reader = served.storage.reader(reading, idle=0.05)
        rows = 0
        async for frame in reader.read(reading.streams[0], 0, 0):
            rows += frame.span.rows
            await asyncio.sleep(0.15 if rows == 2_000 else 0.0)  # three times as long as may be
        assert rows == 40_000
        assert served.plan.seen()["read_rows"] == 1
