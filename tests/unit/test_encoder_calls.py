"""The six calls: their shapes, what they miss, what cannot become one."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from encoded_call import JSON, bare, encode, rows, texts

from pipeline.encode.layout import Rules
from pipeline.errors import ConfigError
from pipeline.model import Call


def test_identify_puts_ids_on_top_and_the_rest_into_traits() -> None:
    payloads = encode(Call.IDENTIFY, {"userId": [7, 8], "email": ["a@x", "b@x"], "age": [30, None]})
    assert bare(payloads) == [
        {"type": "identify", "userId": "7", "traits": {"email": "a@x", "age": 30}},
        {"type": "identify", "userId": "8", "traits": {"email": "b@x", "age": None}},
    ]


@pytest.mark.parametrize(
    ("call", "columns", "expected"),
    [
        (
            Call.TRACK,
            {"USERID": ["u"], "event": ["Bought"], "price": [1.5]},
            {"userId": "u", "event": "Bought", "properties": {"price": 1.5}},
        ),
        (
            Call.GROUP,
            {"groupId": [3], "userId": ["u"], "employees": [10]},
            {
                "groupId": "3",
                "userId": "u",
                "objectTypeId": "1",
                "traits": {"employees": 10, "object_type_id": "1"},
            },
        ),
        (
            Call.GROUP,
            {"groupId": ["g"], "object_type_id": [2]},
            {"groupId": "g", "objectTypeId": "2", "traits": {"object_type_id": "2"}},
        ),
        (
            Call.PAGE,
            {"anonymousId": ["a"], "name": ["Home"], "url": ["/"]},
            {"anonymousId": "a", "name": "Home", "properties": {"url": "/"}},
        ),
        (
            Call.SCREEN,
            {"userId": ["u"], "name": ["Main"]},
            {"userId": "u", "name": "Main"},
        ),
        (
            Call.ALIAS,
            {"userId": [2], "previousId": [1]},
            {"userId": "2", "previousId": "1"},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Call) else "",
)
def test_each_call_has_its_shape(
    call: Call, columns: dict[str, list[Any]], expected: dict[str, Any]
) -> None:
    assert bare(encode(call, columns)) == [{"type": call.value, **expected}]


def test_rows_without_ids_become_dead_letters_and_leave_their_neighbours_alone() -> None:
    payloads = encode(Call.IDENTIFY, {"userId": ["a", None, "", "d"], "x": [1, 2, 3, 4]}, first=100)
    assert [row["userId"] for row in rows(payloads)] == ["a", "d"]
    assert [payloads.row(index) for index in range(2)] == [100, 103]
    assert [(letter.stream, letter.row, letter.reason) for letter in payloads.invalid] == [
        (2, 101, "missing_id"),
        (2, 102, "empty_id"),
    ]
    assert json.loads(payloads.invalid[0].payload)["traits"] == {"x": 2}


def test_an_empty_user_id_with_an_email_is_a_person() -> None:
    payloads = encode(
        Call.IDENTIFY,
        {
            "userId": ["", "", None],
            "anonymousId": [None, "anon", None],
            "email": ["e@x", "f@x", "g@x"],
        },
    )
    assert [(r.get("userId"), r.get("anonymousId")) for r in rows(payloads)] == [
        ("", None),
        (None, "anon"),
    ]
    assert [letter.row for letter in payloads.invalid] == [2]


@pytest.mark.parametrize(
    ("call", "columns", "reason"),
    [
        (Call.TRACK, {"userId": ["u"], "event": [None]}, "missing_event"),
        (Call.GROUP, {"groupId": [""], "userId": ["u"]}, "missing_group_id"),
        (Call.ALIAS, {"userId": ["u"], "previousId": [None]}, "missing_previous_id"),
        (Call.PAGE, {"userId": [None], "anonymousId": [None]}, "missing_id"),
    ],
)
def test_each_call_says_what_it_misses(
    call: Call, columns: dict[str, list[Any]], reason: str
) -> None:
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    payloads = encode(call, arrays)
    assert len(payloads) == 0
    assert [letter.reason for letter in payloads.invalid] == [reason]


def test_a_payload_is_measured_in_bytes_and_may_fill_the_limit_exactly() -> None:
    columns = {"userId": ["a", "b"], "x": ["€" * 10, "€" * 11]}
    size = len(texts(encode(Call.IDENTIFY, columns))[0].encode())
    payloads = encode(Call.IDENTIFY, columns, payload_bytes=size)
    assert [row["userId"] for row in rows(payloads)] == ["a"]
    assert [letter.reason for letter in payloads.invalid] == ["payload_too_large"]
    assert len(encode(Call.IDENTIFY, columns, payload_bytes=size - 1)) == 0


def test_columns_are_placed_renamed_and_dropped() -> None:
    rules = Rules(
        columns={
            "IP": "context.ip",
            "device": "context.device.id",
            "secret": None,
            "fname": "first_name",
        }
    )
    columns = {
        "userId": ["u"],
        "ip": ["::1"],
        "device": [5],
        "secret": ["x"],
        "fname": ["Ada"],
        "traits.x": [1],
    }
    assert bare(encode(Call.IDENTIFY, columns, rules=rules)) == [
        {
            "type": "identify",
            "userId": "u",
            "context": {"ip": "::1", "device": {"id": 5}},
            "traits": {"first_name": "Ada", "x": 1},
        }
    ]


@pytest.mark.parametrize("given", [['{"a": 1, "b": {}}', "{ }", None], None])
def test_an_object_column_named_traits_gives_its_members(given: list[str | None] | None) -> None:
    if given is None:
        traits: pa.Array = pa.array([{"a": 1, "b": None}, {"a": None, "b": None}, None])
        expected = [{"a": 1, "b": None, "x": 1}, {"a": None, "b": None, "x": 2}, {"x": 3}]
        metadata = {}
    else:
        traits, metadata = pa.array(given), {"traits": JSON}
        expected = [{"a": 1, "b": {}, "x": 1}, {"x": 2}, {"x": 3}]
    payloads = encode(
        Call.IDENTIFY,
        {"userId": ["a", "b", "c"], "traits": traits, "x": [1, 2, 3]},
        metadata=metadata,
    )
    assert [row["traits"] for row in rows(payloads)] == expected


def test_a_traits_value_that_is_no_object_is_invalid() -> None:
    payloads = encode(
        Call.IDENTIFY,
        {"userId": ["a", "b"], "traits": ["[1]", '{"a":1}']},
        metadata={"traits": JSON},
    )
    assert [letter.reason for letter in payloads.invalid] == ["invalid_json"]
    assert [row["traits"] for row in rows(payloads)] == [{"a": 1}]


@pytest.mark.parametrize(
    ("call", "columns", "rules", "said"),
    [
        (Call.IDENTIFY, {"id": [1], "mail": ["x"]}, Rules(), "userId or anonymousId.*id, mail"),
        (Call.TRACK, {"userId": [1]}, Rules(), "event"),
        (Call.IDENTIFY, {"userId": [1]}, Rules(columns={"nope": "x"}), "syncs.users.columns.nope"),
        (Call.IDENTIFY, {"userId": [1]}, Rules(json_columns=["nope"]), "json_columns.nope"),
        (Call.IDENTIFY, {"userId": [1], "a": [1], "A": [2]}, Rules(columns={}), None),
        (Call.IDENTIFY, {"userId": [1], "USERID": [2]}, Rules(), "both go to userId"),
        (
            Call.IDENTIFY,
            {"userId": [1], "a": [1], "b": [2]},
            Rules(columns={"a": "b"}),
            "both go to traits.b",
        ),
        (
            Call.ALIAS,
            {"userId": [1], "previousId": [2], "extra": [3]},
            Rules(),
            "no place for the column extra",
        ),
        (Call.IDENTIFY, {"userId": [[1]]}, Rules(), "userId is a list"),
        (
            Call.IDENTIFY,
            {"userId": [1], "timestamp": pa.array([1], pa.time64("us"))},
            Rules(),
            "can't be a timestamp",
        ),
        (Call.IDENTIFY, {"userId": [1], "context": ["x"]}, Rules(), "json_columns: .context."),
        (
            Call.IDENTIFY,
            {"userId": [1], "d": pa.array([1], pa.duration("s"))},
            Rules(),
            "no JSON form",
        ),
        (Call.IDENTIFY, {"userId": pa.array([1], pa.duration("s"))}, Rules(), "no JSON form"),
        (
            Call.IDENTIFY,
            {
                "userId": [1],
                "traits": pa.StructArray.from_arrays([pa.array([1], pa.duration("s"))], ["d"]),
            },
            Rules(),
            "column d: .*no JSON form",
        ),
        (
            Call.IDENTIFY,
            {
                "userId": [1],
                "s": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]),
            },
            Rules(),
            "names of their own",
        ),
    ],
)
def test_what_can_not_become_the_call_is_refused_before_anything_is_sent(
    call: Call, columns: dict[str, Any], rules: Rules, said: str | None
) -> None:
    if said is None:
        assert len(encode(call, columns, rules=rules)) == 1
        return
    with pytest.raises(ConfigError, match=said):
        encode(call, columns, rules=rules)


def test_no_rows_and_ten_thousand_columns() -> None:
    assert len(encode(Call.IDENTIFY, {"userId": pa.array([], pa.string())})) == 0
    wide = {"userId": ["u"]} | {f"c{index}": [index] for index in range(10_000)}
    payloads = encode(Call.IDENTIFY, wide, payload_bytes=1_000_000)
    assert rows(payloads)[0]["traits"]["c9999"] == 9_999


def test_a_time_beyond_all_years_is_invalid_and_an_id_may_be_of_type_json() -> None:
    payloads = encode(
        Call.TRACK,
        {
            "userId": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":"b"}', "u"])),
            "event": ["E", "E"],
            "timestamp": pa.array([1, 2**64 - 1], pa.uint64()),
        },
    )
    assert [row["userId"] for row in rows(payloads)] == ['{"a":"b"}']
    assert [letter.row for letter in payloads.invalid] == [1]
