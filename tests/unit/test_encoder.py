from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
import xxhash

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.errors import ConfigError
from pipeline.model import Call, Payloads, Span, Window

WINDOW = Window(start=1_700_000_000, sequence=3)
JSON = {"ARROW:extension:name": "google:sqlType:json"}


def encode(
    call: Call,
    columns: dict[str, pa.Array | list[Any]],
    *,
    rules: Rules | None = None,
    payload_bytes: int = 32_000,
    metadata: dict[str, dict[str, str]] | None = None,
    first: int = 0,
) -> Payloads:
    arrays = {
        name: value if isinstance(value, pa.Array) else pa.array(value)
        for name, value in columns.items()
    }
    schema = pa.schema(
        [
            pa.field(name, array.type, metadata=(metadata or {}).get(name))
            for name, array in arrays.items()
        ]
    )
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema)
    encoder = CallEncoder(
        sync="users",
        call=call,
        window=WINDOW,
        schema=schema,
        rules=rules or Rules(),
        separator=b",",
        payload_bytes=payload_bytes,
    )
    return encoder.encode(batch, Span(stream=2, first=first, rows=batch.num_rows))


def texts(payloads: Payloads) -> list[str]:
    data, offsets = bytes(payloads.data), payloads.offsets.tolist()
    found = [data[a:b].decode() for a, b in pairwise(offsets)]
    assert all(text.endswith(",") for text in found)
    return [text[:-1] for text in found]


def rows(payloads: Payloads) -> list[dict[str, Any]]:
    return [json.loads(text) for text in texts(payloads)]


def bare(payloads: Payloads) -> list[dict[str, Any]]:
    """Without the messageIds."""
    return [{k: v for k, v in row.items() if k != "messageId"} for row in rows(payloads)]


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


class TestMessageId:
    def test_it_can_be_computed_by_anybody(self) -> None:
        text = texts(encode(Call.IDENTIFY, {"userId": ["u"], "x": [1]}))[0]
        seed = xxhash.xxh3_64_intdigest(b"users\n1700000000\n3")
        payload = text[: text.index(',"messageId"')]
        assert json.loads(text)["messageId"] == xxhash.xxh3_128_hexdigest(payload.encode(), seed)

    def test_an_event_with_a_timestamp_keeps_its_id_in_another_window(self) -> None:
        columns = {"userId": ["u", "u"], "event": ["E", "E"], "timestamp": pa.array([1, None])}
        for text, scope in zip(
            texts(encode(Call.TRACK, columns)), (b"users", b"users\n1700000000\n3"), strict=True
        ):
            seed = xxhash.xxh3_64_intdigest(scope)
            payload = text[: text.index(',"messageId"')]
            assert json.loads(text)["messageId"] == xxhash.xxh3_128_hexdigest(
                payload.encode(), seed
            )

    def test_a_column_wins_and_its_nulls_are_filled(self) -> None:
        columns = {"userId": ["u", "v"], "messageId": ["mine", None]}
        hashed = rows(encode(Call.IDENTIFY, {"userId": ["u", "v"]}))
        found = rows(encode(Call.IDENTIFY, columns))
        assert [row["messageId"] for row in found] == ["mine", hashed[1]["messageId"]]
        assert (
            rows(encode(Call.IDENTIFY, {"userId": ["u"], "messageid": [5]}))[0]["messageId"] == "5"
        )

    def test_it_does_not_depend_on_the_neighbours(self) -> None:
        columns = {
            "userId": ["a", "b", "c"],
            "x": ['q"', None, "z"],
            "y": pa.array([None, 1.5, None]),
        }
        for rules in (Rules(), Rules(omit_nulls=True)):
            together = texts(encode(Call.IDENTIFY, columns, rules=rules))
            arrays = {name: pa.array(values) for name, values in columns.items()}
            apart = [
                texts(
                    encode(
                        Call.IDENTIFY, {n: a.slice(i, 1) for n, a in arrays.items()}, rules=rules
                    )
                )[0]
                for i in range(3)
            ]
            assert together == apart


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
