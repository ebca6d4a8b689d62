"""One Reading behind a spool: rows from disk in order, and from the source what the disk lacks.

The disk lacks rows where it has no room for them yet, where a file was damaged, and where it
can't be written. A reader of those reads them from the source until the disk has the next ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing

import pyarrow as pa

from pipeline.errors import ReadingExpired
from pipeline.model import Reading
from pipeline.ports import Frame
from pipeline.source.spool.file import Message, SpooledFrame, messages_of
from pipeline.source.spool.filler import Filler, RawSource
from pipeline.source.spool.folder import Folder, Stored
from pipeline.source.spool.stock import Shelf, Stock
from pipeline.source.threads import in_daemon

_DAMAGED = (
    "a file of the spool was damaged ({path}), and the read session its rows came from is gone: "
    "they are read anew. If it happens again, check the disk, or set RETL_SPOOL_DIR to another."
)


class SpooledReading:
    """Opened before the first read, closed at the end. All on one event loop.

    told: hears of the bytes on disk and those just written, after each change. warned: hears, in
    words, of what went wrong with the disk. where: for messages.
    """

    def __init__(
        self,
        source: RawSource,
        reading: Reading,
        folder: Folder,
        *,
        max_bytes: int,
        streams: int,
        where: str,
        told: Callable[[int, int], None],
        warned: Callable[[str], None],
    ) -> None:
        self.reading, self.folder = reading, folder
        self._source, self._where, self._told, self._warned = source, where, told, warned
        self._schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        self._stock = Stock(len(reading.streams), max_bytes)
        self._filler = Filler(
            source,
            reading,
            folder,
            self._stock,
            streams=streams,
            wrote=lambda nbytes: told(self._stock.used, nbytes),
            warned=warned,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        # Files that hold what can't be decoded; put here by the threads that find it out.
        self._broken: set[Stored] = set()
        self._damaged = ""

    async def open(self, checkpoints: Mapping[int, int]) -> None:
        """Find what is on disk, and begin to fill. checkpoints: as in `settled`.

        Raises StateError when the folder can't be used.
        """
        await in_daemon(self.folder.open)
        self._stock.found(*await in_daemon(self.folder.scan))
        self.settled(checkpoints)
        self._told(self._stock.used, 0)
        self._begin(self._filler.run())

    async def read(self, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """See `pipeline.ports.Source`."""
        stock, shelf, at = self._stock, self._stock.shelves[stream], first
        while True:
            file = shelf.covering(at)
            if stock.expired is not None:
                # Whatever is sent from here on would be sent again.
                raise stock.expired
            if file is not None:
                for frame in await self._load(file, at):
                    at = frame.span.end
                    yield frame
            elif shelf.ends_at(at) and (shelf.certain or at > first):
                return
            elif at < shelf.reached or stock.stands_still(shelf):
                async with aclosing(self._past_disk(stream, at, shelf)) as frames:
                    async for direct in frames:
                        at = direct.span.end
                        yield direct
                if shelf.ends_at(at):
                    return
            elif stock.failure is not None:
                raise stock.failure
            else:
                await stock.next_rows(shelf)

    def settled(self, checkpoints: Mapping[int, int]) -> None:
        """See `pipeline.ports.Source`."""
        done = self._stock.settle(checkpoints)
        if done:
            self._begin(self._delete(done))

    async def close(self) -> None:
        """Stop filling; what is on disk stays for the next process. Idempotent."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await in_daemon(self.folder.close)

    async def discard(self) -> None:
        """Close, and remove all of it."""
        await self.close()
        await in_daemon(self.folder.remove)
        self._told(0, 0)

    async def _past_disk(self, stream: int, at: int, shelf: Shelf) -> AsyncGenerator[Frame, None]:
        """From the source, until the disk has the next row or the stream ends."""
        try:
            async with aclosing(self._source.read(self.reading, stream, at)) as frames:
                async for frame in frames:
                    at = frame.span.end
                    yield frame
                    if shelf.covering(at) is not None:
                        return
        except ReadingExpired as error:
            if self._damaged and at < shelf.reached:
                text = _DAMAGED.format(path=self._damaged)
                raise type(error)(f"{self._where}: {text}") from error
            raise
        shelf.total = max(at, shelf.total or 0)
        self._stock.say()

    async def _load(self, file: Stored, at: int) -> Sequence[SpooledFrame]:
        """The messages of a file from row `at` on; none, and the file is forgotten, if damaged."""
        found = None if file in self._broken else await in_daemon(self._verified, file)
        if found is None:
            if self._stock.forget(file):
                self._damaged = str(self.folder.path / file.name)
                self._warned(
                    f"A file of the spool is damaged or gone: {self._damaged}. Its rows are read "
                    "from the source again."
                )
                self._begin(self._delete([file]))
            return ()
        spoil = self._broken.add
        return [
            SpooledFrame(
                message,
                span,
                at,
                schema=self._schema,
                where=self._where,
                broken=lambda: spoil(file),
            )
            for span, message in found
            if span.end > at
        ]

    def _verified(self, file: Stored) -> list[Message] | None:
        data = self.folder.read(file)
        return None if data is None else messages_of(data, file.span)

    async def _delete(self, files: Sequence[Stored]) -> None:
        await in_daemon(self.folder.delete, files)
        self._stock.deleted(sum(file.nbytes for file in files))
        self._told(self._stock.used, 0)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
