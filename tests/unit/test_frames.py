"""Frames of many readers under one bound: counted, never measured by the process's memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import pyarrow as pa
import pytest

from pipeline.model import Span
from pipeline.run.frames import FrameRoom


@dataclass
class Sized:
    nbytes: int

    @property
    def span(self) -> Span:
        return Span(stream=0, first=0, rows=1)

    def record_batch(self) -> pa.RecordBatch:
        raise AssertionError


class Held:
    """Frames that were asked for or are here, of all readers."""

    def __init__(self) -> None:
        self.now = self.most = self.most_frames = 0
        self.frames = 0

    def take(self, size: int) -> None:
        self.now, self.frames = self.now + size, self.frames + 1
        self.most = max(self.most, self.now)
        self.most_frames = max(self.most_frames, self.frames)

    def give(self, size: int) -> None:
        self.now, self.frames = self.now - size, self.frames - 1

    async def stream(self, sizes: Iterable[int]) -> AsyncGenerator[Sized, None]:
        for size in sizes:
            self.take(size)
            try:
                await asyncio.sleep(0)  # on its way
            except asyncio.CancelledError:
                self.give(size)
                raise
            yield Sized(size)


async def drain(room: FrameRoom, held: Held, sizes: Iterable[int]) -> int:
    count = 0
    async with aclosing(room.each(held.stream(sizes))) as frames:
        async for frame in frames:
            try:
                count += 1
                for _ in range(3):  # being encoded
                    await asyncio.sleep(0)
            finally:
                held.give(frame.nbytes)
    return count


async def test_hundreds_of_readers_hold_no_more_than_the_room() -> None:
    room, held = FrameRoom(32_000_000), Held()
    counts = await asyncio.gather(*(drain(room, held, [1_000_000] * 5) for _ in range(256)))
    assert counts == [5] * 256
    assert held.most <= 32_000_000
    assert held.most_frames == 32  # and the room is used
    assert (room.used, held.now) == (0, 0)


async def test_frames_of_100_mb_go_one_by_one_once_their_size_is_known() -> None:
    room, held = FrameRoom(32_000_000), Held()
    first = asyncio.create_task(drain(room, held, [100_000_000]))
    await first
    assert held.most_frames == 1
    counts = await asyncio.gather(*(drain(room, held, [100_000_000] * 3) for _ in range(64)))
    assert counts == [3] * 64
    assert held.most_frames == 1


async def test_before_any_size_is_known_few_are_asked_for() -> None:
    room, held = FrameRoom(32_000_000), Held()
    await asyncio.gather(*(drain(room, held, [100_000_000]) for _ in range(64)))
    assert held.most_frames <= 4


async def test_one_large_frame_does_not_slow_the_small_ones_for_long() -> None:
    room, held = FrameRoom(32_000_000), Held()
    await drain(room, held, [100_000_000, *[1_000_000] * 60])
    held.most_frames = 0
    await asyncio.gather(*(drain(room, held, [1_000_000] * 4) for _ in range(64)))
    assert held.most_frames >= 16
    assert held.frames == 0


async def test_room_smaller_than_any_frame_still_lets_one_through() -> None:
    room, held = FrameRoom(1_000), Held()
    assert await asyncio.gather(*(drain(room, held, [5_000] * 3) for _ in range(8))) == [3] * 8
    assert held.most_frames == 1


@pytest.mark.parametrize("when", range(12))
async def test_a_cancelled_reader_gives_its_room_back(when: int) -> None:
    room, held = FrameRoom(2_000_000), Held()
    tasks = [asyncio.create_task(drain(room, held, [1_000_000] * 9)) for _ in range(4)]
    for _ in range(when):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (room.used, held.now) == (0, 0)
