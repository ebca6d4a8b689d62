"""`constants`: where they are placed, and what no payload can carry."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
import pytest
from encoded import encode, rows, texts, traits

from pipeline.errors import ConfigError
from pipeline.model import Call


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


def test_an_empty_object_is_a_constant_too() -> None:
    payloads = encode({"userId": ["u"]}, constants={"context": {}, "traits": {}})
    assert rows(payloads) == [{"type": "identify", "userId": "u", "context": {}, "traits": {}}]


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
