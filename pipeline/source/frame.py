"""One ReadRows message: cut where it lies, and decoded without copying what need not be.

The few fields around the rows go through protobuf; the rows, which are nearly all of a message,
stay in the bytes that came. There they may lie at any address: Arrow copies a buffer to where its
type wants it, and nothing else. Decompression is not spread over Arrow's own threads: several
frames are decoded at a time anyhow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.message import DecodeError

from pipeline.errors import BrokenFrame
from pipeline.model import Span

_Response = types.ReadRowsResponse.pb()
# Tags of protobuf: the field's number, and that bytes follow. See ReadRowsResponse
# (arrow_record_batch) and ArrowRecordBatch (serialized_record_batch) in storage.proto, arrow.proto.
_ARROW_RECORD_BATCH, _SERIALIZED = 4 << 3 | 2, 1 << 3 | 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT = 10  # bytes
# Below this many bytes protobuf has a message copied in less time than we need to look through it,
# and its copies are aligned. Measured by benchmarks/read.py.
_SMALL = 100_000
_OPTIONS = pa.ipc.IpcReadOptions(
    use_threads=False, ensure_alignment=pa.ipc.Alignment.DataTypeSpecific
)


def cut(message: bytes) -> tuple[bytes | memoryview, Any]:
    """The serialized RecordBatch, and the ReadRowsResponse around it, which may lack it.

    Raises DecodeError. A field that is there twice counts as it was the last time.
    """
    if len(message) < _SMALL:
        response = _Response.FromString(message)
        return response.arrow_record_batch.serialized_record_batch, response
    view = memoryview(message)
    batch, rest, end = view[:0], [], 0
    for tag, start, stop in _fields(view):
        if tag == _ARROW_RECORD_BATCH:
            inner = view[start:stop]
            for part, first, last in _fields(inner):
                if part == _SERIALIZED:
                    batch = inner[first:last]
        else:
            rest.append(view[end:stop])
        end = stop
    return batch, _Response.FromString(b"".join(rest))


def _fields(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Tag, and where the value starts and stops, of each field."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        start, kind = at, tag & 7
        if kind == _BYTES:
            size, start = _varint(view, at)
            at = start + size
        elif kind == _VARINT:
            _, at = _varint(view, at)
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError("a field of no known kind")
        if at > end:
            raise DecodeError("a field beyond the message's end")
        yield tag, start, at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and where it ends."""
    value = shift = 0
    for place in range(at, min(at + _MOST_VARINT, len(view))):
        byte = view[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise DecodeError("a number without an end")


class Decoder:
    """Decodes messages of one schema. Thread-safe."""

    def __init__(self, schema: pa.Schema, where: str) -> None:
        self._where = where
        self._schema = schema.serialize().to_pybytes()
        # Readers that nobody uses: one is made for each thread that decodes at the same time.
        self._idle: list[_Reader] = []

    def decode(self, message: bytes | memoryview, rows: int) -> pa.RecordBatch:
        """The RecordBatch of a message that should have so many rows. Raises BrokenFrame."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = _Reader(self._schema)
        try:
            batch = reader.read(message)
            batch.validate()  # sizes and ends of the buffers, in no time; not every value
        except (pa.ArrowException, OSError, StopIteration) as error:
            # Arrow's words may quote values. The reader may be out of step: it is left.
            raise _broken(self._where, f"no Arrow record batch, {type(error).__name__}") from None
        self._idle.append(reader)
        if batch.num_rows != rows:
            raise _broken(self._where, f"says {rows} rows, holds {batch.num_rows}")
        return batch


def decode(message: bytes | memoryview, schema: pa.Schema, rows: int, where: str) -> pa.RecordBatch:
    """As `Decoder.decode`, for once."""
    return Decoder(schema, where).decode(message, rows)


class _Reader:
    """An IPC stream that is the schema, and then whatever message is put before it."""

    def __init__(self, schema: bytes) -> None:
        self._feed = _Feed()
        self._feed.put(schema)
        self._stream = pa.ipc.open_stream(pa.PythonFile(self._feed, mode="r"), options=_OPTIONS)

    def read(self, message: bytes | memoryview) -> pa.RecordBatch:
        self._feed.put(message)
        try:
            return self._stream.read_next_batch()
        finally:
            self._feed.put(b"")  # it must not keep the message in memory


class _Feed:
    """A file of what was put there last; what is read is a view of it."""

    closed = False

    def __init__(self) -> None:
        self._view, self._at = memoryview(b""), 0

    def put(self, data: bytes | memoryview) -> None:
        self._view, self._at = memoryview(data), 0

    def read(self, nbytes: int) -> memoryview:
        start = self._at
        self._at += nbytes
        return self._view[start : self._at]

    def close(self) -> None: ...


class ArrowFrame:
    """One ReadRows message. serialized: its RecordBatch as it came, an encapsulated IPC message."""

    __slots__ = ("_decoder", "nbytes", "serialized", "span")

    def __init__(
        self, serialized: bytes | memoryview, nbytes: int, span: Span, decoder: Decoder
    ) -> None:
        self.serialized, self.nbytes, self.span = serialized, nbytes, span
        self._decoder = decoder

    def record_batch(self) -> pa.RecordBatch:
        """See `pipeline.ports.Frame`. The frame holds nothing any more: readers keep them on."""
        serialized, self.serialized = self.serialized, b""
        return self._decoder.decode(serialized, self.span.rows)


def _broken(where: str, what: str) -> BrokenFrame:
    return BrokenFrame(
        f"{where}: a message of the read stream is broken, each time it is asked for ({what}). "
        "Nothing of it was sent. Run again; if it stays, report it to Google."
    )
