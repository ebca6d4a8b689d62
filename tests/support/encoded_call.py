"""Any call, from columns to payloads, ids and row numbers included."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.model import Call, Payloads, Span, Window

WINDOW = Window(start=1_700_000_000, sequence=3)
JSON = {"ARROW:extension:name": "google:sqlType:json"}


def encode(
    call: Call,
    columns: dict[str, pa.Array | list[Any]],
    *,
    rules: Rules | None = None,
    payload_bytes: int = 32_000,
    metadata: dict[str, dict[str, str]] | None = None,
    first: int = 0,
) -> Payloads:
    arrays = {
        name: value if isinstance(value, pa.Array) else pa.array(value)
        for name, value in columns.items()
    }
    schema = pa.schema(
        [
            pa.field(name, array.type, metadata=(metadata or {}).get(name))
            for name, array in arrays.items()
        ]
    )
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema)
    encoder = CallEncoder(
        sync="users",
        call=call,
        window=WINDOW,
        schema=schema,
        rules=rules or Rules(),
        separator=b",",
        payload_bytes=payload_bytes,
    )
    return encoder.encode(batch, Span(stream=2, first=first, rows=batch.num_rows))


def texts(payloads: Payloads) -> list[str]:
    data, offsets = bytes(payloads.data), payloads.offsets.tolist()
    found = [data[a:b].decode() for a, b in pairwise(offsets)]
    assert all(text.endswith(",") for text in found)
    return [text[:-1] for text in found]


def rows(payloads: Payloads) -> list[dict[str, Any]]:
    return [json.loads(text) for text in texts(payloads)]


def bare(payloads: Payloads) -> list[dict[str, Any]]:
    """Without the messageIds."""
    return [{k: v for k, v in row.items() if k != "messageId"} for row in rows(payloads)]
