"""What the properties of test_encoder_oracle.py once found, shrunk, and what came close to it.

A long run (RETL_TEST_EXAMPLES=20000 or more) draws new examples each time. When it fails, put
what it printed here with a name that says what was wrong.
"""

from __future__ import annotations

import pyarrow as pa
import pytest
from arrow_strategies import KINDS, Column, Kind, array, pair, struct
from encoder_check import check
from encoder_oracle import Case
from value_strategies import exact

TEXT, VIEW = KINDS["STRING", "string"], KINDS["STRING", "string_view"]
INT, DOUBLE = KINDS["INT64", "int64"], KINDS["FLOAT64", "double"]
INTERVAL = KINDS["INTERVAL", "month_day_nano_interval"]
MOMENT = KINDS["TIMESTAMP", "timestamp[us, tz=UTC]"]
BIG = KINDS["BIGNUMERIC", "decimal256(76, 38)"]


def traits(*columns: Column, omit: bool = False, times: str = "unix", json: str = "") -> Case:
    rows = len(columns[0].values)
    users = Column("userId", INT, tuple(range(rows)))
    return Case(
        call="identify",
        columns=(users, *columns),
        rows=rows,
        json=frozenset({json} - {""}),
        times=times,
        omit=omit,
    )


def deep(levels: int) -> tuple[Kind, object]:
    """A STRUCT in an ARRAY in a STRUCT ..., and a value that goes all the way down."""
    kind, value = TEXT, '"\\\x1f'
    for level in range(levels):
        kind = array(kind) if level % 2 else struct({"a": kind, "b": INT})
        value = [value, None] if level % 2 else {"a": value, "b": None}
    return kind, value


DEEP, DEEP_VALUE = deep(40)
CASES = {
    # Found: an empty buffer need not be a whole number of intervals long.
    "no rows of intervals in lists": traits(Column("a", array(INTERVAL, pa.large_list), ())),
    "only empty lists of intervals": traits(Column("a", array(INTERVAL), ([], None), pad=2)),
    # Found: -2**63 has no absolute value among 64-bit integers.
    "the longest negative interval": traits(
        Column("a", INTERVAL, (pa.MonthDayNano([0, 0, -(2**63)]), None))
    ),
    # Found, in the oracle: a JSON null is a value, and only a NULL is left out.
    "json null is not left out": traits(Column("a", TEXT, ("null", None)), omit=True, json="a"),
    # Found, in the oracle: the parser takes no number that overflows a double for JSON.
    "a number beyond a double": traits(Column("a", TEXT, ("1e309", "1e308")), json="a"),
    # By the eye: what a change of the encoder is most likely to break.
    "every character that is escaped": traits(
        Column("a", TEXT, (*map(chr, range(0x21)), "\\", '"', "\x7f", "\u2028"), pad=1),
        Column("b", VIEW, ("".join(map(chr, range(0x80))), *[None] * 36), pad=1),
    ),
    "forty levels": traits(Column("a", DEEP, (None, DEEP_VALUE), pad=3)),
    "null lists that cover values, beside empty ones": traits(
        Column("a", array(array(TEXT)), (None, [], [None], [[]], [["x", None]]), pad=2), omit=True
    ),
    "null pairs": traits(
        Column("a", pair(DOUBLE), (None, [1.0, None], [float("nan"), 0.1]), pad=1)
    ),
    "null structs with fields": traits(
        Column(
            "a", struct({"x": struct({"y": TEXT})}), (None, {"x": None}, {"x": {"y": ""}}), pad=3
        )
    ),
    "the first and last moment": traits(
        Column("a", MOMENT, tuple(MOMENT.junk.replace(year=year) for year in (1, 1969, 9999))),
        times="unix_ms",
    ),
    "bignumeric of 77 digits": traits(
        Column("a", BIG, tuple(exact(sign * (2**255 - 1), 38) for sign in (1, -1)), pad=1)
    ),
    "a line break inside of a JSON string, which is no JSON": traits(
        Column("a", TEXT, ('"a\nb"',)), json="a"
    ),
    "a userId that is NaN is no empty one, whatever the e-mail": Case(
        call="identify",
        columns=(Column("userId", DOUBLE, (float("nan"),)), Column("email", TEXT, ("e",))),
        rows=1,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_found_once_stays_right(case: Case) -> None:
    check(case)
