"""Formats of columns, constants, reasons and collisions: what a sync's configuration says."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from encoded import JSON, encode, reasons, rows, texts, traits

from pipeline.config.models import ColumnConfig
from pipeline.encode.formats import FORMATS
from pipeline.encode.layout import ColumnRule
from pipeline.errors import ConfigError
from pipeline.model import Call, Reason


def as_(form: str, **more: Any) -> dict[str, Any]:
    return {"columns": {"x": ColumnRule(form=form)}, **more}


# ------------------------------------------------------------------------------- formats

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


# ------------------------------------------------------------------------------- constants


def test_constants_are_placed_like_columns() -> None:
    payloads = encode(
        {"userId": ["u", "v"], "price": [1, 2]},
        call=Call.TRACK,
        constants={
            "EVENT": 'Order "Completed"',
            "groupId": 7,
            "integrations": {"All": False, "Customer.io": {"x": [None, 1.5]}},
            "context.app.name": "retl",
            "context": {"app": {"build": "€\u2028"}, "ip": None},
            "plan": None,
            "properties.tags": ["a"],
            "timestamp": "2026-12-01T07:00:00+01:00",
        },
    )
    assert rows(payloads)[1] == {
        "type": "track",
        "userId": "v",
        "groupId": "7",
        "event": 'Order "Completed"',
        "timestamp": "2026-12-01T06:00:00Z",
        "context": {"app": {"name": "retl", "build": "€\u2028"}},
        "integrations": {"All": False, "Customer.io": {"x": [None, 1.5]}},
        "properties": {"plan": None, "tags": ["a"], "price": 2},
    }


@pytest.mark.parametrize("omit", [False, True])
def test_constants_leave_no_stray_commas(*, omit: bool) -> None:
    found = traits(
        {"a": pa.array([None, "x"]), "o.b": pa.array([None, 1])},
        constants={"n": None, "o.c": 1, "o.n": None},
        omit_nulls=omit,
    )
    whole = [
        {"n": None, "o": {"c": 1, "n": None, "b": None}, "a": None},
        {"n": None, "o": {"c": 1, "n": None, "b": 1}, "a": "x"},
    ]
    assert found == ([{"o": {"c": 1}}, {"o": {"c": 1, "b": 1}, "a": "x"}] if omit else whole)


@pytest.mark.parametrize(
    ("call", "columns", "constants", "expected"),
    [
        (Call.TRACK, {"userId": ["u", None]}, {"event": "e"}, [0]),
        (Call.TRACK, {"userId": [None, "u"]}, {"event": "e", "anonymousId": "a"}, [0, 1]),
        (Call.IDENTIFY, {"x": [1, 2]}, {"userId": 5}, [0, 1]),
        (Call.GROUP, {"userId": ["u", None]}, {"groupId": 7}, [0, 1]),
        (Call.ALIAS, {"previousId": ["p", None]}, {"userId": "u"}, [0]),
    ],
)
def test_a_constant_satisfies_a_requirement(
    call: Call, columns: dict[str, Any], constants: dict[str, object], expected: list[int]
) -> None:
    payloads = encode(columns, call=call, constants=constants)
    assert [payloads.row(index) for index in range(len(payloads))] == expected
    assert len(rows(payloads)) == len(expected)


@pytest.mark.parametrize(
    "given",
    [
        {"constants": {"objectTypeId": 2}},
        {"constants": {"object_type_id": "2"}},
        {"constants": {"traits": {"object_type_id": 2}}},
    ],
)
def test_a_constant_object_type_goes_to_both_places(given: dict[str, Any]) -> None:
    assert rows(encode({"groupId": ["g"], "a": [1]}, call=Call.GROUP, **given)) == [
        {
            "type": "group",
            "groupId": "g",
            "objectTypeId": "2",
            "traits": {"a": 1, "object_type_id": "2"},
        }
    ]


def test_constants_are_part_of_the_message_id() -> None:
    def message_id(**rules: Any) -> str:
        payloads = encode(
            {"userId": ["u"], "timestamp": [0]} | rules.pop("more", {}), call=Call.TRACK, **rules
        )
        return str(json.loads(bytes(payloads.data[: payloads.offsets[1] - 1]))["messageId"])

    one = message_id(constants={"event": "a"})
    assert one == message_id(constants={"event": "a"})
    assert one == message_id(more={"event": ["a"]})
    assert one != message_id(constants={"event": "b"})


def test_a_constant_time_is_not_a_time_of_the_rows_own() -> None:
    columns = {"userId": ["u"], "event": ["e"]}
    own, constant = (
        encode(columns | {"timestamp": [0]}, call=Call.TRACK),
        encode(columns, call=Call.TRACK, constants={"timestamp": 0}),
    )
    assert texts(own) == texts(constant)
    assert bytes(own.data) != bytes(constant.data)  # an id by the window, not for all time


@pytest.mark.parametrize(
    ("call", "constants", "where", "what"),
    [
        (Call.TRACK, {"event": ""}, "event", "event is empty"),
        (Call.TRACK, {"event": None}, "event", "event is empty"),
        (Call.TRACK, {"event": True}, "event", "event is text"),
        (Call.TRACK, {"event": 1.5}, "event", "event is text"),
        (Call.TRACK, {"event": {"a": 1}}, "event", "event is text"),
        (Call.TRACK, {"userid": []}, "userid", "userId is text"),
        (Call.TRACK, {"messageId": "m"}, "messageId", "same messageId"),
        (Call.TRACK, {"timestamp": "soon"}, "timestamp", "is a time"),
        (Call.TRACK, {"timestamp": 10**20}, "timestamp", "is a time"),
        (Call.TRACK, {"timestamp": True}, "timestamp", "is a time"),
        (Call.TRACK, {"context": "x"}, "context", "context is an object"),
        (Call.TRACK, {"properties": [1]}, "properties", "properties is an object"),
        (Call.TRACK, {"x": float("nan")}, "x", "no NaN"),
        (Call.TRACK, {"x": {"y": [{"z": float("inf")}]}}, "x.y", "no NaN"),
        (Call.TRACK, {"x": ".nan"}, "x", "no NaN"),
        (Call.TRACK, {"x": "-.Inf"}, "x", "no NaN"),
        (Call.TRACK, {"x": "\ud800"}, "x", "no JSON value"),
        (Call.TRACK, {"x": {"\ud800": 1}}, "x.\ud800", "no place"),
        (Call.TRACK, {"x": dt.date(2020, 1, 1)}, "x", "no JSON value"),
        (Call.TRACK, {"a..b": 1}, "a..b", "no place"),
        (Call.TRACK, {"userId": "x" * 151}, "userId", "more than 150 bytes"),
        (Call.TRACK, {"userId": "a", "USERID": "b"}, "USERID", "userId is given twice"),
        (Call.TRACK, {"a.b": 1, "a": 2}, "a", "properties.a is given twice"),
        (Call.TRACK, {"a": {}, "a.b": 1}, "a.b", "properties.a is given twice"),
        (Call.TRACK, {"a": {"b": 1}, "properties.a.b": 1}, "properties.a.b", "given twice"),
        (Call.GROUP, {"objectTypeId": ""}, "objectTypeId", "is empty"),
        (Call.GROUP, {"object_type_id": None}, "object_type_id", "is empty"),
        (Call.GROUP, {"object_type_id": 1, "objectTypeId": 1}, "objectTypeId", "given twice"),
        (Call.ALIAS, {"x": 1}, "x", "no place for x"),
    ],
)
def test_what_no_payload_can_carry_is_refused(
    call: Call, constants: dict[str, Any], where: str, what: str
) -> None:
    columns = {
        Call.TRACK: {"anonymousId": ["a"], "event": ["e"]},
        Call.GROUP: {"groupId": ["g"]},
        Call.ALIAS: {"userId": ["u"], "previousId": ["p"]},
    }[call]
    with pytest.raises(ConfigError) as caught:
        encode(columns, call=call, constants=constants)
    faults = [fault for fault in caught.value.faults if "constants" in fault.where]
    assert [fault.where for fault in faults] == [f"syncs.users.constants.{where}"]
    assert what in faults[0].what


# ------------------------------------------------------------------------------- reasons


def strings(**columns: list[str | None]) -> dict[str, pa.Array]:
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def test_an_empty_id_is_told_from_none() -> None:
    columns = strings(
        userId=["", None, "", "", "u", None], anonymousId=[None, None, "a", "", "", ""]
    )
    assert reasons(encode(columns, call=Call.PAGE)) == {
        0: "empty_id",
        1: "missing_id",
        3: "empty_id",
        5: "empty_id",
    }


def test_an_empty_id_is_fine_with_an_email() -> None:
    columns = strings(userId=["", "", None], email=["e@x", None, "e@x"])
    assert reasons(encode(columns)) == {1: "empty_id", 2: "missing_id"}


@pytest.mark.parametrize("name", ["userId", "anonymousId", "groupId", "previousId"])
def test_an_id_is_measured_in_bytes_of_what_it_means(name: str) -> None:
    call = Call.ALIAS if name == "previousId" else Call.TRACK
    fits, too_long = '"\\\x01' * 50, '"\\\x01' * 50 + "x"
    ids = [fits, too_long, "€" * 50, "€" * 50 + "x", None, "\\u0041" * 25]
    columns: dict[str, Any] = {"userId": ["u"] * 6, "event": ["e"] * 6, name: ids}
    if call is Call.ALIAS:
        del columns["event"]
        columns["previousId"][4] = "p"
    elif name == "userId":
        columns["anonymousId"] = ["a"] * 6
    assert reasons(encode(columns, call=call)) == {1: "id_too_long", 3: "id_too_long"}
    assert reasons(encode(columns, call=call, id_bytes=None)) == {}


def test_object_types_and_names_may_be_long() -> None:
    long = ["x" * 200]
    assert len(encode({"groupId": ["g"], "objectTypeId": long}, call=Call.GROUP)) == 1
    assert len(encode({"userId": ["u"], "name": long}, call=Call.PAGE)) == 1


def test_of_several_reasons_the_first_of_the_list_counts() -> None:
    assert [str(reason) for reason in Reason] == [
        "missing_id",
        "empty_id",
        "id_too_long",
        "missing_event",
        "missing_group_id",
        "missing_previous_id",
        "invalid_json",
        "invalid_number",
        "payload_too_large",
    ]
    big = "x" * 500
    columns = strings(
        userId=[None, "", "i" * 151, "u", "u", "u", "u", "u"],
        event=[None, None, None, None, "e", "e", "e", "e"],
        doc=["{", "{", "{", "{", "{", "1", "1", "1"],
        n=["x", "x", "x", "x", "x", "x", "1", "1"],
        pad=[big, big, big, big, big, big, big, ""],
    )
    payloads = encode(
        columns,
        call=Call.TRACK,
        columns={"n": ColumnRule(form="number")},
        json_columns=["doc"],
        payload_bytes=400,
    )
    assert reasons(payloads) == {
        0: "missing_id",
        1: "empty_id",
        2: "id_too_long",
        3: "missing_event",
        4: "invalid_json",
        5: "invalid_number",
        6: "payload_too_large",
    }
    both = strings(userId=[None], previousId=[""])
    assert reasons(encode(both, call=Call.ALIAS)) == {0: "missing_id"}


def test_every_reason_has_words_of_its_own() -> None:
    from pipeline.encode.encoder import _MESSAGES

    assert set(_MESSAGES) == set(Reason)
    assert len(set(_MESSAGES.values())) == len(Reason)


# ------------------------------------------------------------------------------- collisions


@pytest.mark.parametrize(
    ("columns", "rules", "said"),
    [
        ({"a": [1], "b": [2]}, {"columns": {"a": "b"}}, "the columns a and b both go to traits.b"),
        ({"a": [1], "a.b": [2]}, {}, "the columns a and a.b both go to traits.a"),
        ({"a.b": [2], "a": [1]}, {}, "the columns a.b and a both go to traits.a"),
        ({"a": [1]}, {"constants": {"a": 1}}, "the constant a and the column a both go to traits"),
        ({"a": [1]}, {"constants": {"traits": {"a": {"b": 1}}}}, "the constant traits and the"),
        ({"a.b.c": [1]}, {"constants": {"a.b": {}}}, "both go to traits.a.b"),
        ({"USERID": [1]}, {}, "the columns userId and USERID both go to userId"),
        (
            {"anonymousId": [1]},
            {"constants": {"anonymousId": "x"}},
            "constant anonymousId and the column anonymousId both go to anonymousId",
        ),
        (
            {"traits": pa.array([{"a": 1}]), "a": [1]},
            {},
            "columns traits.a and a both go to traits",
        ),
        (
            {"a": [1], "traits": pa.array([{"a": 1}])},
            {},
            "columns a and traits.a both go to traits",
        ),
        ({"a.b": [1], "traits": pa.array([{"a": 1}])}, {}, "both go to traits.a"),
        (
            {"traits": pa.array([{"a": 1}])},
            {"constants": {"a": 1}},
            "constant a and the column tra",
        ),
        (
            {"traits": pa.array([{"a": 1}]), "t": ["{}"]},
            {"columns": {"t": ColumnRule(to="traits", form="json")}},
            "the columns traits and t both go to traits",
        ),
    ],
)
def test_a_place_is_given_once(columns: dict[str, Any], rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        encode({"userId": ["u"], **columns}, **rules)


@pytest.mark.parametrize(
    ("columns", "rules"),
    [
        ({"objectTypeId": [1], "object_type_id": [2]}, {}),
        ({"objectTypeId": [1]}, {"constants": {"object_type_id": 2}}),
        ({"object_type_id": [1]}, {"constants": {"objectTypeId": 2}}),
        ({"objectTypeId": [1], "traits": pa.array([{"object_type_id": 1}])}, {}),
        ({"object_type_id.x": [1]}, {}),
    ],
)
def test_a_groups_object_type_is_one_place(columns: dict[str, Any], rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"both go to (objectTypeId|traits.object_type_id)"):
        encode({"groupId": ["g"], **columns}, call=Call.GROUP, **rules)


def test_names_of_members_are_told_apart_by_case() -> None:
    assert traits({"a": [1], "A": [2]}, constants={"ä": 3}) == [{"a": 1, "A": 2, "ä": 3}]


def test_a_structs_fields_are_members_and_constants_come_first() -> None:
    columns = {
        "x": [1, 2, 3],
        "traits": pa.array([{"a": 1, "s": {"b": "q"}}, {"a": None, "s": None}, None]),
        "o.y": ["y", None, "z"],
    }
    expected = [
        {"k": 0, "a": 1, "s": {"b": "q"}, "x": 1, "o": {"y": "y"}},
        {"k": 0, "a": None, "s": None, "x": 2, "o": {"y": None}},
        {"k": 0, "x": 3, "o": {"y": "z"}},
    ]
    found = traits(columns, constants={"k": 0})
    assert found == expected
    assert list(found[0]) == ["k", "a", "s", "x", "o"]
    assert traits(columns, constants={"k": 0}, omit_nulls=True) == [
        expected[0],
        {"k": 0, "x": 2, "o": {}},
        expected[2],
    ]


def test_a_struct_without_neighbours_and_with_an_email_or_an_object_type() -> None:
    assert traits({"traits": pa.array([None, {"a": "x"}])}) == [{}, {"a": "x"}]
    people = encode({"userId": [""], "traits": pa.array([{"email": "e@x"}])})
    assert rows(people) == [{"type": "identify", "userId": "", "traits": {"email": "e@x"}}]
    groups = pa.array([{"object_type_id": 3, "a": 1}, {"object_type_id": None, "a": 2}, None])
    found = rows(encode({"groupId": ["g"] * 3, "traits": groups}, call=Call.GROUP))
    assert [(row["objectTypeId"], row["traits"]) for row in found] == [
        ("3", {"a": 1, "object_type_id": "3"}),
        ("1", {"a": 2, "object_type_id": "1"}),
        ("1", {"object_type_id": "1"}),
    ]
    bad = pa.array([{"object_type_id": [1]}])
    with pytest.raises(ConfigError, match=r"traits.object_type_id is a list.*objectTypeId"):
        encode({"groupId": ["g"], "traits": bad}, call=Call.GROUP)


DOCUMENTS = [
    ('{"a":1}', {"a": 1, "x": 0}),
    ('{"x":1}', {"x": 0}),
    ('{ "x" : 1 }', {"x": 0}),
    ('{"x":1,"a":2}', {"a": 2, "x": 0}),
    ('{"a":2,"x":1}', {"a": 2, "x": 0}),
    (
        '{"a":2, "x":{"x":[1,{"x":"}],"}]},"b":[{"x":1},"x"]}',
        {"a": 2, "b": [{"x": 1}, "x"], "x": 0},
    ),
    ('{"\\u0078":1,"a":2}', {"a": 2, "x": 0}),
    ('{"a":"\\"x\\":1,\\\\","x":",\\"","b":"{[,"}', {"a": '"x":1,\\', "b": "{[,", "x": 0}),
    ('{"a\\"x":1,"\\\\":",","x":1}', {'a"x': 1, "\\": ",", "x": 0}),
    ('{"X":1,"x ":2," x":3,"xx":4}', {"X": 1, "x ": 2, " x": 3, "xx": 4, "x": 0}),
    ('{"a":12345678901234567890.10,\n"x":1}', {"a": 12345678901234567890.10, "x": 0}),
    ('{"é€😀":"x","x":1,"":2}', {"é€😀": "x", "": 2, "x": 0}),
    ("{}", {"x": 0}),
    ("null", {"x": 0}),
    (None, {"x": 0}),
]


@pytest.mark.parametrize("how", ["type", "json_columns", "as"])
@pytest.mark.parametrize("own", ["column", "constant", "null column", "tree"])
def test_a_column_of_its_own_wins_over_a_json_columns_member(how: str, own: str) -> None:
    columns: dict[str, Any] = {"traits": pa.array([text for text, _ in DOCUMENTS])}
    rules: dict[str, Any] = {
        "type": {"json_type": ["traits"]},
        "json_columns": {"json_columns": ["traits"]},
        "as": {"columns": {"traits": ColumnRule(form="json")}},
    }[how]
    value: object = 0
    if own == "constant":
        rules["constants"] = {"x": 0}
    elif own == "column":
        columns["x"] = [0] * len(DOCUMENTS)
    elif own == "tree":
        columns["x.y"] = [0] * len(DOCUMENTS)
        value = {"y": 0}
    else:
        columns["x"] = pa.nulls(len(DOCUMENTS), pa.int64())
        value = None
    expected = [object_ | {"x": value} for _, object_ in DOCUMENTS]
    assert traits(columns, **rules) == expected
    if own == "null column":
        expected = [{k: v for k, v in row.items() if k != "x"} for row in expected]
        assert traits(columns, omit_nulls=True, **rules) == expected


def test_what_stays_of_a_json_column_is_the_very_text() -> None:
    documents = ['{"n": 1.500, "x":1, "m":2.50}', '{ "n" :1.0 , "m": "\\u0041" }']
    columns = {"userId": ["u", "v"], "traits": documents}
    found = texts(encode(columns | {"x": [0, 0]}, json_type=["traits"]))
    assert '"traits":{"n": 1.500, "m":2.50,"x":0}' in found[0]
    assert '"traits":{"n" :1.0 , "m": "\\u0041","x":0}' in found[1]


def test_many_own_columns_beside_a_json_column() -> None:
    names = [f"column_{index}" for index in range(400)]
    columns: dict[str, Any] = {name: [index] for index, name in enumerate(names)}
    document = {"y": 1} | dict.fromkeys(names[::2], "theirs")
    columns["traits"] = [json.dumps(document)]
    found = traits(columns, json_columns=["traits"])
    assert found == [{"y": 1} | {name: index for index, name in enumerate(names)}]


def test_odd_names_of_own_columns() -> None:
    names = ["a b", 'q"', "back\\slash", "(x|y)*", "é", "tab\t", "$", "-"]
    document = json.dumps(dict.fromkeys(names, "theirs") | {"rest": 1})
    columns: dict[str, Any] = {name: ["own"] for name in names}
    columns["traits"] = [document]
    expected = {"rest": 1} | dict.fromkeys(names, "own")
    assert traits(columns, json_columns=["traits"]) == [expected]


def test_rows_of_broken_json_leave_their_neighbours_alone_when_members_are_taken_out() -> None:
    documents = ['{"x":1,"a":1}', '{"x":"', '"}', "[1]", '{"a":[}', '{"x":2,"b":2}']
    columns = {"userId": list("abcdef"), "traits": documents, "x": [0] * 6}
    payloads = encode(columns, json_type=["traits"])
    assert reasons(payloads) == dict.fromkeys([1, 2, 3, 4], "invalid_json")
    assert [row["traits"] for row in rows(payloads)] == [{"a": 1, "x": 0}, {"b": 2, "x": 0}]


def test_bytes_never_depend_on_the_neighbours() -> None:
    columns: dict[str, pa.Array] = {
        "userId": pa.array([f"u{row}" for row in range(len(DOCUMENTS))]),
        "traits": pa.array([text for text, _ in DOCUMENTS]),
        "context": pa.array([{"a": 1, "b": None}, None, {"a": None, "b": "x"}] * 5),
        "x": pa.array([0, None, 1] * 5),
        "n": pa.array(["1", "2.50", None] * 5),
        "s": pa.array([1, None, 2] * 5),
    }
    for omit in (False, True):
        rules: dict[str, Any] = {
            "json_type": ["traits"],
            "omit_nulls": omit,
            "columns": {"n": ColumnRule(form="number"), "s": ColumnRule(form="iso8601")},
            "constants": {"k": 1, "z.z": "c"},
        }
        together = bytes(encode(columns, **rules).data)
        apart = b"".join(
            bytes(encode({n: a.slice(row, 1) for n, a in columns.items()}, **rules).data)
            for row in range(len(DOCUMENTS))
        )
        assert together == apart


def test_no_rows() -> None:
    columns = {
        "userId": pa.array([], pa.string()),
        "traits": pa.array([], pa.string()),
        "context": pa.array([], pa.struct([("a", pa.int64())])),
        "x": pa.array([], pa.string()),
        "t": pa.array([], pa.int64()),
    }
    rules = {"x": ColumnRule(form="number"), "t": ColumnRule(form="iso8601")}
    assert len(encode(columns, json_type=["traits"], columns=rules, constants={"k": 1})) == 0


# ------------------------------------------------------------------------------- not UTF-8


def test_lone_surrogates_do_not_reach_the_wire() -> None:
    with pytest.raises(UnicodeEncodeError):  # Arrow itself holds no text that is not UTF-8
        pa.array(["\ud800"])
    documents = ['{"a":"\\ud800"}', '{"a":"\\ud83d\\ude00"}']  # and as escapes, where JSON can
    payloads = encode({"userId": ["u", "v"], "x": documents}, json_columns=["x"])
    assert reasons(payloads) == {0: "invalid_json"}
    assert rows(payloads)[0]["traits"] == {"x": {"a": "😀"}}


def test_bytes_that_are_not_utf8_are_the_sources_to_find() -> None:
    """The encoder takes STRING for UTF-8, as BigQuery gives it; the file source validates."""
    offsets = pa.py_buffer(bytes(4) + (3).to_bytes(4, "little"))
    broken = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xed\xa0\x80"))
    with pytest.raises(pa.ArrowInvalid):
        pa.record_batch({"x": broken}).validate(full=True)
    data = bytes(encode({"userId": ["u"], "x": broken}).data)
    with pytest.raises(UnicodeDecodeError):
        data.decode()


# ------------------------------------------------------------------------------- trust

INJECTION = '1},"userId":"root","x":{"a":1'
BROKEN = ['{"ok":[1]}', "{bad", "", "NaN", INJECTION, None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(BROKEN, pa.string()),
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(BROKEN, pa.string())),
        pa.array(BROKEN).dictionary_encode(),
    ],
    ids=["sql type", "arrow.json", "dictionary"],
)
def test_json_of_a_source_that_does_not_vouch_for_it_is_checked(column: pa.Array) -> None:
    found = encode(
        {"userId": ["a"] * len(column), "doc": column}, json_type=["doc"], trusted_json=False
    )
    assert [row["traits"]["doc"] for row in rows(found)] == [{"ok": [1]}, None]
    assert [letter.row for letter in found.invalid] == [1, 2, 3, 4]
    assert {letter.reason for letter in found.invalid} == {Reason.INVALID_JSON}


def test_json_inside_of_a_struct_is_checked_too() -> None:
    inner = pa.StructArray.from_arrays(
        [pa.array(["{}", "}"])], fields=[pa.field("doc", pa.string(), metadata=JSON)]
    )
    found = encode({"userId": ["a", "b"], "s": inner}, trusted_json=False)
    assert [row["traits"] for row in rows(found)] == [{"s": {"doc": {}}}]
    assert [letter.row for letter in found.invalid] == [1]
