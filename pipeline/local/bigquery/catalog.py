"""Datasets and tables in DuckDB, without their rows; holds the connection.

A dataset is a DuckDB schema named project.dataset, and a table's BigQuery schema follows from its
DuckDB types, so what is on disk needs nothing beside it. Every use takes its own cursor: reads run
side by side, statements that change tables run one at a time. A dataset named `forbidden` may
not be read by anyone.
"""

# ruff: noqa: S608 - names are quoted, and DuckDB takes no names as parameters

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from pipeline.local.bigquery.errors import (
    LocalError,
    access_denied,
    already_exists,
    from_duckdb,
    not_found,
)
from pipeline.local.bigquery.macros import MACROS
from pipeline.local.bigquery.rewrite import table_sql
from pipeline.local.bigquery.sql import TableName, schema_name
from pipeline.local.bigquery.tables import (
    PARTITION_COLUMN,
    PARTITION_TIME,
    Provided,
    TableInfo,
    definitions,
    result_columns,
    size_sql,
)
from pipeline.local.bigquery.types import Column, quoted

FORBIDDEN = "forbidden"


class Catalog:
    """All projects' datasets. path: where to keep them; None for memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._connection = duckdb.connect(str(path) if path else ":memory:")
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        self._created: dict[TableName, float] = {}
        self._modified: dict[TableName, float] = {}
        self._sizes: dict[TableName, Mapping[str, int]] = {}
        self._provided: dict[tuple[str, str], Provided] = {}
        self._opened = time.time()
        with self.cursor() as cursor:
            cursor.execute("SET GLOBAL TimeZone = 'UTC'")
            # Queries see tables, never this machine's files or this process's variables.
            cursor.execute("SET GLOBAL enable_external_access = false")
            cursor.execute("SET GLOBAL python_enable_replacements = false")
            for macro in MACROS:
                cursor.execute(macro)

    def close(self) -> None:
        """Close the database; idempotent."""
        self._connection.close()

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A connection of one's own; DuckDB's errors leave as LocalError."""
        with self._lock:
            cursor = self._connection.cursor()
        try:
            yield cursor
        except duckdb.Error as error:
            raise from_duckdb(error) from error
        finally:
            cursor.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this while changing tables that others may change too."""
        with self._writing:
            yield

    # --------------------------------------------------------------------------- datasets

    def create_dataset(self, project: str, dataset: str, *, exists_ok: bool = False) -> None:
        """Create a dataset. Raises LocalError(duplicate)."""
        if self.has_dataset(project, dataset):
            if exists_ok:
                return
            raise already_exists(f"Dataset {project}:{dataset}")
        with self.writing(), self.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_schema(project, dataset)}")

    def drop_dataset(self, project: str, dataset: str, *, cascade: bool = False) -> None:
        """Drop a dataset. Raises LocalError(notFound), or (invalid) while it holds tables."""
        self.require_dataset(project, dataset)
        held = self.tables(project, dataset)
        if held and not cascade:
            raise LocalError("invalid", f"Dataset {project}:{dataset} is still in use")
        with self.writing(), self.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA {_schema(project, dataset)} CASCADE")
        for name in held:
            self.changed(name)

    def datasets(self, project: str) -> list[str]:
        """The datasets of a project, hidden ones left out."""
        with self.cursor() as cursor:
            rows = cursor.execute("SELECT schema_name FROM duckdb_schemas()").fetchall()
        names = (str(row[0]).rpartition(".") for row in rows)
        return sorted({d for p, _, d in names if p == project and not d.startswith("_")})

    def has_dataset(self, project: str, dataset: str) -> bool:
        """Whether a dataset exists."""
        with self.cursor() as cursor:
            found = cursor.execute(
                "SELECT 1 FROM duckdb_schemas() WHERE schema_name = ?",
                [schema_name(project, dataset)],
            ).fetchone()
        return found is not None or any(d == dataset for d, _ in self._provided)

    def require_dataset(self, project: str, dataset: str) -> None:
        """Raises LocalError when there is no such dataset, or it is forbidden."""
        if dataset == FORBIDDEN:
            raise LocalError(
                "accessDenied",
                f"Access Denied: Dataset {project}:{dataset}: Permission denied on dataset "
                f"{project}:{dataset} (or it may not exist).",
            )
        if not self.has_dataset(project, dataset):
            raise not_found(project, dataset)

    # --------------------------------------------------------------------------- tables

    def tables(self, project: str, dataset: str) -> list[TableName]:
        """The tables and views of a dataset."""
        with self.cursor() as cursor:
            rows = cursor.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = ?",
                [schema_name(project, dataset)],
            ).fetchall()
        names = {str(row[0]) for row in rows} | {t for d, t in self._provided if d == dataset}
        return [TableName(project, dataset, name) for name in sorted(names)]

    def provide(self, dataset: str, table: str, provided: Provided) -> None:
        """Let a table that lives outside DuckDB answer to dataset.table in every project."""
        self._provided[dataset, table] = provided

    def provided(self, name: TableName) -> Provided | None:
        """The table from outside DuckDB that has this name."""
        return self._provided.get((name.dataset, name.table))

    def exists(self, name: TableName) -> bool:
        """Whether there is such a table or view."""
        return self.kind(name) is not None

    def columns(self, name: TableName) -> tuple[Column, ...]:
        """The table's schema. Raises LocalError(notFound | accessDenied)."""
        if name.dataset == FORBIDDEN:
            raise access_denied(name.project, name.dataset, name.table)
        provided = self.provided(name)
        if provided is not None:
            return provided.columns
        if not self.exists(name):
            if not self.has_dataset(name.project, name.dataset):
                raise not_found(name.project, name.dataset)
            raise not_found(name.project, name.dataset, name.table)
        with self.cursor() as cursor:
            relation = cursor.sql(f"SELECT * FROM {table_sql(name)}")
            columns = result_columns(relation)
            rows = cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = ? "
                "AND table_name = ? AND is_nullable = 'NO'",
                [schema_name(name.project, name.dataset), name.table],
            ).fetchall()
        required = {row[0] for row in rows}
        return tuple(
            replace(column, required=True)
            if column.name in required and not column.repeated
            else column
            for column in columns
            if column.name != PARTITION_TIME
        )

    def is_partitioned(self, name: TableName) -> bool:
        """Whether the table is partitioned by the time of ingestion. False: no such table."""
        with self.cursor() as cursor:
            row = cursor.execute(
                "SELECT 1 FROM information_schema.columns WHERE table_schema = ? "
                "AND table_name = ? AND column_name = ?",
                [schema_name(name.project, name.dataset), name.table, PARTITION_TIME],
            ).fetchone()
        return row is not None

    def all_columns(self, name: TableName) -> tuple[Column, ...]:
        """The table's schema with its pseudo column. Raises what `columns` raises."""
        columns = self.columns(name)
        return (*columns, PARTITION_COLUMN) if self.is_partitioned(name) else columns

    def info(self, name: TableName) -> TableInfo:
        """What tables.get answers. Raises LocalError(notFound | accessDenied)."""
        columns = self.columns(name)
        provided = self.provided(name)
        if provided is not None:
            rows, nbytes, kind = provided.rows, provided.nbytes, "TABLE"
        else:
            kind = self.kind(name) or "TABLE"
            sizes = self.sizes(name)
            rows, nbytes = sizes[""], sum(sizes.values()) - sizes[""]
        return TableInfo(
            name=name,
            kind=kind,
            columns=columns,
            rows=0 if kind == "VIEW" else rows,
            nbytes=0 if kind == "VIEW" else nbytes,
            created=self._created.get(name, self._opened),
        )

    def modified(self, name: TableName) -> float:
        """Unix seconds of the table's last change, as far as this process knows."""
        return self._modified.get(name, self._opened)

    def rows(self, name: TableName) -> int:
        """How many rows a table has."""
        with self.cursor() as cursor:
            return int(cursor.execute(f"SELECT count(*) FROM {table_sql(name)}").fetchone()[0])

    def sizes(self, name: TableName) -> Mapping[str, int]:
        """Bytes of each column (by lower-case name) as BigQuery counts them, and rows under ""."""
        known = self._sizes.get(name)
        if known is not None:
            return known
        columns = self.columns(name)
        counted = ", ".join(size_sql(column) for column in columns)
        with self.cursor() as cursor:
            row = cursor.execute(f"SELECT count(*), {counted} FROM {table_sql(name)}").fetchone()
        sizes = {
            column.name.lower(): int(n or 0) for column, n in zip(columns, row[1:], strict=True)
        }
        sizes[""] = int(row[0])
        if self.kind(name) != "VIEW":  # a view's rows change without its name being told
            self._sizes[name] = sizes
        return sizes

    def changed(self, name: TableName, *, created: bool = False) -> None:
        """Forget what was known of a table's contents."""
        self._sizes.pop(name, None)
        self._modified[name] = time.time()
        if created:
            self._created[name] = time.time()

    def create_table(self, name: TableName, columns: Sequence[Column]) -> None:
        """An empty table. Raises LocalError(duplicate | notFound)."""
        self.require_dataset(name.project, name.dataset)
        if self.exists(name):
            raise already_exists(f"Table {name.project}:{name.dataset}.{name.table}")
        with self.writing(), self.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table_sql(name)} ({definitions(columns)})")
        self.changed(name, created=True)

    def drop_table(self, name: TableName) -> None:
        """Drop a table or view. Raises LocalError(notFound)."""
        kind = self.kind(name)
        if kind is None:
            raise not_found(name.project, name.dataset, name.table)
        with self.writing(), self.cursor() as cursor:
            cursor.execute(f"DROP {kind} {table_sql(name)}")
        self.changed(name)
        self._created.pop(name, None)

    def kind(self, name: TableName) -> str | None:
        """TABLE or VIEW; None when there is nothing of that name."""
        if self.provided(name) is not None:
            return "TABLE"
        with self.cursor() as cursor:
            row = cursor.execute(
                "SELECT table_type FROM information_schema.tables "
                "WHERE table_schema = ? AND table_name = ?",
                [schema_name(name.project, name.dataset), name.table],
            ).fetchone()
        return None if row is None else "VIEW" if row[0] == "VIEW" else "TABLE"


def interrupt(cursor: Any) -> None:
    """Stop what a cursor runs; from any thread, and without effect when it is idle or closed."""
    with suppress(duckdb.Error):
        cursor.interrupt()


def _schema(project: str, dataset: str) -> str:
    return quoted(schema_name(project, dataset))
