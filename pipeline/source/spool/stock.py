"""What is on disk of one Reading, and who waits for what: the bookkeeping of a spool.

Positions are row numbers of a stream. Everything before a stream's `reached` is on disk, was
deleted, or will not come to disk any more; from there on the filler brings it. No I/O; one event
loop. Waiting is for `changed`, which is said after every change.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.errors import ReadingExpired
from pipeline.source.spool.folder import Stored

# A full disk is tried again so often, in seconds, when nothing of ours is deleted.
_LOOK_AGAIN = 60.0


@dataclass(slots=True)
class Shelf:
    """One stream. files: in order of their first rows.

    floor: rows that no one asks for again. total: where the stream ended. certain: whether that was
    its last row: a stream may end early and not say so. awaited: how many readers wait for row
    `reached`. filling: whether the filler is at it. blocked: whether it waits for room.
    """

    files: list[Stored] = field(default_factory=list)
    floor: int = 0
    reached: int = 0
    total: int | None = None
    certain: bool = False
    awaited: int = 0
    filling: bool = False
    blocked: bool = False

    def covering(self, row: int) -> Stored | None:
        """The file that has a row; None when it is not on disk."""
        at = bisect_right(self.files, row, key=_first)
        # Files may overlap where a gap was filled: the one before last may reach further.
        for file in reversed(self.files[max(0, at - 2) : at]):
            if file.end > row:
                return file
        return None

    def ends_at(self, row: int) -> bool:
        """Whether the stream ended before this row."""
        return self.total is not None and row >= self.total

    def gap(self) -> tuple[int, int | None] | None:
        """The next rows to bring: from, and to before (None: to the stream's end); None: no more.

        Passes over what is on disk.
        """
        row = max(self.reached, self.floor)
        while (file := self.covering(row)) is not None:
            row = file.end
        self.reached = row
        if self.ends_at(row):
            return None
        at = bisect_right(self.files, row, key=_first)
        return row, self.files[at].first if at < len(self.files) else self.total


class Stock:
    """All streams of a Reading, and the bytes that their files take: never more than max_bytes."""

    def __init__(self, streams: int, max_bytes: int) -> None:
        self.shelves = [Shelf() for _ in range(streams)]
        self.max_bytes, self.used = max_bytes, 0
        # The disk is full though we may have more; until something of ours is deleted.
        self.disk_full = False
        # The disk can't be written at all: nothing is brought any more.
        self.broken = False
        # The filler has come to its end, with everything on disk or not; and what it ended with.
        self.done = False
        self.failure: Exception | None = None
        # What the filler met and tries again, and how often it did.
        self._fault: Exception | None = None
        self._faults = 0
        self._changed, self._needed = asyncio.Event(), asyncio.Event()

    @property
    def expired(self) -> ReadingExpired | None:
        """Set when the session is gone and the disk has not all of it: it can't be completed."""
        return self.failure if isinstance(self.failure, ReadingExpired) else None

    def stands_still(self, shelf: Shelf) -> bool:
        """Whether a stream's next rows come to disk after deletions only, or will not come."""
        if self.broken or shelf.blocked or (self.done and self.failure is None):
            return True
        return not shelf.filling and any(other.blocked for other in self.shelves)

    async def changed(self, at_most: float | None = None) -> bool:
        """Wait for the next change; False when it takes longer than so many seconds."""
        return await _said(self._changed, at_most)

    async def next_rows(self, shelf: Shelf) -> None:
        """Wait for the next change, which may be its next rows.

        Raises what the filler meets meanwhile.
        """
        met = self._faults
        shelf.awaited += 1
        self._needed.set()
        try:
            await self.changed()
        finally:
            shelf.awaited -= 1
        if self._faults != met and self._fault is not None:
            raise self._fault

    async def needed(self, *, at_most: float) -> None:
        """Wait until somebody begins to wait for rows, or so many seconds."""
        self._needed.clear()
        await _said(self._needed, at_most)

    def meet(self, fault: Exception) -> None:
        """The filler met a fault: all that wait for rows raise it."""
        self._fault, self._faults = fault, self._faults + 1
        self.say()

    def end(self, failure: Exception | None) -> None:
        """The filler has come to its end."""
        self.failure, self.done = failure, True
        self.say()

    def say(self) -> None:
        """Wake all that wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    def found(self, files: Iterable[Stored], ends: Mapping[int, int]) -> None:
        """Take stock of what an earlier process left."""
        for file in files:
            if file.stream < len(self.shelves):
                insort(self.shelves[file.stream].files, file, key=_first)
                self.used += file.nbytes
        for stream, rows in ends.items():
            if stream < len(self.shelves):
                self.shelves[stream].total, self.shelves[stream].certain = rows, True

    async def room(self, nbytes: int, shelf: Shelf, end: int) -> bool:
        """Wait for room and take it; False, and none is taken, once nobody needs rows up to end."""
        try:
            while shelf.floor < end and not self.broken:
                if not self.disk_full and self.used + nbytes <= self.max_bytes:
                    self.used += nbytes
                    return True
                if not shelf.blocked:
                    shelf.blocked = True
                    self.say()
                if not await self.changed(_LOOK_AGAIN if self.disk_full else None):
                    self.disk_full = False  # others may have made room
        finally:
            shelf.blocked = False
        return False

    def adds_up(self, rows: int | None) -> bool:
        """Whether the streams, each at its end, have so many rows together. None: any."""
        totals = [shelf.total for shelf in self.shelves if shelf.total is not None]
        return len(totals) == len(self.shelves) and rows in (None, sum(totals))

    def give_back(self, nbytes: int) -> None:
        """Room that is not used after all, or not any more."""
        self.used -= nbytes
        self.say()

    def deleted(self, nbytes: int) -> None:
        """Files of so many bytes are gone from the disk, which may have room again."""
        self.disk_full = False
        self.give_back(nbytes)

    def add(self, file: Stored) -> None:
        """A file is on disk; its room was taken before."""
        shelf = self.shelves[file.stream]
        insort(shelf.files, file, key=_first)
        shelf.reached = max(shelf.reached, file.end)
        self.say()

    def forget(self, file: Stored) -> bool:
        """A file is of no use; whether it was known. Its room is to be given back."""
        files = self.shelves[file.stream].files
        known = file in files
        if known:
            files.remove(file)
        return known

    def settle(self, checkpoints: Mapping[int, int]) -> list[Stored]:
        """Rows before these aren't asked for again: the files to delete, which are forgotten."""
        done: list[Stored] = []
        for stream, rows in checkpoints.items():
            shelf = self.shelves[stream]
            shelf.floor = max(shelf.floor, rows)
            done += [file for file in shelf.files if file.end <= shelf.floor]
            shelf.files = [file for file in shelf.files if file.end > shelf.floor]
        self.say()
        return done


async def _said(event: asyncio.Event, at_most: float | None) -> bool:
    try:
        async with asyncio.timeout(at_most):
            return await event.wait()
    except TimeoutError:
        return False


def _first(file: Stored) -> int:
    return file.first
