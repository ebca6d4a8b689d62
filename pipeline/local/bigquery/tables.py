"""What a table is: its columns as BigQuery and DuckDB see them, its size, and tables from outside.

Asks no database: the catalog does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.local.bigquery.errors import invalid_query
from pipeline.local.bigquery.sql import TableName
from pipeline.local.bigquery.types import Column, duckdb_type, from_arrow, quoted
from pipeline.local.bigquery.types import from_duckdb as column_of_duckdb

PARTITION_TIME = "_PARTITIONTIME"
"""The column, in no schema, of the day on which a row came into a table that is partitioned so."""
PARTITION_COLUMN = Column(name=PARTITION_TIME, kind="TIMESTAMP")
"""That column."""

# Bytes of one value as BigQuery counts them:
# https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#data_type_sizes
_FIXED_SIZES = {
    **dict.fromkeys(("INT64", "FLOAT64", "DATE", "TIME", "DATETIME", "TIMESTAMP"), "8"),
    "BOOL": "1",
    "NUMERIC": "16",
    "BIGNUMERIC": "32",
    "INTERVAL": "16",
    "RANGE": "16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """A read-only table that lives outside DuckDB, in every project.

    Only SELECT * of the whole table works; its result table is the table itself.
    read: some of its rows, by the first row's number and how many.
    """

    schema: pa.Schema
    rows: int
    nbytes: int
    read: Callable[[int, int], pa.Table]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its BigQuery schema."""
        return tuple(from_arrow(field) for field in self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """A table as tables.get describes it. created: Unix seconds."""

    name: TableName
    kind: str
    columns: tuple[Column, ...]
    rows: int
    nbytes: int
    created: float


def result_columns(relation: Any) -> tuple[Column, ...]:
    """The BigQuery schema of a DuckDB relation. Raises LocalError for repeated names."""
    seen: set[str] = set()
    for name in relation.columns:
        if name.lower() in seen:
            raise invalid_query(
                "Duplicate column names in the result are not supported. "
                f"Found duplicate(s): {name}"
            )
        seen.add(name.lower())
    return tuple(
        column_of_duckdb(name, dtype)
        for name, dtype in zip(relation.columns, relation.types, strict=True)
    )


def definitions(columns: Sequence[Column], *, partitioned: bool = False) -> str:
    """The columns of a CREATE TABLE of DuckDB's. partitioned: by the time of ingestion."""
    parts = [
        f"{quoted(column.name)} {duckdb_type(column)}{' NOT NULL' if column.required else ''}"
        for column in columns
    ]
    if partitioned:
        kind = duckdb_type(PARTITION_COLUMN)
        parts.append(f"{quoted(PARTITION_TIME)} {kind} DEFAULT date_trunc('day', now())")
    return ", ".join(parts)


def size_sql(column: Column) -> str:
    """The expression that sums a column's bytes."""
    name = quoted(column.name)
    if not column.repeated and column.kind in _FIXED_SIZES:
        return f"{_FIXED_SIZES[column.kind]} * count({name})"
    if not column.repeated and column.kind == "STRING":
        return f"sum(2 + strlen({name}))"
    if not column.repeated and column.kind == "BYTES":
        return f"sum(2 + octet_length({name}))"
    # The text of nested values: an estimate of the same order.
    return f"sum(2 + strlen(CAST({name} AS VARCHAR)))"
