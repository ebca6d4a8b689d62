"""Answers of the Storage Read API as bytes; the rows in them are copied once.

Protobuf objects exist for the few fields around the rows, never for the rows.
"""

from __future__ import annotations

from typing import Any

from google.cloud.bigquery_storage_v1 import types

from pipeline.local.bigquery.sessions import Session, Stream

_ReadSession = types.ReadSession.pb()
_ReadRowsResponse = types.ReadRowsResponse.pb()
_SplitReadStreamResponse = types.SplitReadStreamResponse.pb()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def rows_response(
    pieces: tuple[bytes | memoryview, ...],
    *,
    rows: int,
    progress: tuple[float, float],
    schema: bytes,
) -> bytes:
    """A ReadRowsResponse around the pieces of a serialized RecordBatch. schema: empty for none."""
    rest = _ReadRowsResponse(row_count=rows)
    rest.stats.progress.at_response_start, rest.stats.progress.at_response_end = progress
    if schema:
        rest.arrow_schema.serialized_schema = schema
    size = sum(map(len, pieces))
    # Field 4, arrow_record_batch {1: serialized_record_batch, 2: row_count}; a message is the
    # concatenation of its fields in any order.
    before, after = b"\x0a" + _varint(size), b"\x10" + _varint(rows)
    length = _varint(len(before) + size + len(after))
    return b"".join((b"\x22", length, before, *pieces, after, rest.SerializeToString()))


def session_response(wanted: Any, session: Session) -> bytes:
    """The ReadSession that was wanted, completed with what it became."""
    response = _ReadSession()
    response.CopyFrom(wanted)
    response.name = session.name
    response.expire_time.FromNanoseconds(int(session.expires * 1e9))
    response.arrow_schema.serialized_schema = session.messages.schema.serialize().to_pybytes()
    response.estimated_row_count = session.rows
    response.estimated_total_bytes_scanned = session.messages.nbytes
    for stream in session.streams:
        response.streams.add().name = stream.name
    data: bytes = response.SerializeToString()
    return data


def split_response(parts: tuple[Stream, Stream] | None) -> bytes:
    """A SplitReadStreamResponse; empty when the stream could not be split."""
    response = _SplitReadStreamResponse()
    if parts is not None:
        response.primary_stream.name, response.remainder_stream.name = (p.name for p in parts)
    data: bytes = response.SerializeToString()
    return data
