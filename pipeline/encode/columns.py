"""One Arrow column to one column of JSON text, by its type, to any depth.

A `Converter` is chosen once per schema and run once per batch. Its result has a row per row of
the column; null stays null, so that the caller decides between `null` and leaving out. Types and
their meaning: the BigQuery types as the Storage Read API sends them; see docs/architecture.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import escape, text_offsets, with_texts
from pipeline.encode.pieces import Pieces
from pipeline.encode.scalars import (
    base64_text,
    decimal_text,
    finite_text,
    interval_text,
    iso_text,
    json_text,
    unix_text,
)
from pipeline.errors import ConfigError

_SQL_TYPE = b"ARROW:extension:name"
JSON_TYPE = b"google:sqlType:json"

_BRACKET = pa.scalar("[")

Convert = Callable[[pa.Array], pa.StringArray]
BARE, QUOTED, ISO = ("", ""), ('"', '"'), ('"', 'Z"')


@dataclass(frozen=True, slots=True)
class Converter:
    """How a column becomes JSON text.

    ends: what the caller puts before and after every text, such as the quotes of a JSON string;
        it costs nothing where it melts into literals.
    """

    convert: Convert
    ends: tuple[str, str] = BARE

    def after(self, prepare: Callable[[pa.Array], pa.Array]) -> Converter:
        """The same for columns that have to be prepared."""
        return Converter(lambda column: self.convert(prepare(column)), self.ends)

    def within(self, ends: tuple[str, str]) -> Converter:
        """The same with other ends: what else stands in this one's becomes part of the text."""
        before, after = self.ends[0].removeprefix(ends[0]), self.ends[1].removesuffix(ends[1])
        if not before and not after:
            return Converter(self.convert, ends)
        return Converter(
            lambda column: pc.binary_join_element_wise(before, self.convert(column), after, ""),
            ends,
        )


def converter(field: pa.Field, *, times: str = "unix", as_json: bool = False) -> Converter:
    """The Converter of a column.

    times: unix, unix_ms or iso8601, for DATETIME and TIMESTAMP at any depth.
    as_json: the column is text that holds JSON.
    Raises ConfigError for a type that has no JSON form, naming the column.
    """
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        storage = pa.field(field.name, kind.storage_type, metadata=field.metadata)
        inner = converter(storage, times=times, as_json=as_json or _is_json(field))
        return inner.after(lambda column: column.storage)
    if pa.types.is_dictionary(kind):
        plain = pa.field(field.name, kind.value_type, metadata=field.metadata)
        inner = converter(plain, times=times, as_json=as_json)
        return inner.after(lambda column: column.dictionary_decode())
    if is_text(kind):
        if as_json or _is_json(field):
            return _JSON_TEXT
        return _TEXT
    if pa.types.is_struct(kind):
        return _struct(field, times)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list(field, times)
    scalar = _scalar(kind, times)
    if scalar is None:
        raise ConfigError(
            f"column {field.name}: the Arrow type {kind} has no JSON form. "
            "Cast it in the query, or drop it with `columns: {" + field.name + ": null}`."
        )
    return scalar


_TEXT = Converter(lambda column: escape(column.cast(pa.string())), QUOTED)
_JSON_TEXT = Converter(lambda column: json_text(column.cast(pa.string())))


def is_object(field: pa.Field) -> bool:
    """Whether the column's values are, or may be, JSON objects."""
    return _is_json(field) or pa.types.is_struct(field.type)


def holds_json(field: pa.Field) -> bool:
    """Whether the column is JSON, or has JSON somewhere inside."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return _is_json(field) or any(holds_json(kind.field(at)) for at in range(kind.num_fields))


def _is_json(field: pa.Field) -> bool:
    if isinstance(field.type, pa.BaseExtensionType):
        return bool(field.type.extension_name in {"arrow.json", "google:sqlType:json"})
    return (field.metadata or {}).get(_SQL_TYPE) == JSON_TYPE


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's layouts of UTF-8 text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


@cache
def _scalar(kind: pa.DataType, times: str) -> Converter | None:
    """Columns alike share one Converter, by which `together.py` knows them."""
    types = pa.types
    if types.is_boolean(kind) or types.is_integer(kind):
        return Converter(lambda column: pc.cast(column, pa.string()))
    if types.is_floating(kind):
        return Converter(finite_text)
    if types.is_decimal(kind):
        return Converter(decimal_text)
    if types.is_timestamp(kind):
        if times == "iso8601":
            return Converter(iso_text, ISO)
        unit = "second" if times == "unix" else "millisecond"
        return Converter(lambda column: unix_text(column, unit))
    if types.is_date(kind) or types.is_time(kind):
        return Converter(lambda column: pc.cast(column, pa.string()), QUOTED)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return Converter(lambda column: base64_text(column.cast(pa.binary())), QUOTED)
    if types.is_interval(kind):
        return Converter(interval_text, QUOTED)
    if types.is_null(kind):
        return Converter(lambda column: pa.nulls(len(column), pa.string()))
    return None


def _list(field: pa.Field, times: str) -> Converter:
    value = converter(field.type.value_field, times=times)

    def convert(column: pa.Array) -> pa.StringArray:
        column = column.cast(pa.list_(column.type.value_field))
        offsets = column.offsets.to_numpy()
        first, last = int(offsets[0]), int(offsets[-1])
        if first == last:
            text = pa.repeat("[", len(column))
        else:
            pieces = Pieces()
            pieces.nullable(
                ",", value.convert(column.values.slice(first, last - first)), value.ends
            )
            text = _runs(offsets - first, pieces.join(last - first))
        return _null_where(column, text)

    return Converter(convert, ("", "]"))


def _runs(offsets: npt.NDArray[np.int32], items: pa.StringArray) -> pa.StringArray:
    """The runs `[1,2` of items like `,1` and `,2`, whose first comma becomes a bracket in place."""
    data = items.buffers()[2]
    starts = text_offsets(items)[offsets]
    some = offsets[1:] > offsets[:-1]
    np.ndarray(len(data), dtype=np.uint8, buffer=data)[starts[:-1][some]] = ord("[")
    filled = pa.py_buffer(np.packbits(some, bitorder="little"))
    runs = pa.Array.from_buffers(pa.string(), len(some), [filled, pa.py_buffer(starts), data])
    return runs if some.all() else pc.coalesce(runs, _BRACKET)


def _null_where(column: pa.Array, text: pa.StringArray) -> pa.StringArray:
    """The text, null where the column is."""
    if not column.null_count:
        return text
    return with_texts(column, text_offsets(text), text.buffers()[2])


def _struct(field: pa.Field, times: str) -> Converter:
    names = [child.name for child in field.type]
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"column {field.name}: a STRUCT's fields need names of their own to become JSON, "
            f"but they are {', '.join(name or '(unnamed)' for name in names)}. "
            "Name them in the query: STRUCT(a AS x, b AS y)."
        )
    children = [converter(child, times=times) for child in field.type]
    keys = [json_literal(name) + ":" for name in names]

    def convert(column: pa.StructArray) -> pa.StringArray:
        pieces = Pieces()
        for index, (key, child) in enumerate(zip(keys, children, strict=True)):
            text = child.convert(column.field(index))
            pieces.nullable(("," if index else "{") + key, text, child.ends)
        pieces.literal("}" if children else "{}")
        return _null_where(column, pieces.join(len(column)))

    return Converter(convert)


def json_literal(text: str) -> str:
    """A JSON string, quotes included, of one name; for use while compiling."""
    return json.dumps(text, ensure_ascii=False)
