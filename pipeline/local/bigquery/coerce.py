"""Assignments: DuckDB expressions made to fit a column's BigQuery type, where BigQuery would.

BigQuery widens numbers, reads literals as dates and times, and matches STRUCT fields by place;
DuckDB casts far more, and STRUCTs by name. One leniency: BigQuery lets only literals of FLOAT64
and STRING become NUMERIC or a time, here expressions do too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.local.bigquery.types import Column, duckdb_type, from_duckdb, quoted, sql_type

_WIDENED = {
    "INT64": {"NUMERIC", "BIGNUMERIC", "FLOAT64"},
    "NUMERIC": {"BIGNUMERIC", "FLOAT64"},
    "BIGNUMERIC": {"FLOAT64"},
    "FLOAT64": {"NUMERIC", "BIGNUMERIC"},
    "STRING": {"DATE", "TIME", "DATETIME", "TIMESTAMP"},
    "DATE": {"DATETIME"},
}


class Unassignable(Exception):
    """A type that the column does not take. source, target: BigQuery's type names."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__(f"{source} to {target}")
        self.source = source
        self.target = target


def assigned(text: str, dtype: Any, target: Column) -> str:  # noqa: C901 - a table of cases
    """DuckDB SQL of expression `text`, of DuckDB type `dtype`, as a value of `target`.

    Raises Unassignable.
    """
    stored = duckdb_type(target)
    if dtype.id == "null":
        return f"CAST(NULL AS {stored})"
    if str(dtype).replace(" ", "") == stored.replace(" ", ""):
        return text
    if target.repeated:
        if dtype.id not in ("list", "array"):
            raise Unassignable(sql_type(from_duckdb("", dtype)), sql_type(target))
        inner = dtype.children[0][1]
        if inner.id == "null":
            return f"CAST({text} AS {stored})"
        element = assigned("retl_x", inner, target.element)
        return f"list_transform({text}, lambda retl_x: {element})"
    source = from_duckdb("", dtype)
    if source.repeated:
        raise Unassignable(sql_type(source), sql_type(target))
    if target.kind == "STRUCT" and source.kind == "STRUCT":
        return _struct(text, dtype, source, target)
    if target.kind == "RANGE" and source.kind == "RANGE":
        return f"CAST({text} AS {stored})"
    if source.kind != target.kind and target.kind not in _WIDENED.get(source.kind, ()):
        raise Unassignable(sql_type(source), sql_type(target))
    if source.kind == "BIGNUMERIC" and target.kind == "FLOAT64":
        return f"CAST(retl_bignumeric_text({text}) AS DOUBLE)"
    if target.kind == "BIGNUMERIC":
        return f"retl_bignumeric({text})"
    return f"CAST({text} AS {stored})"


def _struct(text: str, dtype: Any, source: Column, target: Column) -> str:
    """A STRUCT, field by field in order."""
    if len(source.fields) != len(target.fields):
        raise Unassignable(sql_type(source), sql_type(target))
    parts = [
        f"{quoted(field.name)} := " + assigned(f"({text}).{quoted(name)}", kind, field)
        for field, (name, kind) in zip(target.fields, dtype.children, strict=True)
    ]
    return f"CASE WHEN {text} IS NULL THEN NULL ELSE struct_pack({', '.join(parts)}) END"


def canonical(types: Sequence[Any], names: Sequence[str]) -> list[str] | None:
    """Expressions that store a query's columns as BigQuery's types; None when they already are."""
    columns = [from_duckdb(name, dtype) for name, dtype in zip(names, types, strict=True)]
    stored = [
        assigned(quoted(column.name), dtype, column)
        for column, dtype in zip(columns, types, strict=True)
    ]
    if all(text == quoted(column.name) for text, column in zip(stored, columns, strict=True)):
        return None
    return [
        f"{text} AS {quoted(column.name)}" for text, column in zip(stored, columns, strict=True)
    ]
