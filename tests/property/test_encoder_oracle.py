"""The encoder against a slow and obvious oracle, row by row."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import os
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.model import Call, Span, Window

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a DATETIME has no zone
TIMES = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))  # noqa: DTZ001

# Arrow type -> how to draw a value of it.
SCALARS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.binary(): st.binary(max_size=7),
    pa.decimal128(38, 9): st.decimals(-(10**20), 10**20, places=9),
    pa.decimal256(76, 38): st.decimals(-10, 10, places=38),
    pa.date32(): st.dates(),
    pa.timestamp("us"): TIMES,
}
TYPES = st.recursive(
    st.sampled_from(list(SCALARS)),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{index}", kind) for index, kind in enumerate(kinds)])
        ),
    ),
    max_leaves=4,
)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        drawn: st.SearchStrategy[Any] = st.lists(values(kind.value_type), max_size=3)
    elif pa.types.is_struct(kind):
        drawn = st.fixed_dictionaries({child.name: values(child.type) for child in kind})
    else:
        drawn = SCALARS[kind]
    return st.one_of(st.none(), drawn)


def oracle(value: Any) -> str:  # noqa: C901 - a table
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value) if math.isfinite(value) else "null"
        case Decimal():
            text = format(value, "f")
            if "." in text:
                text = text.rstrip("0").rstrip(".")
            return text
        case bytes():
            return json.dumps(base64.b64encode(value).decode())
        case dt.datetime():
            return str((value - EPOCH) // dt.timedelta(seconds=1))
        case dt.date():
            return json.dumps(value.isoformat())
        case list():
            return "[" + ",".join(map(oracle, value)) + "]"
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{oracle(v)}" for k, v in value.items()) + "}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def exactly(text: str) -> Any:
    """Parsed, with numbers that have a fraction compared as numbers of unlimited precision."""
    return json.loads(text, parse_float=lambda digits: Decimal(digits).normalize())


@settings(max_examples=int(os.environ.get("RETL_TEST_EXAMPLES", "400")), deadline=None)
@given(data=st.data(), omit=st.booleans())
def test_every_row_is_what_the_oracle_says(*, data: st.DataObject, omit: bool) -> None:
    kinds = data.draw(st.lists(TYPES, min_size=1, max_size=4))
    count = data.draw(st.integers(0, 5))
    before = data.draw(st.integers(0, 2))  # rows cut off: offsets into longer buffers
    columns = [
        data.draw(st.lists(values(kind), min_size=before + count, max_size=before + count))
        for kind in kinds
    ]
    names = [f"c{index}" for index in range(len(kinds))]
    schema = pa.schema([("userId", pa.string()), *zip(names, kinds, strict=True)])
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    users = pa.array([f"u{row}" for row in range(before + count)], pa.string())
    batch = pa.record_batch([users, *arrays], schema=schema).slice(before)

    encoder = CallEncoder(
        sync="s",
        call=Call.IDENTIFY,
        window=Window(start=0, sequence=1),
        schema=schema,
        rules=Rules(omit_nulls=omit),
        separator=b"\n",
        payload_bytes=10**6,
    )
    payloads = encoder.encode(batch, Span(stream=0, first=0, rows=count))

    lines = bytes(payloads.data[: int(payloads.offsets[-1])]).decode().split("\n")[:-1]
    assert len(lines) == count
    for row, line in enumerate(lines):
        got = exactly(line)
        members = [
            f"{json.dumps(name)}:{oracle(column[before + row])}"
            for name, column in zip(names, columns, strict=True)
            # NaN is sent as null, but the column is not null.
            if not (
                omit and (column[before + row] is None or oracle(column[before + row]) == "null")
            )
        ]
        assert got["userId"] == f"u{before + row}"
        assert got["traits"] == exactly("{" + ",".join(members) + "}")
        assert len(got["messageId"]) == 32
