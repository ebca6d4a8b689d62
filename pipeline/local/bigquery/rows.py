"""Rows in the REST API's JSON: {"f": [{"v": ...}]}, every scalar as text.

Source: the formats that the official client parses (google-cloud-bigquery's CellDataParser).
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from pipeline.local.bigquery.types import Column

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def to_rows(
    table: pa.Table, columns: Sequence[Column], *, int64_timestamps: bool
) -> list[dict[str, list[dict[str, object]]]]:
    """The rows of a table of BigQuery's Arrow types.

    int64_timestamps: TIMESTAMP as microseconds since 1970; otherwise as seconds, in floating point.
    """
    values = [
        [{"v": _cell(value, column, int64_timestamps)} for value in array.to_pylist()]
        for array, column in zip(table.columns, columns, strict=True)
    ]
    return [{"f": list(cells)} for cells in zip(*values, strict=True)]


def _cell(value: Any, column: Column, int64: bool) -> object:  # noqa: FBT001 - private
    if column.repeated:
        element = column.element
        return [{"v": _cell(item, element, int64)} for item in value or ()]
    if value is None:
        return None
    if column.kind == "STRUCT":
        fields = [
            {"v": _cell(item, field, int64)}
            for item, field in zip(value.values(), column.fields, strict=True)
        ]
        return {"f": fields}
    if column.kind == "RANGE":
        element = column.fields[0]
        bounds = [
            "UNBOUNDED" if value[key] is None else _cell(value[key], element, int64)
            for key in ("start", "end")
        ]
        return f"[{bounds[0]}, {bounds[1]})"
    if column.kind == "TIMESTAMP":
        micros = (value - _EPOCH) // _MICROSECOND
        return str(micros) if int64 else repr(micros / 1e6)
    return _TEXTS.get(column.kind, str)(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _decimal(value: Decimal) -> str:
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def _interval(value: Any) -> str:
    """BigQuery's canonical form: [sign]Y-M [sign]D [sign]H:M:S[.F]."""
    months, days, nanoseconds = value
    sign = "-" if months < 0 else ""
    seconds, rest = divmod(abs(nanoseconds) // 1000, 1_000_000)
    fraction = f".{rest:06d}" if rest else ""
    clock = f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}{fraction}"
    years, month = divmod(abs(months), 12)
    return f"{sign}{years}-{month} {days} {'-' if nanoseconds < 0 else ''}{clock}"


_TEXTS: dict[str, Callable[[Any], str]] = {
    "FLOAT64": _float,
    "BOOL": lambda value: "true" if value else "false",
    "BYTES": lambda value: base64.b64encode(value).decode(),
    "DATE": dt.date.isoformat,
    "TIME": dt.time.isoformat,
    "DATETIME": dt.datetime.isoformat,
    "NUMERIC": _decimal,
    "BIGNUMERIC": _decimal,
    "INTERVAL": _interval,
}
