"""Readers, crashes, damage and a small or full disk in any order: each row once, none lost.

A process is an event loop that ends without warning. What a destination has settled survives it,
and so does the disk, apart from what happens to it.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_spool import NumberSource, in_order, rows_of, spool

from pipeline.events import Event, Spooled
from pipeline.model import Reading
from pipeline.ports import Frame
from pipeline.source.spool.folder import Folder, Stored

FILE_BYTES = 800  # a few messages


@dataclass(frozen=True)
class Step:
    """destination reads so many frames of a stream, and settles all but `short` rows of them.

    short: None settles nothing.
    """

    destination: int
    stream: int
    frames: int
    short: int | None


@dataclass(frozen=True)
class Life:
    """One process: what it does, and what befalls the disk before or while it lives.

    writes: how many succeed before the disk is full. damaged: which of the files found.
    """

    steps: Sequence[Step]
    writes: int | None
    damaged: int | None


@dataclass
class World:
    rows: Sequence[int]
    max_bytes: int
    destinations: int
    folder: Path
    settled: dict[tuple[int, int], int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def checkpoint(self, destination: int, stream: int) -> int:
        return self.settled.get((destination, stream), 0)

    def floors(self) -> dict[int, int]:
        return {
            stream: min(self.checkpoint(one, stream) for one in range(self.destinations))
            for stream in range(len(self.rows))
        }

    async def live(self, life: Life, *, to_the_end: bool = False) -> None:
        inner = NumberSource(self.rows)
        reading = inner.reading()
        one = spool(inner, self.folder, max_bytes=self.max_bytes, events=self.events)
        one.settled(reading, self.floors())
        readers = Readers(self, reading, one.read)
        try:
            for step in life.steps:
                await readers.step(step)
                one.settled(reading, self.floors())
            if to_the_end:
                for destination in range(self.destinations):
                    for stream, rows in enumerate(self.rows):
                        await readers.step(Step(destination, stream, rows + 1, 0))
                        assert self.checkpoint(destination, stream) == rows
                one.settled(reading, self.floors())
                for _ in range(200):
                    await asyncio.sleep(0)
                if one._spooled is not None:
                    assert one._spooled._stock.used == 0
        finally:
            await readers.close()
            if one._spooled is not None:  # a lock that the end of a process would release
                one._spooled.folder.close()


class Readers:
    """Each destination's read of each stream, as far as it has come."""

    def __init__(self, world: World, reading: Reading, read: object) -> None:
        self.world, self.reading, self.read = world, reading, read
        self.open: dict[tuple[int, int], tuple[object, int]] = {}

    async def step(self, step: Step) -> None:
        stream = step.stream % len(self.world.rows)
        key = (step.destination % self.world.destinations, stream)
        if key not in self.open:
            first = self.world.checkpoint(*key)
            self.open[key] = self.read(self.reading, stream, first), first  # type: ignore[operator]
        frames, at = self.open[key]
        for _ in range(step.frames):
            frame: Frame | None = await anext(frames, None)  # type: ignore[call-overload]
            if frame is None:
                assert at == self.world.rows[stream], "a stream ends with its last row"
                break
            assert frame.span.first == at, "no gap, and nothing twice"
            got = frame.record_batch().column(0).to_pylist()
            assert got == rows_of(stream, at, frame.span.end)
            at = frame.span.end
        self.open[key] = frames, at
        if step.short is not None:
            self.world.settled[key] = max(self.world.checkpoint(*key), at - step.short)

    async def close(self) -> None:
        for frames, _ in self.open.values():
            await frames.aclose()  # type: ignore[attr-defined]


def spoil(folder: Path, number: int) -> None:
    files = sorted(folder.rglob("*.arrow"))
    if files:
        path = files[number % len(files)]
        path.write_bytes(path.read_bytes()[:-3] + b"bad")
    torn = next(folder.rglob("manifest.json"), None)
    if torn is not None:
        (torn.parent / "00000-000000000000-000000000010.arrow.ab12.part").write_bytes(b"half")


def full_after(writes: int | None) -> object:
    left, write = [10**9 if writes is None else writes], Folder.write

    def failing(self: Folder, file: Stored, pieces: list[bytes]) -> None:
        left[0] -= 1
        if -2 < left[0] < 0:  # full, until something is deleted
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, file, pieces)

    return failing


steps = st.lists(
    st.builds(
        Step,
        st.integers(0, 2),
        st.integers(0, 3),
        st.integers(0, 12),
        st.none() | st.integers(0, 14),
    ),
    max_size=8,
)
lives = st.lists(
    st.builds(Life, steps, st.none() | st.integers(0, 6), st.none() | st.integers(0, 9)),
    max_size=4,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.integers(0, 95), min_size=1, max_size=4),
    max_bytes=st.sampled_from([10, 900, 2_000, 10**6]),
    destinations=st.integers(1, 3),
    lives=lives,
)
def test_every_row_comes_once_to_every_destination(
    rows: list[int], max_bytes: int, destinations: int, lives: list[Life]
) -> None:
    with tempfile.TemporaryDirectory() as folder, in_order(file_bytes=FILE_BYTES):
        world = World(rows, max_bytes, destinations, Path(folder))
        for life in lives:
            with mock.patch.object(Folder, "write", full_after(life.writes)):
                asyncio.run(world.live(life))
            if life.damaged is not None:
                spoil(world.folder, life.damaged)
        asyncio.run(world.live(Life((), None, None), to_the_end=True))
        assert not list(world.folder.rglob("*.arrow")), "what is settled is deleted"
        on_disk = [event.on_disk for event in world.events if isinstance(event, Spooled)]
        assert max(on_disk, default=0) <= max_bytes
