"""A source whose messages are numbers, and readers that check what they get, to try spools with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa

from pipeline.errors import ReadingExpired
from pipeline.events import Event
from pipeline.model import Reading, Span, Window
from pipeline.ports import DryRun
from pipeline.source.outlast import Pace
from pipeline.source.spool import filler, reading, source
from pipeline.source.spool.source import Disk, Spool

SCHEMA = pa.schema([("n", pa.int64())])
STREAM = 1_000_000  # row r of stream s is the number s * STREAM + r
MESSAGE = 10  # rows


@dataclass
class NumberFrame:
    span: Span
    nbytes: int = 0

    @property
    def batch(self) -> pa.RecordBatch:
        start = self.span.stream * STREAM + self.span.first
        return pa.record_batch([pa.array(range(start, start + self.span.rows))], schema=SCHEMA)

    @property
    def serialized(self) -> bytes:
        message: bytes = self.batch.serialize().to_pybytes()
        return message

    def record_batch(self) -> pa.RecordBatch:
        return self.batch


@dataclass
class NumberSource:
    """fault: called before each message with its stream and first row."""

    rows: Sequence[int]
    fault: Callable[[int, int], None] = lambda _stream, _row: None
    frame: Callable[[Span], NumberFrame] = NumberFrame
    asked: list[tuple[int, int]] = field(default_factory=list)
    sent: list[tuple[int, int]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    activity: str = ""
    closed: int = 0

    def reading(self, session: str = "a", **more: Any) -> Reading:
        return Reading(
            streams=tuple(f"{session}/{number}" for number in range(len(self.rows))),
            schema=SCHEMA.serialize().to_pybytes(),
            query_started=1,
            rows=sum(self.rows),
            **more,
        )

    async def start(self, window: Window, job_key: str) -> Reading:
        self.started.append(job_key)
        return self.reading()

    async def read(
        self, reading: Reading, stream: int, first: int
    ) -> AsyncGenerator[NumberFrame, None]:
        self.asked.append((stream, first))
        while first < self.rows[stream]:
            await asyncio.sleep(0)
            self.fault(stream, first)
            end = min(first - first % MESSAGE + MESSAGE, self.rows[stream])
            self.sent.append((stream, first))
            yield self.frame(Span(stream=stream, first=first, rows=end - first))
            first = end
        self.fault(stream, first)

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None: ...

    def sql(self, window: Window) -> str:
        return "SELECT n"

    async def dry_run(self, window: Window) -> DryRun:
        return DryRun(bytes_processed=0, statement_type="SELECT")

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        raise AssertionError

    async def close(self) -> None:
        self.closed += 1


def spool(
    inner: NumberSource,
    folder: Path | None,
    *,
    max_bytes: int = 10**9,
    always: bool = True,
    events: list[Event] | None = None,
    rows_per_second: float | None = None,
    now: float = 0.0,
) -> Spool:
    pace = Pace(
        requests_per_second=None,
        rows_per_second=rows_per_second,
        batch_rows=100,
        batch_bytes=500_000,
    )
    return Spool(
        inner,
        sync="users",
        disk=None
        if folder is None
        else Disk(parent=folder / "users", max_bytes=max_bytes, always=always),
        paces=[pace],
        streams=2,
        observer=([] if events is None else events).append,
        clock=lambda: now,
    )


async def numbers(
    one: Spool, reading: Reading, stream: int, first: int = 0, *, until: int | None = None
) -> list[int]:
    """The rows of a stream; checks that each frame begins where the one before ended."""
    found: list[int] = []
    async with aclosing(one.read(reading, stream, first)) as frames:
        async for frame in frames:
            assert (frame.span.stream, frame.span.first) == (stream, first + len(found))
            batch = frame.record_batch()
            assert batch.num_rows == frame.span.rows > 0
            found += batch.column(0).to_pylist()
            if until is not None and first + len(found) >= until:
                break
    return found


def rows_of(stream: int, first: int, end: int) -> list[int]:
    return list(range(stream * STREAM + first, stream * STREAM + end))


@contextmanager
def in_order(*, file_bytes: int | None = None) -> Iterator[None]:
    """Disk work without threads, so that a test takes the same turns each time."""

    async def now(work: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return work(*args)

    make = filler.Filler
    with (
        mock.patch.object(reading, "in_daemon", now),
        mock.patch.object(filler, "in_daemon", now),
        mock.patch.object(source, "in_daemon", now),
        mock.patch.object(
            reading,
            "Filler",
            lambda *args, **named: make(
                *args, **named | ({} if file_bytes is None else {"file_bytes": file_bytes})
            ),
        ),
    ):
        yield


FILE = 40
"""Bytes of a file at least: messages of ten numbers have some 200, so a file is one message."""
SPOOLED = 600
"""About the bytes of such a file on disk, and less than two."""


def files(folder: Path, kind: str = "arrow") -> list[str]:
    return sorted(path.name for path in folder.rglob(f"*.{kind}"))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.arrow"))


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(200):
        await asyncio.sleep(0)


def expired(_stream: int, _row: int) -> None:
    raise ReadingExpired("the read session is gone.")
