"""`as:` of columns: what each format writes, and what it does not fit."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from encoded import encode, reasons, rows, texts, traits

from pipeline.config.syncs import ColumnConfig
from pipeline.encode.formats import FORMATS
from pipeline.encode.layout import ColumnRule
from pipeline.errors import ConfigError
from pipeline.model import Call


def as_(form: str, **more: Any) -> dict[str, Any]:
    return {"columns": {"x": ColumnRule(form=form)}, **more}


NOON = dt.datetime(2023, 11, 14, 22, 13, 20, 123_456)  # noqa: DTZ001 - a DATETIME has no zone
DATETIME = pa.array([NOON, None], pa.timestamp("us"))
TIMESTAMP = DATETIME.cast(pa.timestamp("us", "UTC"))
DATE = pa.array([dt.date(1969, 12, 31), None])


@pytest.mark.parametrize(
    ("form", "column", "expected"),
    [
        ("unix", DATETIME, 1_700_000_000),
        ("unix", TIMESTAMP, 1_700_000_000),
        ("unix", DATE, -86_400),
        ("unix", [5, None], 5),
        ("unix_ms", DATETIME, 1_700_000_000_123),
        ("unix_ms", TIMESTAMP, 1_700_000_000_123),
        ("unix_ms", DATE, -86_400_000),
        ("iso8601", DATETIME, "2023-11-14T22:13:20.123456Z"),
        ("iso8601", TIMESTAMP, "2023-11-14T22:13:20.123456Z"),
        ("iso8601", DATE, "1969-12-31T00:00:00Z"),
        ("iso8601", [-1, None], "1969-12-31T23:59:59Z"),
        ("iso8601", pa.array([1, None], pa.uint64()), "1970-01-01T00:00:01Z"),
        (
            "iso8601",
            pa.array([[NOON], None], pa.list_(pa.timestamp("s"))),
            ["2023-11-14T22:13:20Z"],
        ),
        ("unix_ms", pa.array([{"at": NOON}, None]), {"at": 1_700_000_000_123}),
        ("string", [7, None], "7"),
        ("string", [True, None], "true"),
        ("string", [1.5, float("nan")], "1.5"),
        ("string", pa.array([Decimal("1.50"), None], pa.decimal128(38, 9)), "1.5"),
        ("string", ['a"\n', None], 'a"\n'),
        ("string", DATETIME, "2023-11-14T22:13:20.123456Z"),
        ("string", TIMESTAMP, "2023-11-14T22:13:20.123456Z"),
        ("string", DATE, "1969-12-31"),
        ("string", pa.array([dt.time(1, 2), None], pa.time64("us")), "01:02:00.000000"),
        ("string", [b"foo", None], "Zm9v"),
        ("string", pa.nulls(2), None),
        ("number", [7, None], 7),
        ("number", [1.5, None], 1.5),
        ("number", pa.array([Decimal("1.50"), None], pa.decimal128(38, 9)), 1.5),
        ("number", [True, None], 1),
        ("number", ["-1.5e3", None], -1500.0),
        ("number", pa.array(["12", None]).dictionary_encode(), 12),
        ("number", pa.array(["12", None], pa.large_string()), 12),
        ("json", ['{"a": [1]}', None], {"a": [1]}),
        ("json", pa.array(['"x"', None], pa.string_view()), "x"),
    ],
)
@pytest.mark.parametrize("sliced", [False, True])
def test_a_format_changes_how_a_column_is_written(
    form: str, column: Any, expected: object, *, sliced: bool
) -> None:
    array = column if isinstance(column, pa.Array) else pa.array(column)
    if sliced:
        array = pa.concat_arrays([array, array]).slice(2)
    assert traits({"x": array}, **as_(form)) == [{"x": expected}, {"x": None}]
    assert traits({"x": array}, **as_(form, omit_nulls=True))[1] == {}


def test_a_format_and_a_place_go_together_and_names_match_in_any_case() -> None:
    rules = {"X": ColumnRule(to="context.seen", form="string"), "y": "z", "w": None}
    payloads = encode({"userId": ["u"], "x": [1], "y": [2], "w": [3]}, columns=rules)
    assert rows(payloads) == [
        {"type": "identify", "userId": "u", "context": {"seen": "1"}, "traits": {"z": 2}}
    ]


def test_a_json_column_as_a_string_is_its_text() -> None:
    assert traits({"x": ['{"a": 1}']}, json_type=["x"], **as_("string")) == [{"x": '{"a": 1}'}]
    dressed = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))
    assert traits({"x": dressed}, **as_("string")) == [{"x": '{"a": 1}'}]
    assert traits({"x": dressed}, **as_("json")) == [{"x": {"a": 1}}]


@pytest.mark.parametrize("form", list(FORMATS))
def test_ids_and_other_top_level_strings_stay_what_they_are(form: str) -> None:
    rules = {name: ColumnRule(form=form) for name in ("userId", "event", "timestamp")}
    columns = {"userId": [7], "event": [True], "timestamp": [0]}
    assert rows(encode(columns, call=Call.TRACK, columns=rules)) == [
        {"type": "track", "userId": "7", "event": "true", "timestamp": "1970-01-01T00:00:00Z"}
    ]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("0", True),
        ("-0", True),
        ("10", True),
        ("1.25", True),
        ("1E5", True),
        ("1e-999", True),
        ("123456789012345678901234567890.5", True),
        ("", False),
        (" 1", False),
        ("1\n", False),
        ("01", False),
        ("+1", False),
        ("1.", False),
        (".5", False),
        ("1e", False),
        ("0x10", False),
        ("NaN", False),
        ("Infinity", False),
        ("1e999", False),
        ("-" + "9" * 400, False),
        ("٣", False),
        ("1,2", False),
        ('1,"y":2', False),
    ],
)
def test_a_string_is_a_number_or_its_row_is_invalid(text: str, *, valid: bool) -> None:
    columns = {"userId": ["u", "v", "w"], "x": ["1", text, None]}
    payloads = encode(columns, **as_("number"))
    assert reasons(payloads) == ({} if valid else {1: "invalid_number"})
    if valid:
        assert f'"x":{text}}}' in texts(payloads)[1]
    else:
        assert json.loads(payloads.invalid[0].payload)["traits"] == {"x": None}
        assert [row["traits"]["x"] for row in rows(payloads)] == [1, None]


@pytest.mark.parametrize("field", ["x", "timestamp"])
def test_integers_that_are_no_unix_seconds_cost_only_their_row(field: str) -> None:
    # In milliseconds, the mistake that is made; and the ends of what four digits can name.
    seconds = [0, 1_700_000_000_000, 253_402_300_799, -62_135_596_801, None, 2**63 - 1]
    columns = {"userId": ["u"] * 6, "event": ["e"] * 6, field: seconds}
    payloads = encode(columns, call=Call.TRACK, columns={field: ColumnRule(form="iso8601")})
    assert reasons(payloads) == dict.fromkeys([1, 3, 5], "invalid_number")
    found = [row.get("properties", row).get(field) for row in rows(payloads)]
    assert found == ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None]


LIST, STRUCT = pa.list_(pa.int64()), pa.struct([("a", pa.string())])


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("unix", pa.string()),
        ("unix", pa.float64()),
        ("unix", LIST),
        ("unix_ms", pa.int64()),
        ("unix_ms", pa.bool_()),
        ("iso8601", pa.string()),
        ("iso8601", pa.time64("us")),
        ("iso8601", STRUCT),
        ("string", LIST),
        ("string", STRUCT),
        ("number", pa.date32()),
        ("number", pa.timestamp("us")),
        ("number", pa.binary()),
        ("number", LIST),
        ("json", pa.int64()),
        ("json", pa.binary()),
        ("json", STRUCT),
    ],
)
def test_a_format_that_does_not_fit_is_refused_with_what_would(
    form: str, kind: pa.DataType
) -> None:
    with pytest.raises(ConfigError) as caught:
        encode({"userId": ["u"], "x": pa.nulls(1, kind)}, **as_(form))
    [fault] = caught.value.faults
    assert fault.where == "syncs.users.columns.x.as"
    assert f"x is a {kind}" in fault.what
    assert FORMATS[form] in fault.what


def test_two_words_on_one_column_are_refused() -> None:
    columns = {"userId": ["u"], "x": ["1"]}
    with pytest.raises(ConfigError, match=r"columns.x.as: .*`json_columns` too"):
        encode(columns, json_columns=["x"], **as_("number"))
    assert len(encode(columns, json_columns=["x"], **as_("json"))) == 1
    with pytest.raises(ConfigError, match=r"columns.X: the column x is named twice"):
        encode(columns, columns={"x": "y", "X": "z"})


def test_the_configuration_knows_the_same_formats() -> None:
    form = ColumnConfig.model_fields["form"].annotation
    assert set(get_args(get_args(form)[0])) == set(FORMATS)
