"""Hypothesis strategies for plain Python values of BigQuery's types, awkward ones first."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_SPECIAL = '"\\/\n\r\t\b\f\0\x07\x1f\x7f\u0080\u2028\u2029\ufeff\uffff€é😀\U0010ffff'
CHARACTERS = st.one_of(
    st.sampled_from(_SPECIAL), st.characters(exclude_categories=["Cs"]), st.sampled_from("aE0.")
)
TEXT = st.one_of(
    st.sampled_from(["", "a", '"', "\\", '\\"', "null", "{}", "'\u2028", " "]),
    st.text(CHARACTERS, max_size=6),
)
JUNK_TEXT = '"junk\\\n\0'
INTS = st.one_of(
    st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**53 + 1]), st.integers(-(2**63), 2**63 - 1)
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1])
    | st.sampled_from([1e15, 1e16, 1e-6, 1e-7, float("nan"), float("inf"), float("-inf")]),
    st.floats(),
    st.integers(-(2**53), 2**53).map(float),
)
_ZONELESS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999))  # noqa: DTZ001
DATETIMES = st.one_of(
    st.sampled_from(
        [
            dt.datetime(1, 1, 1),  # noqa: DTZ001
            dt.datetime(1970, 1, 1),  # noqa: DTZ001
            dt.datetime(1969, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
            dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
        ]
    ),
    _ZONELESS,
)
# What doubles and NUMERICs mostly are: of few digits, and neither huge nor tiny.
PLAIN_FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-4, 9.9999e-5, 999999999.9999999, 1e9, 0.1, -123.456]),
    st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda number: round(number, 4)),
    st.integers(-(10**6), 10**6).map(float),
)
PLAIN_DECIMALS = st.one_of(
    st.integers(-(10**15), 10**15),
    st.integers(-(10**15), 10**15).map(lambda number: number * 10**6),
    st.integers(-999, 999).map(lambda number: number * 10**7),
).map(lambda number: exact(number, 9))
DATES = st.dates()
TIMES = st.one_of(st.sampled_from([dt.time.min, dt.time.max]), st.times())
BYTES = st.one_of(st.sampled_from([b"", b"\0", b"\xff\xfe"]), st.binary(max_size=8))


def decimals(digits: int, scale: int, most: int) -> st.SearchStrategy[Decimal]:
    """Exactly; near the limits, near zero and with few digits as often as anywhere."""
    numbers = st.one_of(
        st.sampled_from([0, 1, -1, most, -most, 10**scale, -(10 ** (scale - 1)), -(2**63)]),
        st.integers(-(10**digits) + 1, 10**digits - 1),
        st.integers(-999, 999).map(lambda number: number * 10 ** (scale - 2)),
        st.integers(-(10**scale), 10**scale),
    )
    return numbers.map(lambda number: exact(number, scale))


def exact(number: int, scale: int) -> Decimal:
    """number / 10**scale, whatever the decimal context thinks of its size."""
    return Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale))


INTERVALS = st.builds(
    lambda *parts: pa.MonthDayNano(parts),
    st.integers(-120_000, 120_000),
    st.integers(-3_660_000, 3_660_000),
    st.one_of(
        st.integers(-(10**6), 10**6).map(lambda number: number * 10**9),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-(10**6), 10**6).map(lambda number: number * 10**6),
    ),
)

# Without NaN and infinities, which are not JSON; compact, spread over lines, ASCII or not.
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | INTS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
_DUMPS: Sequence[dict[str, Any]] = (
    {"ensure_ascii": False, "separators": (",", ":")},
    {"ensure_ascii": True},
    {"ensure_ascii": False, "indent": 1},
    {"ensure_ascii": False, "separators": (",\r", ":\r\n")},
)


def json_texts(values: st.SearchStrategy[Any] = JSON_VALUES) -> st.SearchStrategy[str]:
    """Valid JSON."""
    return st.builds(
        lambda value, style: json.dumps(value, **style), values, st.sampled_from(_DUMPS)
    )


# What is wide enough for the values of BIGNUMERIC that have 77 digits: 2**255 / 10**38 and less.
