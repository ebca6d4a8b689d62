"""Reads the streams of a Reading ahead and puts them on disk, once for all destinations.

A file is written when it has a few megabytes, or sooner when somebody waits for its rows. Where
the disk has no room the streams stand still; what readers need then, they read themselves. A fault
of the wrapped source ends the reading only of those who wait for rows: the others have some on
disk, and it is tried again meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Protocol

from pipeline.errors import PipelineError, ReadingExpired
from pipeline.model import Reading
from pipeline.ports import Frame
from pipeline.source.spool.file import Message, pieces, size
from pipeline.source.spool.folder import FULL, Folder, Stored
from pipeline.source.spool.stock import Shelf, Stock
from pipeline.source.threads import in_daemon

# Of a file: small enough to hold one per stream, large enough that the disk's sync is no cost.
_FILE_BYTES = 4_000_000
# After a fault, in seconds; sooner once somebody waits. The source has had a patience of its own.
_TRY_AGAIN = 60.0


class RawFrame(Frame, Protocol):
    """A frame that has its message as it came."""

    @property
    def serialized(self) -> bytes | memoryview:
        """Its RecordBatch as an encapsulated IPC message, as it came."""


class RawSource(Protocol):
    """What the filler needs of the wrapped source."""

    def read(self, reading: Reading, stream: int, first: int, /) -> AsyncGenerator[RawFrame, None]:
        """See `pipeline.ports.Source`."""


class Filler:
    """Fills the stock of one Reading.

    streams: read at a time. wrote: hears of the bytes of each file. warned: hears, in words, of
    each kind of trouble once.
    """

    def __init__(
        self,
        source: RawSource,
        reading: Reading,
        folder: Folder,
        stock: Stock,
        *,
        streams: int,
        wrote: Callable[[int], None],
        warned: Callable[[str], None],
        file_bytes: int = _FILE_BYTES,
    ) -> None:
        self._source, self._reading, self._folder, self._stock = source, reading, folder, stock
        self._streams, self._wrote, self._warned = streams, wrote, warned
        self._file_bytes = file_bytes
        # What was warned of: a full disk, and the outage that lasts.
        self._full = self._down = False

    async def run(self) -> None:
        """Until everything is on disk, or can't be any more."""
        stock = self._stock
        while (fault := await self._fill_all()) is not None and _may_pass(fault):
            stock.meet(fault)
            if not self._down:
                self._down = True
                self._warned(
                    f"{fault} What is on disk is sent meanwhile, and the rest is asked for again "
                    "every minute."
                )
            await stock.needed(at_most=_TRY_AGAIN)
        stock.end(fault)

    async def _fill_all(self) -> Exception | None:
        """What came in between, if not all is on disk."""
        numbers, fault = iter(range(len(self._reading.streams))), None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._streams, len(self._reading.streams))):
                    group.create_task(self._fill_some(numbers))
            await self._mark_ends()
        except* Exception as errors:  # noqa: BLE001 - kept for whoever waits, who raises it
            fault = _worst(errors)
        return fault

    async def _fill_some(self, numbers: Iterator[int]) -> None:
        for number in numbers:  # shared by all
            shelf = self._stock.shelves[number]
            shelf.filling = True
            try:
                await self._fill(number, shelf)
            finally:
                shelf.filling = False

    async def _fill(self, number: int, shelf: Shelf) -> None:
        while not self._stock.broken and (gap := shelf.gap()) is not None:
            await self._bring(number, shelf, *gap)

    async def _bring(self, number: int, shelf: Shelf, first: int, limit: int | None) -> None:
        """Rows from `first` on, to where the disk has them again or the stream ends."""
        held: list[Message] = []
        async with aclosing(self._source.read(self._reading, number, first)) as frames:
            async for frame in frames:
                self._down = False
                if shelf.total is not None and shelf.floor >= shelf.total:
                    return  # somebody else came to its end, and all have settled it
                if frame.span.end <= shelf.floor:  # settled meanwhile, and so is what is held
                    held.clear()
                    shelf.reached = frame.span.end
                    continue
                held.append((frame.span, frame.serialized))
                arrived = limit is not None and frame.span.end >= limit
                if arrived or shelf.awaited or _bytes(held) >= self._file_bytes:
                    await self._put(shelf, held)
                    held = []
                if arrived or self._stock.broken:
                    return
        if held:
            await self._put(shelf, held)
        if not self._stock.broken:
            shelf.total = max(shelf.reached, first)
            self._stock.say()

    async def _put(self, shelf: Shelf, messages: list[Message]) -> None:
        """On disk, or nobody needs it, or the disk is broken."""
        first, end = messages[0][0], messages[-1][0].end
        nbytes = size(self._reading.schema, messages)
        file = Stored(stream=first.stream, first=first.first, end=end, nbytes=nbytes)
        while await self._stock.room(nbytes, shelf, end):
            try:
                await in_daemon(self._write, file, messages)
            except OSError as error:
                self._stock.give_back(nbytes)
                self._trouble(error)
            else:
                self._stock.add(file)
                self._wrote(nbytes)
                return
        if not self._stock.broken:
            shelf.reached = end

    def _write(self, file: Stored, messages: list[Message]) -> None:
        self._folder.write(file, pieces(self._reading.schema, messages))

    async def _mark_ends(self) -> None:
        """Everything is on disk. Only together can streams be seen to have ended where they should.

        Where they did not, whoever comes to an end asks the source if there is more. Where no
        count of all rows tells, the source has made sure of each end by itself.
        """
        reading, stock = self._reading, self._stock
        if stock.broken or not stock.adds_up(reading.rows if reading.rows_exact else None):
            return
        for number, shelf in enumerate(stock.shelves):
            if shelf.total is not None and not shelf.certain:
                shelf.certain = True
                try:
                    await in_daemon(self._folder.mark_end, number, shelf.total)
                except OSError as error:  # only a restart misses it, and asks the source
                    self._trouble(error)

    def _trouble(self, error: OSError) -> None:
        if error.errno in FULL:
            self._stock.disk_full = True
            if not self._full:
                self._full = True
                self._warned(
                    f"The disk of the spool {self._folder.path} is full ({error.strerror}), before "
                    "`spool.max_bytes` is reached. What has no room there is read from BigQuery as "
                    "it is sent, and if the read session ends before (6 hours), all rows are sent "
                    "again. Make room, or lower `spool.max_bytes`."
                )
        elif not self._stock.broken:
            self._stock.broken = True
            self._warned(
                f"The spool {self._folder.path} can't be written ({error.strerror}). What is on it "
                "is sent; the rest is read from BigQuery as it is sent, as if there were no spool."
            )
        self._stock.say()


def _bytes(messages: list[Message]) -> int:
    return sum(len(message) for _, message in messages)


def _may_pass(fault: Exception) -> bool:
    """Whether it makes sense to ask again, as long as there are rows to send."""
    return isinstance(fault, PipelineError) and not isinstance(fault, ReadingExpired)


def _worst(error: Exception) -> Exception:
    """Of several, that the session is gone: it can't be read to its end any more."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_worst(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, ReadingExpired)), leaves[0])
