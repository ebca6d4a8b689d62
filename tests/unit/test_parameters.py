from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

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
]


@pytest.mark.parametrize(("kind", "given", "value"), TYPED)
def test_typed_values(kind: str, given: object, value: object) -> None:
    found = parameter("p", given, kind)
    assert found.value == value
    assert type(found.value) is type(value)
    several = parameter("p", [given, given], kind)
    assert (several.value, several.kind, several.repeated) == ((value, value), kind, True)
    assert parameter("p", None, kind).value is None


def test_every_type_is_in_this_table() -> None:
    assert {kind for kind, _, _ in TYPED} == set(KINDS)


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
    from pipeline.source.query import _google

    wire = {
        kind: _google(parameter("p", given, kind)).to_api_repr()["parameterValue"]["value"]
        for kind, given in [
            ("INT64", 7),
            ("BOOL", True),
            ("DATE", "2026-01-02"),
            ("DATETIME", "2026-01-02T03:04:05"),
            ("TIMESTAMP", "2026-01-02T03:04:05+01:00"),
            ("NUMERIC", "12.50"),
            ("BYTES", "AQI="),
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
    }
