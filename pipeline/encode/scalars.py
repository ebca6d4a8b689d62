"""Vectorized text of the scalar types whose JSON form no single Arrow kernel gives.

Every function takes a column and returns a string column of the same length; null stays null.
"""

from __future__ import annotations

import binascii
from decimal import Decimal
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import cut_validity, text_bytes, with_texts

_NO_TEXT = pa.scalar(None, pa.string())
# Wide enough for every decimal below one in size plus one, at BigQuery's largest scale (38).
_WIDE_PRECISION = 75
_NANOS = 1_000_000_000
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": _NANOS}
# Between these sizes neither Arrow nor orjson writes an exponent; they do from 1e10 and 1e16 on.
_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 1e9
_EXACT_DIGITS = 15  # decimal digits that a double keeps
_EXACT = 10**_EXACT_DIGITS
_SPARE_DIGITS = 6


_Number = TypeVar("_Number", np.int64, np.float64)


def finite_text(column: pa.Array) -> pa.StringArray:
    """The shortest text that reads back as the same double; NaN and infinities are null."""
    if pa.types.is_float64(column.type) and len(column):
        values = fixed_values(column, np.float64)
        if _is_plain(values, most=_MOST_PLAIN):
            return _plain_text(values, column)
    text = pc.cast(column, pa.string())
    finite = pc.is_finite(column)
    if pc.all(finite, min_count=0).as_py():
        return text
    return pc.if_else(finite, text, _NO_TEXT)


def _is_plain(values: npt.NDArray[np.float64], *, most: float) -> bool:
    """Whether every value is finite, below `most`, and not so small as to get an exponent."""
    sizes = np.abs(values)
    return bool((((sizes >= _LEAST_PLAIN) & (sizes < most)) | (sizes == 0)).all())


def _plain_text(values: npt.NDArray[np.float64], like: pa.Array) -> pa.StringArray:
    """What Arrow writes, in less time: the text of orjson without the `.0` of whole numbers."""
    listed = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    data = np.frombuffer(listed, dtype=np.uint8)[1:]  # every number with a comma or bracket after
    kept = data != ord(",")
    ends = np.append(np.flatnonzero(~kept), len(data) - 1)
    whole = values == np.floor(values)
    for place in (ends[-1:], ends[whole] - 1, ends[whole] - 2):
        kept[place] = False
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    offsets[1:] = ends - np.arange(len(values)) - 2 * np.cumsum(whole)
    return with_texts(like, offsets, data[kept])


def decimal_text(column: pa.Array) -> pa.StringArray:
    """Exact digits, without exponent and trailing zeros: 1.50 is 1.5, 0E-9 is 0."""
    scale = column.type.scale
    if scale > 0 and pa.types.is_decimal128(column.type) and len(column):
        values = _as_doubles(column)
        if values is not None and _is_plain(values, most=_EXACT):
            return _plain_text(values, column)
    text = pc.cast(column, pa.string())
    if scale <= 0:
        return text
    # Arrow writes what is smaller than 1e-6 with an exponent, zero included.
    scientific = pc.match_substring(text, "E")
    if pc.any(scientific, min_count=0).as_py():
        text = pc.replace_with_mask(text, scientific, _below_one(column.filter(scientific)))
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def _as_doubles(column: pa.Array) -> npt.NDArray[np.float64] | None:
    """The values as doubles whose shortest text is exact, None if one of them has none.

    15 digits survive a double: both operands below are exact, so the quotient is the nearest
    double, and no shorter text than the decimal's own reads back as it.
    """
    if column.type.scale > _EXACT_DIGITS:
        return None
    words = np.frombuffer(
        column.buffers()[1], dtype=np.int64, count=2 * len(column), offset=16 * column.offset
    )
    low, high = words[::2], words[1::2]
    scale = column.type.scale
    if (high != low >> 63).any():
        return None
    if scale > _SPARE_DIGITS and max(int(low.max()), -int(low.min())) >= _EXACT:
        # Often the last digits of a NUMERIC are not used.
        low, rest = low // 10**_SPARE_DIGITS, low % 10**_SPARE_DIGITS
        scale -= _SPARE_DIGITS
        if rest.any():
            return None
    if low.max() >= _EXACT or low.min() <= -_EXACT:
        return None
    return low / np.float64(10**scale)


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
    per_second = _PER_SECOND[column.type.unit]
    wanted = _PER_SECOND["s" if unit == "second" else "ms"]
    if not len(column):
        return pa.array([], pa.string())
    values = fixed_values(column, np.int64)
    if per_second < wanted:
        values = values * (wanted // per_second)
    elif per_second > wanted:
        values = values // (per_second // wanted)  # numpy floors; Arrow's division truncates
    return pc.cast(_integers(values, column), pa.string())


def iso_text(column: pa.Array) -> pa.StringArray:
    """ISO 8601 in UTC, but for the `Z`. A DATETIME, which has no zone, is taken for UTC."""
    # Without a zone, whose look-up per value would take thirty times as long.
    text = pc.cast(column.cast(pa.timestamp(column.type.unit)), pa.string()).cast(pa.binary())
    return pc.binary_replace_slice(text, 10, 11, b"T").cast(pa.string())


def unix_to_iso(column: pa.Array) -> pa.StringArray:
    """ISO 8601, but for the `Z`, of integers that are Unix seconds."""
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
    return with_texts(column, starts // 3 * 4, encoded)


def interval_text(column: pa.Array) -> pa.StringArray:
    """BigQuery's canonical INTERVAL text: `[-]Y-M [-]D [-]H:M:S[.F]`."""
    layout = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])
    parts = np.frombuffer(
        column.buffers()[1], dtype=layout, count=len(column), offset=column.offset * layout.itemsize
    )
    months = np.abs(parts["months"].astype(np.int64))
    nanos = np.abs(parts["nanos"]).astype(np.uint64)  # -2**63 has no positive int64
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


def fixed_values(column: pa.Array, kind: type[_Number]) -> npt.NDArray[_Number]:
    """A fixed-width column's values, those of null slots included, as a view."""
    start = column.offset * np.dtype(kind).itemsize
    return np.frombuffer(column.buffers()[1], dtype=kind, count=len(column), offset=start)


def _integers(values: npt.NDArray[np.int64], like: pa.Array) -> pa.Array:
    """An int64 column, null where `like` is."""
    validity, skipped = cut_validity(like)
    placed = np.zeros(skipped + len(values), dtype=np.int64)
    placed[skipped:] = values
    buffers = [validity, pa.py_buffer(placed)]
    return pa.Array.from_buffers(pa.int64(), len(values), buffers, offset=skipped)
