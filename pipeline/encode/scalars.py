"""Vectorized text of the scalar types whose JSON form no single Arrow kernel gives.

Every function takes a column and returns a string column of the same length; null stays null.
"""

from __future__ import annotations

import binascii
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import text_bytes

_NO_TEXT = pa.scalar(None, pa.string())
# Wide enough for every decimal below one in size plus one, at BigQuery's largest scale (38).
_WIDE_PRECISION = 75
_NANOS = 1_000_000_000


def finite_text(column: pa.Array) -> pa.StringArray:
    """The shortest text that reads back as the same double; NaN and infinities are null."""
    text = pc.cast(column, pa.string())
    finite = pc.is_finite(column)
    if pc.all(finite, min_count=0).as_py():
        return text
    return pc.if_else(finite, text, _NO_TEXT)


def decimal_text(column: pa.Array) -> pa.StringArray:
    """Exact digits, without exponent and trailing zeros: 1.50 is 1.5, 0E-9 is 0."""
    text = pc.cast(column, pa.string())
    scale = column.type.scale
    if scale <= 0:
        return text
    # Arrow writes what is smaller than 1e-6 with an exponent, zero included.
    scientific = pc.match_substring(text, "E")
    if pc.any(scientific, min_count=0).as_py():
        text = pc.replace_with_mask(text, scientific, _below_one(column.filter(scientific)))
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def _below_one(column: pa.Array) -> pa.StringArray:
    """Decimals of size below one, written out: one is added for the digits, and taken away."""
    wide = column.cast(pa.decimal256(_WIDE_PRECISION, column.type.scale))
    negative = pc.less(wide, pa.scalar(Decimal(0), wide.type))
    one = pa.scalar(Decimal(1), pa.decimal256(1, 0))
    up = pc.cast(pc.add(wide, one), pa.string())
    down = pc.cast(pc.subtract(wide, one), pa.string())
    return pc.if_else(
        negative, pc.utf8_replace_slice(down, 0, 2, "-0"), pc.utf8_replace_slice(up, 0, 1, "0")
    )


def unix_text(column: pa.Array, unit: str) -> pa.StringArray:
    """Whole seconds or milliseconds since 1970, floored: right before 1970 too."""
    target = pa.timestamp("s" if unit == "second" else "ms", column.type.tz)
    whole = pc.cast(pc.floor_temporal(column, unit=unit), target)
    return pc.cast(whole.cast(pa.int64()), pa.string())


def iso_text(column: pa.Array) -> pa.StringArray:
    """ISO 8601 in UTC with `Z`. A DATETIME, which has no zone, is taken for UTC."""
    naive = pc.cast(column.cast(pa.timestamp(column.type.unit, "UTC")), pa.string())
    return pc.utf8_replace_slice(naive, 10, 11, "T")


def unix_to_iso(column: pa.Array) -> pa.StringArray:
    """ISO 8601 of integers that are Unix seconds."""
    return iso_text(column.cast(pa.int64()).cast(pa.timestamp("s")))


def json_text(column: pa.StringArray) -> pa.StringArray:
    """JSON as it is, on one line: a raw line break in valid JSON is only white space."""
    data = text_bytes(column)
    for code in (b"\n", b"\r"):
        if (data == code[0]).any():
            column = pc.replace_substring(column, code.decode(), " ")
    return column


def base64_text(column: pa.BinaryArray) -> pa.StringArray:
    """Standard base64 with padding, of every value in one call.

    Each value is laid out on a multiple of three bytes, so that the encoded values are slices of
    the encoded whole; what the filling encoded to is then overwritten with `=`.
    """
    _, offset_buffer, data = column.buffers()
    if data is None or not len(column):
        return pc.cast(column, pa.string())
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[
        column.offset : column.offset + len(column) + 1
    ].astype(np.int64)
    lengths = np.diff(offsets)
    padded = -(-lengths // 3) * 3
    starts = np.concatenate(([0], np.cumsum(padded)))
    filled = np.zeros(starts[-1], dtype=np.uint8)
    shift = np.repeat(starts[:-1] - offsets[:-1], lengths)
    source = np.arange(offsets[0], offsets[-1])
    filled[source + shift] = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]
    encoded = np.frombuffer(binascii.b2a_base64(filled.data, newline=False), dtype=np.uint8).copy()
    ends = starts[1:] // 3 * 4
    encoded[ends[lengths % 3 != 0] - 1] = ord("=")
    encoded[ends[lengths % 3 == 1] - 2] = ord("=")
    return _strings(starts // 3 * 4, encoded, column)


def interval_text(column: pa.Array) -> pa.StringArray:
    """BigQuery's canonical INTERVAL text: `[-]Y-M [-]D [-]H:M:S[.F]`."""
    layout = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])
    parts = np.frombuffer(column.buffers()[1], dtype=layout)[
        column.offset : column.offset + len(column)
    ]
    months, nanos = np.abs(parts["months"].astype(np.int64)), np.abs(parts["nanos"])
    seconds, rest = nanos // _NANOS, nanos % _NANOS
    fraction = pc.utf8_lpad(pc.cast(pa.array(rest), pa.string()), 9, "0")
    fraction = pc.if_else(
        pa.array(rest == 0), "", pc.binary_join_element_wise(".", pc.ascii_rtrim(fraction, "0"), "")
    )
    text = pc.binary_join_element_wise(
        _sign(parts["months"]), _text(months // 12), "-", _text(months % 12), " ",
        _text(parts["days"]), " ",
        _sign(parts["nanos"]), _text(seconds // 3600), ":", _text(seconds // 60 % 60), ":",
        _text(seconds % 60), fraction, "",
    )  # fmt: skip
    return pc.if_else(column.is_valid(), text, _NO_TEXT) if column.null_count else text


def _text(values: npt.NDArray[np.integer]) -> pa.StringArray:
    return pc.cast(pa.array(values), pa.string())


def _sign(values: npt.NDArray[np.integer]) -> pa.StringArray:
    return pc.if_else(pa.array(values < 0), "-", "")


def _strings(
    offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], like: pa.Array
) -> pa.StringArray:
    validity = pc.is_valid(like) if like.null_count else None
    text = pa.StringArray.from_buffers(
        len(like), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)
    )
    return text if validity is None else pc.if_else(validity, text, _NO_TEXT)
