"""A place is given once: columns, constants, STRUCTs and JSON that meet."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from encoded import JSON, encode, reasons, rows, texts, traits

from pipeline.encode.layout import ColumnRule
from pipeline.errors import ConfigError
from pipeline.model import Call


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
    json_type = pa.field("object_type_id", pa.string(), metadata=JSON)
    groups = pa.array([{"object_type_id": '{"a":"x"}'}], pa.struct([json_type]))
    (row,) = rows(encode({"groupId": ["g"], "traits": groups}, call=Call.GROUP))
    assert row["objectTypeId"] == row["traits"]["object_type_id"] == '{"a":"x"}'  # an id is text
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


def test_only_objects_that_lose_a_member_are_written_anew() -> None:
    documents = ['{"n": 1.500, "x":1, "m":"\\u0041"}', '{ "n" :1.500 , "m": "\\u0041" }']
    columns = {"userId": ["u", "v"], "traits": documents}
    found = texts(encode(columns | {"x": [0, 0]}, json_type=["traits"]))
    assert '"traits":{"n":1.5,"m":"A","x":0}' in found[0]
    assert '"traits":{"n" :1.500 , "m": "\\u0041","x":0}' in found[1]


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
