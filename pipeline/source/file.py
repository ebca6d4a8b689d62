"""Parquet and Arrow IPC files as a Source: by path or by a `pyarrow.fs` URI (gs://, s3://).

A file is a stream; a folder's files are its streams, in the order of their names. Field metadata
such as `google:sqlType:json` is kept, so that a saved query result encodes like the query itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, ResultExpired, SourceError
from pipeline.model import Reading, Span, Window
from pipeline.ports import DryRun, Frame

# Rows of one frame: about what a message of the Storage Read API holds of a usual table.
_FRAME_ROWS = 8_192
_SUFFIXES = (".parquet", ".arrow", ".arrows", ".feather", ".ipc")
_PARQUET_MAGIC = b"PAR1"
_IPC_MAGIC = b"ARROW1"


class BatchFrame:
    """A RecordBatch that is here already."""

    __slots__ = ("_batch", "nbytes", "span")

    def __init__(self, batch: pa.RecordBatch, span: Span) -> None:
        self._batch, self.span, self.nbytes = batch, span, batch.nbytes

    def record_batch(self) -> pa.RecordBatch:
        """See `pipeline.ports.Frame`. Raises SourceError for broken data, such as bad UTF-8."""
        try:
            self._batch.validate(full=True)
        except pa.ArrowInvalid:
            raise SourceError(
                f"Rows {self.span.first} to {self.span.end - 1} of the file hold broken data, "
                "such as text that is not UTF-8. Write the file anew."
            ) from None
        return self._batch


class Files:
    """A `Source` over files. path: a file, a folder or a URI. where: for messages."""

    def __init__(self, path: str, *, where: str, clock: Callable[[], float] = time.time) -> None:
        self._path, self._where, self._clock = path, where, clock

    def sql(self, window: Window) -> str:  # noqa: ARG002 - the shape of a source
        """There is no query."""
        return ""

    @property
    def activity(self) -> str:
        """See `pipeline.ports.Source`."""
        return ""

    async def dry_run(self, window: Window) -> DryRun:  # noqa: ARG002 - the port's shape
        """The bytes of the files."""
        infos = await asyncio.to_thread(self._infos)
        return DryRun(bytes_processed=sum(info.size for info in infos), statement_type="")

    async def start(self, window: Window, job_key: str) -> Reading:  # noqa: ARG002 - the port's shape
        """See `pipeline.ports.Source`; every row of the files, whatever the window."""
        return await asyncio.to_thread(self._start)

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """See `pipeline.ports.Source`."""
        reading = await self.start(window, job_key)
        batches: list[pa.RecordBatch] = []
        for stream in range(len(reading.streams)):
            async for frame in self.read(reading, stream, 0):
                batches.append(frame.record_batch())
                if sum(batch.num_rows for batch in batches) >= rows:
                    break
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        return pa.Table.from_batches(batches, schema=schema).slice(0, rows)

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """See `pipeline.ports.Source`."""
        name = reading.streams[stream]
        frames = await asyncio.to_thread(self._frames, name, reading.details[name], stream, first)
        while (frame := await asyncio.to_thread(self._next, frames)) is not None:
            yield frame

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None:
        """Nothing is kept of rows."""

    async def close(self) -> None:
        """Nothing is held."""

    def _start(self) -> Reading:
        infos = self._infos()
        schemas: list[pa.Schema] = []
        rows = 0
        with self._translated():
            fs, _ = self._filesystem()
            for info in infos:  # one at a time: there may be more files than descriptors
                with fs.open_input_file(info.path) as opened:
                    file = _open(opened)
                    schemas.append(file.schema)
                    rows += file.rows
        for info, schema in zip(infos, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise ConfigError(
                    f"{self._where}: {info.path} has other columns than {infos[0].path}. "
                    "All files of a source need the same schema."
                )
        return Reading(
            streams=tuple(info.path for info in infos),
            schema=schemas[0].serialize().to_pybytes(),
            query_started=int(self._clock()),
            rows=rows,
            details={info.path: _version(info) for info in infos},
        )

    def _infos(self) -> list[pafs.FileInfo]:
        with self._translated():
            fs, path = self._filesystem()
            info = fs.get_file_info(path)
            if info.type is pafs.FileType.Directory:
                found = fs.get_file_info(pafs.FileSelector(path))
                infos = sorted(
                    (file for file in found if file.path.endswith(_SUFFIXES)),
                    key=lambda file: str(file.path),
                )
                if not infos:
                    raise ConfigError(
                        f"{self._where}: {self._path} has no Parquet or Arrow files "
                        f"({', '.join(_SUFFIXES)})."
                    )
                return infos
            if info.type is not pafs.FileType.File:
                raise ConfigError(f"{self._where}: there is no file at {self._path}.")
            return [info]

    def _filesystem(self) -> tuple[pafs.FileSystem, str]:
        if "://" in self._path:
            fs, path = pafs.FileSystem.from_uri(self._path)
            return fs, str(path)
        return pafs.LocalFileSystem(), self._path

    def _frames(self, name: str, version: str, stream: int, first: int) -> Iterator[BatchFrame]:
        with self._translated():
            fs, _ = self._filesystem()
            if _version(fs.get_file_info(name)) != version:
                raise ResultExpired(f"{self._where}: {name} has changed since the run began.")
            file = _open(fs.open_input_file(name))
        return _cut(file.batches(first), stream, first)

    def _next(self, frames: Iterator[BatchFrame]) -> BatchFrame | None:
        with self._translated():
            return next(frames, None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ConfigError(
                f"{self._where}: {self._path} can't be read as Parquet or Arrow IPC "
                f"({type(error).__name__})."
            ) from error
        except OSError as error:
            raise SourceError(
                f"{self._where}: {self._path} can't be read ({type(error).__name__})."
            ) from error


class _Parquet:
    def __init__(self, file: pa.NativeFile) -> None:
        self._file = pq.ParquetFile(file)
        self.schema: pa.Schema = self._file.schema_arrow
        self.rows: int = self._file.metadata.num_rows

    def batches(self, first: int) -> Iterator[pa.RecordBatch]:
        """RecordBatches from row `first`; row groups before it are not read."""
        groups: list[int] = []
        skip = first
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if groups or skip < rows:
                groups.append(group)
            else:
                skip -= rows
        if groups:
            yield from _skip(self._file.iter_batches(_FRAME_ROWS, row_groups=groups), skip)


class _Ipc:
    """The file format, or the stream format."""

    def __init__(self, file: pa.NativeFile, *, stream: bool) -> None:
        self._file, self._stream = file, stream
        reader = self._reader()
        self.schema: pa.Schema = reader.schema
        self.rows: int = sum(batch.num_rows for batch in self._all(reader))

    def batches(self, first: int) -> Iterator[pa.RecordBatch]:
        """RecordBatches from row `first`."""
        yield from _skip(self._all(self._reader()), first)

    def _reader(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        self._file.seek(0)
        return pa.ipc.open_stream(self._file) if self._stream else pa.ipc.open_file(self._file)

    def _all(
        self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader
    ) -> Iterator[pa.RecordBatch]:
        if self._stream:
            yield from reader
        else:
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)


def _open(file: pa.NativeFile) -> _Parquet | _Ipc:
    magic = file.read_at(len(_IPC_MAGIC), 0)
    if magic.startswith(_PARQUET_MAGIC):
        return _Parquet(file)
    return _Ipc(file, stream=magic != _IPC_MAGIC)


def _version(info: pafs.FileInfo) -> str:
    return f"{info.size} bytes, {info.mtime_ns} ns"


def _skip(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _cut(batches: Iterator[pa.RecordBatch], stream: int, first: int) -> Iterator[BatchFrame]:
    for batch in batches:
        for start in range(0, batch.num_rows, _FRAME_ROWS):
            piece = batch.slice(start, _FRAME_ROWS)
            span = Span(stream=stream, first=first, rows=piece.num_rows)
            first = span.end
            yield BatchFrame(piece, span)
