"""A warehouse: the catalog's tables with their rows, in and out, in BigQuery's Arrow types.

Reads are streamed over cursors of their own. Row restrictions of the Storage Read API are
conditions in BigQuery's SQL and take the way of any query.
"""

# ruff: noqa: S608 - names are quoted, and DuckDB takes no names as parameters

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
from sqlglot import exp

from pipeline.local.bigquery import arrow, rewrite, sql, table_read
from pipeline.local.bigquery.analysis import UNKNOWN, analyse, number
from pipeline.local.bigquery.catalog import Catalog
from pipeline.local.bigquery.errors import LocalError, from_duckdb, invalid_query
from pipeline.local.bigquery.rewrite import table_sql
from pipeline.local.bigquery.sql import TableName
from pipeline.local.bigquery.tables import definitions
from pipeline.local.bigquery.types import Column, arrow_schema, from_arrow, quoted, select

_BATCH_ROWS = 65_536  # rows of an Arrow batch that DuckDB hands out


class Warehouse(Catalog):
    """A catalog whose tables can be read and loaded. path: where to keep them; None: in memory."""

    def load(self, project: str, dataset: str, table: str, data: pa.Table) -> None:
        """Append rows to a table, which is created, with its dataset, if it does not exist.

        The BigQuery schema is that of the Arrow data with its google:sqlType metadata.
        """
        name = TableName(project, dataset, table)
        columns = tuple(from_arrow(field) for field in data.schema)
        self.create_dataset(project, dataset, exists_ok=True)
        stored = arrow.to_duckdb(data, columns)
        with self.writing(), self.cursor() as cursor:
            if not self.exists(name):
                cursor.execute(f"CREATE TABLE {table_sql(name)} ({definitions(columns)})")
                self._created[name] = time.time()
            cursor.register("retl_loaded", stored)
            listed = ", ".join(quoted(column.name) for column in columns)
            cursor.execute(
                f"INSERT INTO {table_sql(name)} ({listed}) SELECT {listed} FROM retl_loaded"
            )
            cursor.unregister("retl_loaded")
        self.changed(name)

    def table(
        self,
        project: str,
        dataset: str,
        table: str,
        *,
        row_restriction: str = "",
        selected_fields: Sequence[str] = (),
        snapshot_time: float | None = None,
    ) -> pa.RecordBatchReader:
        """A table's rows, streamed, in the order in which they were inserted.

        row_restriction: a condition in BigQuery's SQL. selected_fields: columns, and fields of
        STRUCTs as column.field. snapshot_time: see table_read.py; by default the rows are those of
        the moment of the call.
        Raises LocalError(notFound | accessDenied | invalid | invalidQuery).
        """
        name = TableName(project, dataset, table)
        columns = self.columns(name)
        table_read.check(self, name, snapshot_time)
        provided = self.provided(name)
        if provided is not None and not row_restriction and not selected_fields:
            return provided.read(0, provided.rows).to_reader()
        if provided is not None:
            raise LocalError("invalid", f"{name} can only be read whole")
        chosen = select(columns, selected_fields)
        if not chosen:
            raise LocalError("invalid", "request failed: no field is selected")
        listed = ", ".join(quoted(column.name) for column in chosen)
        statement = f"SELECT {listed} FROM {table_sql(name)} AS {quoted(table)}"
        if row_restriction.strip():
            statement += f" WHERE {self._restriction(name, columns, row_restriction)}"
        return self.stream(statement, chosen)

    def page(self, name: TableName, first: int, rows: int) -> pa.Table:
        """Some rows of a table, in its order, by the first row's number and how many."""
        provided = self.provided(name)
        if provided is not None:
            return provided.read(first, rows)
        columns = self.columns(name)
        listed = ", ".join(quoted(column.name) for column in columns)
        statement = f"SELECT {listed} FROM {table_sql(name)} LIMIT {int(rows)} OFFSET {int(first)}"
        return self.stream(statement, columns).read_all()

    def stream(self, statement: str, columns: Sequence[Column]) -> pa.RecordBatchReader:
        """The rows of a DuckDB query with BigQuery's types, streamed over a cursor of its own."""
        with self._lock:
            cursor = self._connection.cursor()
        try:
            source = cursor.sql(statement).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as error:
            cursor.close()
            raise from_duckdb(error) from error

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from arrow.reader(source, columns)
            except (duckdb.Error, pa.ArrowException) as error:
                if isinstance(error, duckdb.Error):
                    raise from_duckdb(error) from error
                raise invalid_query(str(error)) from error
            finally:
                cursor.close()

        return pa.RecordBatchReader.from_batches(arrow_schema(columns), batches())

    def _restriction(self, name: TableName, columns: Sequence[Column], condition: str) -> str:
        """A row restriction as DuckDB's SQL."""
        query = f"SELECT 1 FROM `{name.project}`.`{name.dataset}`.`{name.table}` WHERE\n{condition}"
        statements = sql.parse(query)
        if len(statements) != 1:
            raise invalid_query("Syntax error: a row restriction is one condition")
        tree = statements[0]
        sql.resolve(tree, sql.Defaults(project=name.project), query)
        number(tree)
        analysis = analyse(tree, {name: columns}, query)
        where = tree.args.get("where")
        if where is None or tree.args.get("limit") or len(list(tree.find_all(exp.Query))) > 1:
            raise invalid_query("Syntax error: a row restriction is one condition")
        try:
            text = rewrite.to_duckdb(where.this, analysis)
            with self.cursor() as cursor:
                found = cursor.sql(
                    f"SELECT 1 FROM {table_sql(name)} AS {quoted(name.table)} WHERE {text}"
                )
                _ = found.types
        except LocalError:
            if analysis is not UNKNOWN and analysis.fault is not None:
                raise analysis.fault from None
            raise
        return text
