"""The Source that puts another's rows on disk where sending them would outlast the read session.

Whether it does is decided once per Reading: always, if told so or if an earlier process began to;
else by the estimate of `pipeline.source.outlast`. Without a folder it only warns. The Reading keeps
where its rows are spooled, so that another process knows where they may be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.errors import StateError, UnusableState
from pipeline.events import Spooled, Warned
from pipeline.model import Reading, Window
from pipeline.ports import DryRun, Frame, Observer, Source
from pipeline.source.outlast import Outlook, Pace, outlook
from pipeline.source.spool.filler import RawFrame
from pipeline.source.spool.folder import Folder, check
from pipeline.source.spool.reading import SpooledReading
from pipeline.source.threads import in_daemon

_PLACE = "spool"  # in the details of a Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where to spool, and how much.

    parent: absolute, of one sync and state. always: or where it pays.
    """

    parent: Path
    max_bytes: int
    always: bool = False


def place_of(reading: Reading) -> Path | None:
    """Where the rows of a Reading were spooled when it was started; None: nowhere."""
    parent = reading.details.get(_PLACE)
    return None if parent is None else Folder(Path(parent), reading).path


class Spoolable(Source, Protocol):
    """A Source whose frames have their messages as they came."""

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[RawFrame, None]:
        """See `pipeline.ports.Source`."""


class Spool:
    """A `Source`. disk: None never spools. paces: of the destinations. streams: read at a time.

    Speaks to `observer` of bytes on disk, and of what an operator should know.
    """

    def __init__(
        self,
        source: Spoolable,
        *,
        sync: str,
        disk: Disk | None,
        paces: Sequence[Pace],
        streams: int,
        observer: Observer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._sync, self._disk, self._paces = source, sync, disk, paces
        self._streams, self._observer, self._clock = streams, observer, clock
        self._opening = asyncio.Lock()
        # The Reading that was decided on, and its spool if it has one.
        self._decided: Reading | None = None
        self._spooled: SpooledReading | None = None
        # Of a Reading that is not open yet.
        self._checkpoints: Mapping[int, int] = {}

    @property
    def activity(self) -> str:
        """See `pipeline.ports.Source`."""
        return self._source.activity

    def sql(self, window: Window) -> str:
        """See `pipeline.ports.Source`."""
        return self._source.sql(window)

    async def dry_run(self, window: Window) -> DryRun:
        """See `pipeline.ports.Source`."""
        return await self._source.dry_run(window)

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """See `pipeline.ports.Source`."""
        return await self._source.preview(window, rows, job_key)

    async def start(self, window: Window, job_key: str) -> Reading:
        """See `pipeline.ports.Source`. Raises UnusableState when the disk can't be used."""
        disk = self._disk
        if disk is None:
            return await self._source.start(window, job_key)
        await in_daemon(check, disk.parent)  # before a query is paid for
        reading = await self._source.start(window, job_key)
        if disk.always or self._outlasts(reading):
            reading = replace(reading, details={**reading.details, _PLACE: str(disk.parent)})
        return reading

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """See `pipeline.ports.Source`. Raises UnusableState when the disk can't be used."""
        async with self._opening:  # the first read of a Reading opens it for all
            if self._decided is not reading:
                await self._decide(reading)
        spooled = self._spooled
        frames = (
            self._source.read(reading, stream, first)
            if spooled is None
            else spooled.read(stream, first)
        )
        async with aclosing(frames):
            async for frame in frames:
                yield frame

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None:
        """See `pipeline.ports.Source`."""
        if self._decided is not reading:
            self._checkpoints = dict(checkpoints)
        elif self._spooled is not None:
            self._spooled.settled(checkpoints)

    async def discard(self) -> None:
        """The run is complete: what was spooled for it is removed."""
        if self._spooled is not None:
            await self._spooled.discard()
            self._spooled = None

    async def close(self) -> None:
        """See `pipeline.ports.Source`. What is on disk stays for the next process."""
        if self._spooled is not None:
            await self._spooled.close()
        await self._source.close()

    async def _decide(self, reading: Reading) -> None:
        if self._spooled is not None:  # of a session that expired
            await self._spooled.discard()
            self._spooled = None
        place, disk = reading.details.get(_PLACE), self._disk
        if place is not None and (disk is None or place != str(disk.parent)):
            self._warn(
                f"Rows of this run were put on disk in {place}, which is not where `spool.dir` "
                "points now: they are read from BigQuery again. To go on from them, stop the run "
                "and set `spool.dir` (RETL_SPOOL_DIR) back. They are removed when the run has "
                "ended, if this machine finds them there."
            )
        if disk is None:
            self._advise(outlook(reading, self._paces, self._clock()))
        else:
            folder = Folder(disk.parent, reading)
            await in_daemon(folder.remove_others)
            began = place == str(disk.parent) or await in_daemon(lambda: folder.exists)
            if disk.always or began or self._outlasts(reading):
                self._spooled = await self._open(folder, reading, disk.max_bytes)
        self._decided = reading

    def _outlasts(self, reading: Reading) -> bool:
        found = outlook(reading, self._paces, self._clock())
        return found is not None and found.outlasts

    async def _open(
        self, folder: Folder, reading: Reading, max_bytes: int
    ) -> SpooledReading | None:
        """None, and it is told, when the disk has no room for a beginning."""
        spooled = SpooledReading(
            self._source,
            reading,
            folder,
            max_bytes=max_bytes,
            streams=self._streams,
            where=f"sync {self._sync}",
            told=self._tell,
            warned=self._warn,
        )
        try:
            await spooled.open(self._checkpoints)
        except StateError as error:
            await spooled.close()
            if isinstance(error, UnusableState):
                raise
            self._warn(f"{error} This run reads from BigQuery as it sends, as if there were none.")
            return None
        return spooled

    def _advise(self, outlasting: Outlook | None) -> None:
        if outlasting is not None and outlasting.outlasts:
            self._warn(
                f"Sending takes {_hours(outlasting.needs)} or more under the rate limit, and "
                f"BigQuery's read session lasts {_hours(outlasting.lasts)}: when it expires, all "
                "rows are read and sent again. Set `spool.dir` (RETL_SPOOL_DIR) to a directory "
                "with room for the rows, or raise the rate limit."
            )

    def _tell(self, on_disk: int, written: int) -> None:
        self._observer(Spooled(sync=self._sync, destination="", on_disk=on_disk, written=written))

    def _warn(self, text: str) -> None:
        self._observer(Warned(sync=self._sync, destination="", text=text))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 360 else f"{seconds:,.0f} s"
