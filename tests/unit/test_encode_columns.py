"""What the properties do not reach of `columns.py`: layouts of no BigQuery type, and refusals."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from pipeline.encode.columns import BARE, QUOTED, converter, holds_json, is_object, json_literal
from pipeline.errors import ConfigError

JSON = {"ARROW:extension:name": "google:sqlType:json"}
MOMENT = pa.array([dt.datetime(2026, 11, 24)], pa.timestamp("us"))  # noqa: DTZ001
UNIX, ISO = "1795478400", "2026-11-24T00:00:00.000000Z"


class Dressed(pa.ExtensionType):  # type: ignore[misc]
    """An extension type of any name, over any storage."""

    def __init__(self, storage: pa.DataType, name: str) -> None:
        super().__init__(storage, name)

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


def dressed(array: pa.Array, name: str) -> pa.Array:
    return pa.ExtensionArray.from_storage(Dressed(array.type, name), array)


def texts(array: pa.Array, metadata: Any = None, **how: Any) -> tuple[list[str | None], bool]:
    """The converted values, and whether they go inside quotes."""
    found = converter(pa.field("x", array.type, metadata=metadata), **how)
    quoted = found.ends[0] == '"'
    return found.within(QUOTED if quoted else BARE).convert(array).to_pylist(), quoted


def test_times_are_unix_seconds_unless_said_otherwise() -> None:
    assert texts(MOMENT) == ([UNIX], False)
    assert texts(MOMENT, times="unix_ms") == ([UNIX + "000"], False)
    assert texts(MOMENT, times="iso8601") == ([ISO], True)


def test_what_stands_in_the_ends_can_be_part_of_the_text() -> None:
    found = converter(pa.field("x", MOMENT.type), times="iso8601")
    assert found.within(BARE).ends == BARE
    assert found.within(BARE).convert(MOMENT).to_pylist() == [f'"{ISO}"']
    listed = pa.array([[1], [], None])
    found = converter(pa.field("x", listed.type))
    assert found.within(BARE).convert(listed).to_pylist() == ["[1]", "[]", None]


@pytest.mark.parametrize("name", ["arrow.json", "google:sqlType:json", "test.other"])
def test_an_extension_type_is_its_storage_and_json_by_its_name(name: str) -> None:
    text = pa.array(['{"a":\n1}', None])
    array = pa.array(text.to_pylist(), pa.json_()) if name == "arrow.json" else dressed(text, name)
    field = pa.field("x", array.type)
    if name == "test.other":
        assert texts(array) == (['{\\"a\\":\\n1}', None], True)
        assert not is_object(field)
    else:
        assert texts(array) == (['{"a": 1}', None], False)
        assert is_object(field)


def test_what_is_said_of_a_column_holds_for_the_storage_of_an_extension_type() -> None:
    times = dressed(MOMENT, "test.moment")
    assert texts(times) == ([UNIX], False)
    assert texts(times, times="iso8601") == ([ISO], True)
    text = dressed(pa.array(["[1]"]), "test.text")
    assert texts(text, as_json=True) == (["[1]"], False)
    assert texts(text, metadata=JSON) == (["[1]"], False)
    assert texts(text) == (["[1]"], True)


def test_what_is_said_of_a_column_holds_for_the_values_of_a_dictionary() -> None:
    times = MOMENT.dictionary_encode()
    assert texts(times) == ([UNIX], False)
    assert texts(times, times="iso8601") == ([ISO], True)
    text = pa.array(["[1]", None, "[1]"]).dictionary_encode()
    assert texts(text, as_json=True) == (["[1]", None, "[1]"], False)
    assert texts(text, metadata=JSON) == (["[1]", None, "[1]"], False)
    assert texts(text) == (["[1]", None, "[1]"], True)
    hole = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(['"', None]))
    assert texts(hole) == (['\\"', None, None], True)


def test_times_inside_of_lists_and_structs_follow_too() -> None:
    listed = pa.ListArray.from_arrays([0, 1], MOMENT)
    assert texts(listed) == ([f"[{UNIX}]"], False)
    assert texts(listed, times="iso8601") == ([f'["{ISO}"]'], False)
    inside = pa.StructArray.from_arrays([listed], ["at"])
    assert texts(inside) == ([f'{{"at":[{UNIX}]}}'], False)
    assert texts(inside, times="iso8601") == ([f'{{"at":["{ISO}"]}}'], False)


def test_a_struct_without_fields_is_an_empty_object() -> None:
    array = pa.array([{}, None, {}], pa.struct([]))
    assert texts(array) == (["{}", None, "{}"], False)
    assert texts(array.slice(2)) == (["{}"], False)


def test_json_is_found_at_any_depth() -> None:
    doc = pa.field("doc", pa.string(), metadata=JSON)
    deep = pa.list_(pa.struct([pa.field("a", pa.int64()), doc]))
    for kind in (pa.json_(), deep, Dressed(deep, "test.deep")):
        assert holds_json(pa.field("x", kind))
    for kind in (pa.string(), pa.list_(pa.string()), Dressed(pa.string(), "test.text")):
        assert not holds_json(pa.field("x", kind))


def test_names_keep_their_characters_and_are_escaped() -> None:
    assert json_literal('ü"\\\n\u2028') == '"ü\\"\\\\\\n\u2028"'


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (pa.duration("s"), "duration[s]"),
        (pa.dictionary(pa.int8(), pa.duration("s")), "duration[s]"),
        (Dressed(pa.duration("s"), "test.long"), "duration[s]"),
        (pa.map_(pa.string(), pa.int64()), "map<string, int64>"),
    ],
    ids=str,
)
def test_a_type_without_a_json_form_is_refused_with_the_column_and_the_remedy(
    kind: pa.DataType, named: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        converter(pa.field("age", kind))
    assert str(refused.value) == (
        f"column age: the Arrow type {named} has no JSON form. "
        "Cast it in the query, or drop it with `columns: {age: null}`."
    )


@pytest.mark.parametrize(
    ("names", "listed"), [(["", "a"], "(unnamed), a"), (["a", "a"], "a, a"), ([""], "(unnamed)")]
)
def test_a_struct_needs_a_name_of_its_own_for_every_field(names: list[str], listed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        converter(pa.field("place", pa.struct([(name, pa.int64()) for name in names])))
    assert str(refused.value) == (
        "column place: a STRUCT's fields need names of their own to become JSON, "
        f"but they are {listed}. Name them in the query: STRUCT(a AS x, b AS y)."
    )
