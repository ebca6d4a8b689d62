"""Serialized RecordBatches: what a read session sends, made once and read by number.

A snapshot is written message by message into an unlinked temporary file, in the very form in
which it is sent; memory holds one message at a time, whatever the size of the table.
Knows neither sessions nor gRPC nor SQL.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

MESSAGE_BYTES = 1_000_000  # of Arrow buffers before compression; the service sends 1-2 MB
MESSAGE_ROWS = 16_384  # keeps narrow tables in several messages, and so in several streams


class Messages(Protocol):
    """The serialized RecordBatches of a table, in order, readable by number from any thread."""

    @property
    def schema(self) -> pa.Schema:
        """The schema of every message."""

    @property
    def starts(self) -> Sequence[int]:
        """The first row of each message, and at the end the number of rows."""

    @property
    def nbytes(self) -> int:
        """Bytes of the Arrow buffers, uncompressed."""

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk that `close` gives back."""

    def pieces(self, index: int) -> tuple[bytes | memoryview, ...]:
        """Message `index`, IPC-encapsulated; the pieces are to be joined."""

    def close(self) -> None:
        """Give the storage back; idempotent."""


def write_options(codec: str | None) -> pa.ipc.IpcWriteOptions:
    """How RecordBatches are serialized. codec: None, "lz4" (a frame) or "zstd"."""
    return pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)


def serialize(batch: pa.RecordBatch, codec: str | None) -> bytes:
    """One RecordBatch as an encapsulated IPC message, its buffers compressed by `codec`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=write_options(codec)) as writer:
        writer.write_batch(batch)
        end = sink.tell()
    message: bytes = sink.getvalue()[batch.schema.serialize().size : end].to_pybytes()
    return message


def tail(
    pieces: tuple[bytes | memoryview, ...], schema: pa.Schema, skip: int, codec: str | None
) -> bytes:
    """The message without its first `skip` rows."""
    batch = pa.ipc.read_record_batch(pa.py_buffer(b"".join(pieces)), schema)
    return serialize(batch.slice(skip), codec)


def cut(batches: Iterable[pa.RecordBatch], nbytes: int, rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `nbytes` bytes and at most `rows` rows."""
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for batch in batches:
        average = max(batch.nbytes, 1) / max(batch.num_rows, 1)
        step = max(1, min(rows, int(nbytes / average)))
        for at in range(0, batch.num_rows, step):
            piece = batch.slice(at, step)
            size = piece.nbytes
            if held and (held_rows + piece.num_rows > rows or held_bytes + size > nbytes):
                yield pa.concat_batches(held)
                held, held_rows, held_bytes = [], 0, 0
            held.append(piece)
            held_rows += piece.num_rows
            held_bytes += size
    if held:
        yield pa.concat_batches(held)


class Snapshot:
    """A table's rows as they are now, serialized into a file that nobody else sees."""

    def __init__(
        self,
        table: pa.RecordBatchReader | pa.Table,
        *,
        codec: str | None = None,
        message_bytes: int = MESSAGE_BYTES,
        message_rows: int = MESSAGE_ROWS,
        directory: Path | None = None,
    ) -> None:
        self.schema: pa.Schema = table.schema
        self.starts: list[int] = [0]
        self.nbytes = 0
        # An IPC stream: the schema's message, which goes out with the first batch, then ours.
        self._ends: list[int] = [self.schema.serialize().size]
        self._file = tempfile.TemporaryFile(  # noqa: SIM115  (lives as long as the session)
            prefix="retl-read-", dir=directory, buffering=2**20
        )
        try:
            self._write(table, codec, message_bytes, message_rows)
        except BaseException:
            self._file.close()
            raise
        finally:
            if isinstance(table, pa.RecordBatchReader):
                table.close()

    def _write(
        self,
        table: pa.RecordBatchReader | pa.Table,
        codec: str | None,
        message_bytes: int,
        message_rows: int,
    ) -> None:
        batches = table.to_batches() if isinstance(table, pa.Table) else table
        sink = pa.PythonFile(self._file, mode="w")
        writer = pa.ipc.new_stream(sink, self.schema, options=write_options(codec))
        for batch in cut(batches, message_bytes, message_rows):
            writer.write_batch(batch)
            self._ends.append(sink.tell())
            self.starts.append(self.starts[-1] + batch.num_rows)
            self.nbytes += batch.nbytes
        self._file.flush()

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk."""
        return self._ends[-1]

    def pieces(self, index: int) -> tuple[bytes | memoryview, ...]:
        """Message `index` in one piece."""
        start, end = self._ends[index], self._ends[index + 1]
        return (os.pread(self._file.fileno(), end - start, start),)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
