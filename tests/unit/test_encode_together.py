"""Columns converted together are the columns converted one by one."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.encode.together import _MOST_ROWS
from pipeline.model import Call, Payloads, Span, Window

KINDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [1, None, -3]),
    (pa.string(), ["plain", 'qu"ote', None, "", "a\nb\x01"]),
    (pa.large_string(), ["long", None, "back\\slash"]),
    (pa.float64(), [0.5, None, float("nan"), 1e300, 2.0]),
    (pa.bool_(), [True, None, False]),
    (pa.decimal128(38, 9), [Decimal("1.5"), None, Decimal("-0.000000001")]),
    (pa.timestamp("us", "UTC"), [dt.datetime(1969, 12, 31, 23, 59, 59, 1, dt.UTC), None]),
    (pa.binary(), [b"", b"a", None, b"abcd"]),
]


@pytest.mark.parametrize("omit_nulls", [False, True])
def test_many_columns_of_few_rows_are_what_they_are_in_a_large_batch(*, omit_nulls: bool) -> None:
    rows = _MOST_ROWS + 1
    columns = {"userId": pa.array(range(rows))}
    for shift in range(3):  # three of each kind, none of them equal
        for kind, values in KINDS:
            drawn = [values[(row * (shift + 1) + shift) % len(values)] for row in range(rows)]
            columns[f"{kind}_{shift}"] = pa.array(drawn, kind)
    batch = pa.record_batch(columns)
    encoder = CallEncoder(
        sync="users",
        call=Call.IDENTIFY,
        window=Window(start=0, sequence=1),
        schema=batch.schema,
        rules=Rules(omit_nulls=omit_nulls),
        separator=b"\n",
        payload_bytes=32_000,
    )

    def encode(first: int, count: int) -> Payloads:
        return encoder.encode(batch.slice(first, count), Span(stream=0, first=first, rows=count))

    one_by_one = bytes(encode(0, rows).data)
    together = [bytes(encode(at, min(97, rows - at)).data) for at in range(0, rows, 97)]
    assert b"".join(together) == one_by_one
