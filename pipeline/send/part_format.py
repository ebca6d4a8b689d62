"""What a file of a folder holds: the payloads of a Batch as NDJSON lines or as Parquet. Pure.

Parquet has a column for each id that other tools join or deduplicate by, and the whole payload
as its JSON text: what varies from row to row stays text, so that every file has one schema.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from pipeline.model import Envelope, Slice

_KEYS = ("messageId", "type", "userId", "anonymousId", "groupId")
_KEY_SCHEMA = pa.schema([(name, pa.string()) for name in _KEYS])
PARQUET_SCHEMA = _KEY_SCHEMA.append(pa.field("payload", pa.string(), nullable=False))
"""The columns of Parquet files."""

_LINES = Envelope(prefix=b"", separator=b"\n", suffix=b"\n")


def ndjson(part: Sequence[Slice]) -> bytes:
    """One payload a line."""
    return _LINES.wrap([piece.view for piece in part])


def parquet(part: Sequence[Slice]) -> pa.Buffer:
    """One payload a row, by PARQUET_SCHEMA."""
    body = ndjson(part)
    sizes = [np.diff(piece.payloads.offsets[piece.start : piece.stop + 1]) for piece in part]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(body))
    payloads = pc.ascii_rtrim(lines, characters="\n")
    table = _keys(body, payloads).append_column(PARQUET_SCHEMA.field("payload"), payloads)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _keys(body: bytes, payloads: pa.StringArray) -> pa.Table:
    """The ids of every payload; null where there is none."""
    try:
        table = pj.read_json(
            pa.BufferReader(body),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=_KEY_SCHEMA, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        table = None
    if table is not None and table.num_rows == len(payloads):
        return table
    # Text that is no JSON, or more than Arrow takes for it: row by row, so that it costs no other.
    rows = [_keys_of(payload) for payload in payloads.to_pylist()]
    return pa.Table.from_pylist(rows, schema=_KEY_SCHEMA)


def _keys_of(payload: str) -> dict[str, str]:
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    members = message if isinstance(message, dict) else {}
    return {name: members[name] for name in _KEYS if isinstance(members.get(name), str)}
