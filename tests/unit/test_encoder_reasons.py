"""Why rows are invalid, and that they leave their neighbours alone."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pyarrow as pa
import pytest
from encoded import JSON, encode, reasons, rows, texts

from pipeline.encode.layout import ColumnRule
from pipeline.model import Call, Reason


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


def test_a_message_id_is_measured_in_characters_of_what_it_means() -> None:
    ids = ["x" * 99, "x" * 100, "€" * 99, "€" * 100, '"' * 99, '"' * 100, "", None]
    columns = {"userId": ["u"] * len(ids), "messageId": ids}
    payloads = encode(columns)
    assert reasons(payloads) == dict.fromkeys([1, 3, 5], "message_id_too_long")
    sent = [json.loads(letter.payload)["messageId"] for letter in payloads.invalid]
    assert sent == [ids[row] for row in (1, 3, 5)], "as it would have been sent"
    assert reasons(encode(columns, message_id_chars=None)) == {}


def test_object_types_and_names_may_be_long() -> None:
    long = ["x" * 200]
    assert len(encode({"groupId": ["g"], "objectTypeId": long}, call=Call.GROUP)) == 1
    assert len(encode({"userId": ["u"], "name": long}, call=Call.PAGE)) == 1


def test_of_several_reasons_the_first_of_the_list_counts() -> None:
    assert [str(reason) for reason in Reason] == [
        "missing_id",
        "empty_id",
        "id_too_long",
        "message_id_too_long",
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


def test_lone_surrogates_do_not_reach_the_wire() -> None:
    with pytest.raises(UnicodeEncodeError):  # Arrow itself holds no text that is not UTF-8
        pa.array(["\ud800"])
    documents = ['{"a":"\\ud800"}', '{"a":"\\ud83d\\ude00"}']  # and as escapes, where JSON can
    payloads = encode({"userId": ["u", "v"], "x": documents}, json_columns=["x"])
    assert reasons(payloads) == {0: "invalid_json"}
    assert rows(payloads)[0]["traits"] == {"x": {"a": "😀"}}


LONE = [
    '{"a":"\\ud800"}',
    '"\\uDBFF\\uD800"',
    '["\\udc00"]',
    '{"\\uD800":1}',
]
FINE = ['{"a":"\\ud83d\\uDE00"}', '"\\\\ud800"', '"\\u00e9"', "null", "[" * 2_000 + "]" * 2_000]


@pytest.mark.parametrize("lone", LONE)
@pytest.mark.parametrize("fine", FINE)
def test_half_a_pair_is_looked_for_in_json_that_a_source_vouches_for_too(
    lone: str, fine: str
) -> None:
    documents = [fine, lone, None, fine]
    found = encode({"userId": list("abcd"), "doc": documents}, json_type=["doc"])
    assert reasons(found) == {1: "invalid_json"}
    orjson.loads(found.invalid[0].payload)
    assert [f'"doc":{text or "null"}}}' in row for text, row in zip(
        [fine, None, fine], texts(found), strict=True
    )] == [True] * 3  # fmt: skip


@pytest.mark.parametrize("place", ["traits", "s", "list"])
@pytest.mark.parametrize("trusted", [True, False])
def test_half_a_pair_wherever_json_may_be(place: str, *, trusted: bool) -> None:
    documents = pa.array(['{"a":1}', '{"a":"\\ud800"}', None])
    field = pa.field("doc", pa.string(), metadata=JSON)
    if place == "list":
        column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), documents).cast(pa.list_(field))
    else:
        column = pa.StructArray.from_arrays([documents], fields=[field])
    found = encode({"userId": list("abc"), place: column}, trusted_json=trusted)
    assert reasons(found) == {1: "invalid_json"}
    for payload in texts(found):
        orjson.loads(payload)


@pytest.mark.parametrize("beside", [{}, {"traits.b": [1, 2, 3]}])
def test_half_a_pair_in_a_column_that_gives_the_traits(beside: dict[str, Any]) -> None:
    documents = ['{"a":1}', '{"c":"\\udfff"}', None]
    found = encode({"userId": list("abc"), "traits": documents, **beside}, json_type=["traits"])
    assert reasons(found) == {1: "invalid_json"}
    orjson.loads(found.invalid[0].payload)


def test_many_columns_of_json_are_looked_at_one_by_one() -> None:
    good, bad = ['"x"', '"y"'], ['"\\ud800"', '"y"']
    found = encode({"userId": ["a", "b"], "m": good, "n": bad, "o": good}, json_type=list("mno"))
    assert reasons(found) == {0: "invalid_json"}
    assert rows(found)[0]["traits"] == {"m": "y", "n": "y", "o": "y"}


def test_json_in_a_struct_with_a_format_of_its_own_is_checked() -> None:
    fields = [
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("doc", pa.string(), metadata=JSON),
    ]
    times = pa.array([0, 0], fields[0].type)
    column = pa.StructArray.from_arrays([times, pa.array(["{}", "{"])], fields=fields)
    given = {"userId": ["a", "b"], "s": column}
    as_iso = {"s": ColumnRule(form="iso8601")}
    assert reasons(encode(given, columns=as_iso, trusted_json=False)) == {1: "invalid_json"}


def test_bytes_that_are_not_utf8_are_the_sources_to_find() -> None:
    """The encoder takes STRING for UTF-8, as BigQuery gives it; the file source validates."""
    offsets = pa.py_buffer(bytes(4) + (3).to_bytes(4, "little"))
    broken = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xed\xa0\x80"))
    with pytest.raises(pa.ArrowInvalid):
        pa.record_batch({"x": broken}).validate(full=True)
    data = bytes(encode({"userId": ["u"], "x": broken}).data)
    with pytest.raises(UnicodeDecodeError):
        data.decode()


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
