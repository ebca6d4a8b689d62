"""DuckDB's Arrow data as BigQuery sends it, and Arrow data as DuckDB stores it.

Both directions follow a Column, level by level, and move whole arrays; only BIGNUMERIC on its way
in, and beyond 37 integer digits on its way out, goes value by value. A null ARRAY reads as an
empty one: BigQuery has no null arrays in storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import ROUND_DOWN, Context, Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.local.bigquery.errors import LocalError, invalid_query
from pipeline.local.bigquery.types import Column, arrow_field, arrow_schema, arrow_type

_WIDE = Context(prec=76)  # BIGNUMERIC's digits
_BIGNUMERIC = pa.decimal256(76, 38)


def to_bigquery(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """A batch from DuckDB, whose columns are `columns` in order, with BigQuery's types."""
    arrays = [_out(batch.column(index), column) for index, column in enumerate(columns)]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))


def reader(source: pa.RecordBatchReader, columns: Sequence[Column]) -> pa.RecordBatchReader:
    """`to_bigquery` over a stream; nothing is read before it is asked for."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in source:
            if batch.num_rows:
                yield to_bigquery(batch, columns)

    return pa.RecordBatchReader.from_batches(arrow_schema(columns), batches())


def to_duckdb(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """The table in the layout in which DuckDB stores `columns`; JSON stays text."""
    arrays = [
        _in(table.column(index).combine_chunks(), column) for index, column in enumerate(columns)
    ]
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def _out(array: pa.Array, column: Column) -> pa.Array:
    """One array from DuckDB with BigQuery's Arrow type."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if column.repeated:
        return _list_out(array, column)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), arrow_type(column))
    if column.kind == "STRUCT":
        children = [
            _out(array.field(_index(array.type, field.name)), field) for field in column.fields
        ]
        fields = [arrow_field(field) for field in column.fields]
        return pa.StructArray.from_arrays(children, fields=fields, mask=_mask(array))
    if column.kind == "RANGE":
        target = arrow_type(column)
        children = [_cast(child, target.field(0).type) for child in array.flatten()]
        return pa.StructArray.from_arrays(
            children, fields=[target.field(0), target.field(1)], mask=_mask(array)
        )
    if column.kind == "GEOGRAPHY":
        return array.flatten()[0]
    if column.kind == "BIGNUMERIC":
        return _bignumeric_out(*array.flatten())
    return _cast(array, arrow_type(column))


def _list_out(array: pa.Array, column: Column) -> pa.Array:
    """A list array without nulls."""
    target = arrow_type(column)
    if pa.types.is_null(array.type):
        return pa.array([[]] * len(array), target)
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
    values = _out(array.flatten(), column.element)  # flatten leaves null lists out
    if values.null_count:
        raise invalid_query(
            f"Array cannot have a null element; error in writing field {column.name}"
        )
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=target)


def _index(struct: pa.StructType, name: str) -> int:
    """Where a struct has a field; names match in any case."""
    for index in range(struct.num_fields):
        if struct.field(index).name.lower() == name.lower():
            return index
    raise LocalError("internalError", f"Field {name} is missing in {struct}")


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _cast(array: pa.Array, target: pa.DataType) -> pa.Array:
    """A scalar array with another Arrow type of the same BigQuery type."""
    if array.type.equals(target):
        return array
    try:
        if pa.types.is_decimal(array.type) and pa.types.is_decimal(target):
            if array.type.scale > target.scale:
                array = pc.round(array, target.scale)
        elif pa.types.is_timestamp(array.type) and array.type.unit == "ns":
            return pc.cast(array, target, safe=False)
        return pc.cast(array, target)
    except pa.ArrowInvalid as error:
        name = "int64" if pa.types.is_integer(target) else "numeric"
        raise invalid_query(f"{name} overflow: {error}") from error


def _bignumeric_out(whole: pa.Array, fraction: pa.Array) -> pa.Array:
    try:
        # One digit is left for the carry that Arrow reserves in a sum.
        return pc.add(whole.cast(pa.decimal256(75, 38)), fraction.cast(pa.decimal256(39, 38)))
    except pa.ArrowInvalid:
        values = [
            None if first is None or second is None else _WIDE.add(first, second)
            for first, second in zip(whole.to_pylist(), fraction.to_pylist(), strict=True)
        ]
        return pa.array(values, _BIGNUMERIC)


def _in(array: pa.Array, column: Column) -> pa.Array:
    """One array as DuckDB stores the column."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return array
    if column.repeated:
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        offsets = np.zeros(len(array) + 1, np.int32)
        np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
        return pa.ListArray.from_arrays(pa.array(offsets), _in(array.flatten(), column.element))
    if column.kind in ("STRUCT", "RANGE"):
        ranged = column.kind == "RANGE"
        fields = column.fields * 2 if ranged else column.fields
        names = ["$start", "$end"] if ranged else [field.name for field in fields]
        children = [_in(child, field) for child, field in zip(array.flatten(), fields, strict=True)]
        return pa.StructArray.from_arrays(children, names=names, mask=_mask(array))
    if column.kind == "GEOGRAPHY":
        return pa.StructArray.from_arrays(
            [_cast(array, pa.string())], names=["$geography"], mask=_mask(array)
        )
    if column.kind == "BIGNUMERIC":
        return _bignumeric_in(array)
    return _cast(array, arrow_type(column))


def _bignumeric_in(array: pa.Array) -> pa.Array:
    values: list[Decimal | None] = array.to_pylist()
    whole = [None if v is None else v.quantize(Decimal(1), ROUND_DOWN, _WIDE) for v in values]
    rest = [
        None if value is None or part is None else _WIDE.subtract(value, part)
        for value, part in zip(values, whole, strict=True)
    ]
    return pa.StructArray.from_arrays(
        [pa.array(whole, pa.decimal128(38, 0)), pa.array(rest, pa.decimal128(38, 38))],
        names=["$bignumeric", "$fraction"],
        mask=_mask(array),
    )
