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

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import escape
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

Convert = Callable[[pa.Array], pa.StringArray]


@dataclass(frozen=True, slots=True)
class Converter:
    """How a column becomes JSON text.

    quoted: the text is the inside of a JSON string: the caller puts the quotes around it, which
        costs nothing where they melt into a literal.
    """

    convert: Convert
    quoted: bool


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
        return Converter(lambda column: inner.convert(column.storage), quoted=inner.quoted)
    if pa.types.is_dictionary(kind):
        plain = pa.field(field.name, kind.value_type, metadata=field.metadata)
        inner = converter(plain, times=times, as_json=as_json)
        return Converter(
            lambda column: inner.convert(column.dictionary_decode()), quoted=inner.quoted
        )
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


_TEXT = Converter(lambda column: escape(column.cast(pa.string())), quoted=True)
_JSON_TEXT = Converter(lambda column: json_text(column.cast(pa.string())), quoted=False)


def is_object(field: pa.Field) -> bool:
    """Whether the column's values are, or may be, JSON objects."""
    return _is_json(field) or pa.types.is_struct(field.type)


def holds_json(field: pa.Field) -> bool:
    """Whether the column is JSON, or has JSON somewhere inside."""
    if _is_json(field):
        return True
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType) or not pa.types.is_nested(kind):
        return False
    return any(holds_json(kind.field(index)) for index in range(kind.num_fields))


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
        return Converter(lambda column: pc.cast(column, pa.string()), quoted=False)
    if types.is_floating(kind):
        return Converter(finite_text, quoted=False)
    if types.is_decimal(kind):
        return Converter(decimal_text, quoted=False)
    if types.is_timestamp(kind):
        if times == "iso8601":
            return Converter(iso_text, quoted=True)
        unit = "second" if times == "unix" else "millisecond"
        return Converter(lambda column: unix_text(column, unit), quoted=False)
    if types.is_date(kind) or types.is_time(kind):
        return Converter(lambda column: pc.cast(column, pa.string()), quoted=True)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return Converter(lambda column: base64_text(column.cast(pa.binary())), quoted=True)
    if types.is_interval(kind):
        return Converter(interval_text, quoted=True)
    if types.is_null(kind):
        return Converter(lambda column: pa.nulls(len(column), pa.string()), quoted=False)
    return None


def _list(field: pa.Field, times: str) -> Converter:
    value = converter(field.type.value_field, times=times)

    def convert(column: pa.Array) -> pa.StringArray:
        column = column.cast(pa.list_(column.type.value_field))
        offsets = column.offsets
        first, last = offsets[0].as_py(), offsets[-1].as_py()
        pieces = Pieces()
        values = column.values.slice(first, last - first)
        pieces.nullable("", value.convert(values), quoted=value.quoted)
        texts = pa.ListArray.from_arrays(
            pc.subtract(offsets, first),
            pieces.join(len(values)),
            mask=column.is_null() if column.null_count else None,
        )
        return pc.binary_join_element_wise("[", pc.binary_join(texts, ","), "]", "")

    return Converter(convert, quoted=False)


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
            pieces.nullable(("," if index else "{") + key, text, quoted=child.quoted)
        pieces.literal("}" if children else "{}")
        text = pieces.join(len(column))
        if column.null_count:
            text = pc.if_else(column.is_valid(), text, pa.scalar(None, pa.string()))
        return text

    return Converter(convert, quoted=False)


def json_literal(text: str) -> str:
    """A JSON string, quotes included, of one name; for use while compiling."""
    return json.dumps(text, ensure_ascii=False)
