"""Every type and its JSON, through a whole payload."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from encoded_call import JSON, encode, rows, texts

from pipeline.encode.layout import Rules
from pipeline.model import Call


def at(*args: int) -> dt.datetime:
    return dt.datetime(*args)  # type: ignore[arg-type, misc]  # noqa: DTZ001


TYPES: list[tuple[str, pa.Array, list[str]]] = [
    ("int64", pa.array([1, -(2**63)], pa.int64()), ["1", "-9223372036854775808"]),
    ("bool", pa.array([True, False]), ["true", "false"]),
    ("float", pa.array([0.1, 1e300, -0.0]), ["0.1", "1e+300", "-0"]),
    ("nan", pa.array([float("nan"), float("inf"), 1.0]), ["null", "null", "1"]),
    (
        "numeric",
        pa.array(
            [Decimal("1.50"), Decimal(0), Decimal("-0.000000001"), Decimal(100)],
            pa.decimal128(38, 9),
        ),
        ["1.5", "0", "-0.000000001", "100"],
    ),
    (
        "bignumeric",
        pa.array(
            [Decimal("1e-38"), Decimal("-123.456"), Decimal("0.0000005")], pa.decimal256(76, 38)
        ),
        ["0.00000000000000000000000000000000000001", "-123.456", "0.0000005"],
    ),
    (
        "string",
        pa.array(['say "hi"\\', "tab\tline\nbell\x07", "ü€😀\u2028", ""]),
        [
            '"say \\"hi\\"\\\\"',
            '"tab\\tline\\nbell\\u0007"',
            '"ü€😀\u2028"',
            '""',
        ],
    ),
    ("large_string", pa.array(['"'], pa.large_string()), ['"\\""']),
    ("string_view", pa.array(["x"], pa.string_view()), ['"x"']),
    ("dictionary", pa.array(["x", "y", "x"]).dictionary_encode(), ['"x"', '"y"', '"x"']),
    (
        "bytes",
        pa.array([b"", b"f", b"fo", b"foo", b"\xff\x00", None]),
        [
            '""',
            '"Zg=="',
            '"Zm8="',
            '"Zm9v"',
            '"/wA="',
            "null",
        ],
    ),
    ("date", pa.array([dt.date(1, 2, 3)]), ['"0001-02-03"']),
    ("time", pa.array([dt.time(1, 2, 3, 4)], pa.time64("us")), ['"01:02:03.000004"']),
    (
        "datetime",
        pa.array(
            [at(1970, 1, 1), at(1969, 12, 31, 23, 59, 59, 500_000), at(9999, 12, 31), at(1, 1, 1)],
            pa.timestamp("us"),
        ),
        ["0", "-1", "253402214400", "-62135596800"],
    ),
    ("timestamp", pa.array([1_500_000], pa.timestamp("us", "UTC")), ["1"]),
    ("list", pa.array([[1, None], [], None, [3]]), ["[1,null]", "[]", "null", "[3]"]),
    ("list of text", pa.array([['a"', "b"]]), ['["a\\"","b"]']),
    (
        "struct",
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
        [
            '{"a":1,"b":"x"}',
            "null",
            '{"a":null,"b":null}',
        ],
    ),
    (
        "deep",
        pa.array([[{"k": [{"v": 1.5}], "t": dt.date(2024, 1, 2)}]]),
        ['[{"k":[{"v":1.5}],"t":"2024-01-02"}]'],
    ),
    (
        "range",
        pa.array([{"start": dt.date(2020, 1, 1), "end": None}]),
        ['{"start":"2020-01-01","end":null}'],
    ),
    (
        "interval",
        pa.array(
            [(14, 3, 3_723_000_000_001), (-1, -2, -1_500_000_000), None],
            pa.month_day_nano_interval(),
        ),
        [
            '"1-2 3 1:2:3.000000001"',
            '"-0-1 -2 -0:0:1.5"',
            "null",
        ],
    ),
    ("null", pa.nulls(2), ["null", "null"]),
]


@pytest.mark.parametrize(
    ("column", "expected"), [case[1:] for case in TYPES], ids=[c[0] for c in TYPES]
)
@pytest.mark.parametrize("sliced", [False, True])
def test_every_type_has_its_json(column: pa.Array, expected: list[str], *, sliced: bool) -> None:
    if sliced:  # the same values, at an offset in longer buffers
        column = pa.concat_arrays([column, column]).slice(len(column))
    found = texts(encode(Call.IDENTIFY, {"userId": ["u"] * len(column), "x": column}))
    for text, value in zip(found, expected, strict=True):
        assert f'"traits":{{"x":{value}}},"messageId"' in text
        json.loads(text)


def test_json_columns_nest_as_they_are() -> None:
    payloads = encode(
        Call.IDENTIFY,
        {"userId": ["u", "v"], "address": ['{"city":\n"Ulm"}', None]},
        metadata={"address": JSON},
    )
    assert [row["traits"] for row in rows(payloads)] == [
        {"address": {"city": "Ulm"}},
        {"address": None},
    ]
    assert "\n" not in texts(payloads)[0]


@pytest.mark.parametrize(
    "values",
    [["{", "}"], ["[1", "2]"], ["1],[2", "3"], ["1,2", "3"], ["", "1"], ['1,"r":2', "1"]],
)
def test_text_that_should_be_json_and_is_not_costs_only_its_row(values: list[str]) -> None:
    rules = Rules(json_columns=["doc"])
    payloads = encode(
        Call.IDENTIFY, {"userId": ["a", "b", "c"], "doc": [*values, '{"ok":1}']}, rules=rules
    )
    good = {"userId": "c", "traits": {"doc": {"ok": 1}}}
    assert good in [{k: row[k] for k in good} for row in rows(payloads)]
    bad = [index for index, value in enumerate(values) if not is_json(value)]
    assert [(letter.row, letter.reason) for letter in payloads.invalid] == [
        (row, "invalid_json") for row in bad
    ]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize("first", [None, "v"])
def test_nulls_can_be_left_out_without_stray_commas(first: str | None) -> None:
    columns = {
        "userId": ["u", "w"],
        "a": pa.array([first, "A"]),
        "b": pa.array([None, 1], pa.int64()),
        "c": pa.array(["C", None]),
    }
    payloads = encode(Call.IDENTIFY, columns, rules=Rules(omit_nulls=True))
    expected = {"c": "C"} if first is None else {"a": first, "c": "C"}
    assert [row["traits"] for row in rows(payloads)] == [expected, {"a": "A", "b": 1}]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pa.array([1_700_000_000_123_456], pa.timestamp("us", "UTC")),
            "2023-11-14T22:13:20.123456Z",
        ),
        (pa.array([1_700_000_000], pa.timestamp("s")), "2023-11-14T22:13:20Z"),
        (pa.array([1_700_000_000]), "2023-11-14T22:13:20Z"),
        (pa.array(["2023-11-14T22:13:20Z"]), "2023-11-14T22:13:20Z"),
        (pa.array([None], pa.timestamp("us")), None),
        (pa.array([""]), None),
        (pa.array([dt.date(2023, 11, 14)]), "2023-11-14T00:00:00Z"),
        (pa.array([1_700_000_000], pa.uint64()), "2023-11-14T22:13:20Z"),
    ],
)
def test_the_top_level_timestamp_is_iso(column: pa.Array, expected: str | None) -> None:
    payloads = encode(Call.TRACK, {"userId": ["u"], "event": ["E"], "timestamp": column})
    assert rows(payloads)[0].get("timestamp") == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [("unix", -1), ("unix_ms", -500), ("iso8601", "1969-12-31T23:59:59.500000Z")],
)
def test_times_follow_the_configuration(times: str, expected: int | str) -> None:
    column = pa.array([-500_000], pa.timestamp("us"))
    payloads = encode(
        Call.IDENTIFY,
        {"userId": ["u"], "t": column, "n": pa.array([[None]]).cast(pa.list_(pa.timestamp("us")))},
        rules=Rules(times=times),
    )
    assert rows(payloads)[0]["traits"] == {"t": expected, "n": [None]}


def test_nan_and_infinities_are_counted_at_any_depth() -> None:
    nan, inf = float("nan"), float("inf")
    payloads = encode(
        Call.IDENTIFY,
        {
            "userId": ["a", "b", "c"],
            "x": [nan, 1.0, None],
            "deep": pa.array([[{"v": [inf, 1.0]}], None, [{"v": [-inf, nan, None]}, None]]),
            "dropped": [nan, nan, nan],
        },
        rules=Rules(columns={"dropped": None}),
    )
    assert payloads.nonfinite == 4
