from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, get_args

import pytest

from pipeline.config.syncs import ParameterConfig
from pipeline.source.parameter_wire import as_google_takes
from pipeline.source.parameters import KINDS, BadParameter, parameter

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("given", "kind"),
    [("pro", "STRING"), (7, "INT64"), (-1.5, "FLOAT64"), (True, "BOOL"), ("2026-01-01", "STRING")],
)
def test_plain_values_have_their_own_type(given: object, kind: str) -> None:
    found = parameter("p", given)
    assert (found.name, found.kind, found.value, found.repeated) == ("p", kind, given, False)


CET = timezone(timedelta(hours=1))
TYPED = [
    ("STRING", "", ""),
    ("INT64", 2**63 - 1, 2**63 - 1),
    ("INT64", "-9223372036854775808", -(2**63)),
    ("FLOAT64", 3, 3.0),
    ("FLOAT64", "1e3", 1000.0),
    ("BOOL", "True", True),
    ("BOOL", False, False),
    ("DATE", "2026-02-28", date(2026, 2, 28)),
    ("DATETIME", "2026-01-02 03:04", datetime(2026, 1, 2, 3, 4)),  # noqa: DTZ001 - a DATETIME has none
    ("DATETIME", "2026-01-02T03:04:05.25", datetime(2026, 1, 2, 3, 4, 5, 250_000)),  # noqa: DTZ001
    ("TIMESTAMP", "2026-01-02T03:04:05z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("TIMESTAMP", "2026-01-02 03:04:05+01:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=CET)),
    ("NUMERIC", "-12.500000001", Decimal("-12.500000001")),
    ("NUMERIC", "9" * 29, Decimal("9" * 29)),
    ("NUMERIC", 5, Decimal(5)),
    ("BYTES", "AQI=", b"\x01\x02"),
    ("BIGNUMERIC", "9" * 38 + "." + "9" * 38, Decimal("9" * 38 + "." + "9" * 38)),
    ("BIGNUMERIC", -5, Decimal(-5)),
    ("TIME", "06:30", time(6, 30)),
    ("TIME", "06:30:00.25", time(6, 30, 0, 250_000)),
    ("INTERVAL", "1-2 3 4:5:6.5", "1-2 3 4:5:6.5"),
    ("INTERVAL", "-0-1 -3 -4:05:06", "-0-1 -3 -4:05:06"),
    ("JSON", '{"a": [1, null]}', {"a": [1, None]}),
    ("JSON", '"text"', "text"),
    ("JSON", "[18446744073709551616, 1.10, 1e2]", [2**64, 1.1, 100.0]),
    ("JSON", {"a": 1}, {"a": 1}),
    ("JSON", 7, 7),
]


@pytest.mark.parametrize(("kind", "given", "value"), TYPED)
def test_typed_values(kind: str, given: object, value: object) -> None:
    found = parameter("p", given, kind)
    assert found.value == value
    assert type(found.value) is type(value)
    several = parameter("p", [given, given], kind)
    assert (several.value, several.kind, several.repeated) == ((value, value), kind, True)
    assert parameter("p", None, kind).value is None


NESTED = {"STRUCT", "RANGE<DATE>", "RANGE<DATETIME>", "RANGE<TIMESTAMP>"}


def test_every_type_is_in_this_table() -> None:
    assert {kind for kind, _, _ in TYPED} | NESTED == set(KINDS)


def test_a_configuration_knows_every_type() -> None:
    kinds = ParameterConfig.model_fields["type"].annotation
    assert set(get_args(get_args(kinds)[0])) == set(KINDS)


RANGES = [
    ("DATE", "2026-01-01", date(2026, 1, 1)),
    ("DATETIME", "2026-01-01T00:00", datetime(2026, 1, 1)),  # noqa: DTZ001 - a DATETIME has none
    ("TIMESTAMP", "2026-01-01T00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize(("kind", "given", "value"), RANGES)
def test_ranges_have_two_ends(kind: str, given: str, value: object) -> None:
    later = given.replace("2026", "2027")
    found = parameter("p", {"start": given, "end": later}, f"RANGE<{kind}>")
    assert isinstance(found.value, tuple)
    assert found.value[0] == value != found.value[1]
    assert parameter("p", {"start": given, "end": None}, f"RANGE<{kind}>").value == (value, None)
    assert parameter("p", {"start": None, "end": None}, f"RANGE<{kind}>").value == (None, None)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "[2026-01-01, 2027-01-01)",
        {"start": "2026-01-01"},
        {"start": "2026-01-01", "end": "2026-01-01"},
        {"start": "2026-01-01", "end": "2025-01-01"},
        {"start": "2026-01-01", "end": None, "more": 1},
        {"start": "2026-01-01", "end": "tomorrow"},
        [{"start": "2026-01-01", "end": None}],
    ],
)
def test_what_is_no_range(given: object) -> None:
    with pytest.raises(BadParameter, match=r": write"):
        parameter("p", given, "RANGE<DATE>")


def test_a_struct_s_fields_are_parameters() -> None:
    given = {"id": 7, "days": {"type": "DATE", "value": ["2026-01-01"]}, "in": typed(a=1)}
    found = parameter("p", given, "STRUCT")
    assert found.value == (
        parameter("id", 7),
        parameter("days", ["2026-01-01"], "DATE"),
        parameter("in", {"a": 1}, "STRUCT"),
    )
    several = parameter("p", [given, given], "STRUCT")
    assert several.value == (found.value, found.value)
    assert several.repeated


def typed(**fields: object) -> dict[str, object]:
    return {"type": "STRUCT", "value": fields}


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        {},
        {"": 1},
        {"a b": 1},
        {"a": 1, "A": 2},
        {"a": None},
        {"a": {"value": 1}},
        {"a": {"type": "NOPE", "value": 1}},
        {"a": {"type": ["DATE"], "value": 1}},
        {"a": {"type": "DATE", "value": "x"}},
        {"a": {"type": "RANGE<DATE>", "value": {"start": None, "end": None}}},
        [],
        [{"a": 1}, {"a": "x"}],
        [{"a": 1}, {"b": 1}],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [{"a": typed(b=1)}, {"a": typed(b="x")}],
        [{"a": {"type": "STRUCT", "value": [{"b": 1}]}}, {"a": typed(b=1)}],
    ],
)
def test_what_is_no_struct(given: object) -> None:
    with pytest.raises(BadParameter, match=r": write"):
        parameter("p", given, "STRUCT")


@pytest.mark.parametrize(
    ("given", "kind"), [([1, 2], "INT64"), ([1, 2.5], "FLOAT64"), (["a"], "STRING")]
)
def test_lists_are_arrays_of_what_they_hold(given: list[Any], kind: str) -> None:
    found = parameter("p", given)
    assert (found.kind, found.repeated) == (kind, True)


def test_an_empty_array_needs_its_type() -> None:
    with pytest.raises(BadParameter, match="not plain"):
        parameter("p", [])
    assert parameter("p", [], "DATE").value == ()


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("STRING", 7),
        ("INT64", 2**63),
        ("INT64", True),
        ("INT64", "7.0"),
        ("INT64", 1.0),
        ("INT64", "٣"),
        ("FLOAT64", "nan"),
        ("FLOAT64", float("inf")),
        ("FLOAT64", True),
        ("FLOAT64", "1e999"),
        ("BOOL", 1),
        ("DATE", "2026-02-29"),
        ("DATE", "20260228"),
        ("DATETIME", "2026-01-02"),
        ("DATETIME", "2026-01-02T03:04:05Z"),
        ("TIMESTAMP", "2026-01-02T03:04:05"),
        ("TIMESTAMP", "2026-13-02T03:04:05Z"),
        ("NUMERIC", 1.5),
        ("NUMERIC", "1" * 30),
        ("NUMERIC", "0.0000000001"),
        ("NUMERIC", True),
        ("NUMERIC", "1e3"),
        ("BYTES", "a"),
        ("BYTES", "AQI=\n"),
        ("BIGNUMERIC", "1" * 39),
        ("BIGNUMERIC", "0." + "1" * 39),
        ("TIME", "24:00"),
        ("TIME", "6:30"),
        ("TIME", 630),
        ("INTERVAL", "1 day"),
        ("INTERVAL", "1-2 3"),
        ("JSON", "{a: 1}"),
        ("JSON", "null"),
        ("JSON", "NaN"),
        ("JSON", '"\\ud800"'),
        ("JSON", '{"a": 0.1234567890123456789}'),
        ("FLOAT64", "1_000"),
        ("FLOAT64", "\u0661"),
        (None, None),
        (None, {"a": 1}),
        (None, ["a", 1]),
        (None, [True, 1]),
        ("INT64", [1, None]),
        ("INT64", [[1]]),
    ],
)
def test_what_does_not_fit_is_refused(kind: str | None, given: object) -> None:
    with pytest.raises(BadParameter, match=r": (write|remove)"):
        parameter("p", given, kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "STRING"])
def test_a_value_is_never_shown(kind: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parameter("p", SECRET + "!", kind)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_google_gets_what_it_takes() -> None:
    wire = {
        kind: as_google_takes(parameter("p", given, kind)).to_api_repr()["parameterValue"]["value"]
        for kind, given in [
            ("INT64", 7),
            ("BOOL", True),
            ("DATE", "2026-01-02"),
            ("DATETIME", "2026-01-02T03:04:05"),
            ("TIMESTAMP", "2026-01-02T03:04:05+01:00"),
            ("NUMERIC", "12.50"),
            ("BYTES", "AQI="),
            ("BIGNUMERIC", "0.5"),
            ("TIME", "06:30"),
            ("INTERVAL", "1-2 3 4:5:6"),
            ("JSON", '{"a": "x"}'),
        ]
    }
    assert json.loads(json.dumps(wire)) == {
        "INT64": "7",
        "BOOL": "true",
        "DATE": "2026-01-02",
        "DATETIME": "2026-01-02T03:04:05.000000",
        "TIMESTAMP": "2026-01-02 02:04:05+00:00",
        "NUMERIC": "12.50",
        "BYTES": "AQI=",
        "BIGNUMERIC": "0.5",
        "TIME": "06:30:00",
        "INTERVAL": "1-2 3 4:5:6",
        "JSON": '{"a": "x"}',
    }


def test_google_gets_ranges_and_structs() -> None:
    since = parameter("p", {"start": "2026-01-01", "end": None}, "RANGE<DATE>")
    assert as_google_takes(since).to_api_repr() == {
        "name": "p",
        "parameterType": {"type": "RANGE", "rangeElementType": {"type": "DATE"}},
        "parameterValue": {
            "rangeValue": {"start": {"value": "2026-01-01"}, "end": {"value": None}}
        },
    }
    pairs = parameter(
        "p", [{"id": 1, "in": typed(day="x")}, {"id": 2, "in": typed(day="y")}], "STRUCT"
    )
    wire = as_google_takes(pairs).to_api_repr()
    inner = {"type": "STRUCT", "structTypes": [{"name": "day", "type": {"type": "STRING"}}]}
    assert wire["parameterType"]["arrayType"]["structTypes"] == [
        {"name": "id", "type": {"type": "INT64"}},
        {"name": "in", "type": inner},
    ]
    assert [
        each["structValues"]["id"]["value"] for each in wire["parameterValue"]["arrayValues"]
    ] == [
        "1",
        "2",
    ]
