"""What a statement will do, and the help that its planners share.

A Plan is DuckDB SQL with the tables it reads and changes. A Scope is one statement's view of the
warehouse: it types and translates the queries inside it and estimates what they scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from pipeline.local.bigquery.analysis import UNKNOWN, Analysis, analyse, number
from pipeline.local.bigquery.errors import LocalError, unsupported
from pipeline.local.bigquery.pseudo import expand
from pipeline.local.bigquery.rewrite import name_outputs, to_duckdb
from pipeline.local.bigquery.sql import Defaults, TableName, at, resolve
from pipeline.local.bigquery.tables import result_columns
from pipeline.local.bigquery.types import Column
from pipeline.local.bigquery.warehouse import Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A prepared statement.

    kind: BigQuery's statementType. statements: DuckDB SQL, in order; for a SELECT its query.
    target: the table that changes. columns: the result's schema, of a SELECT.
    provided: the table from outside DuckDB that a SELECT * reads whole.
    """

    kind: str
    statements: tuple[str, ...] = ()
    target: TableName | None = None
    columns: tuple[Column, ...] = ()
    reads: tuple[TableName, ...] = ()
    nbytes: int = 0
    provided: TableName | None = None
    dataset: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A translated query: DuckDB SQL, and the names and DuckDB types of its columns."""

    sql: str
    names: tuple[str, ...]
    types: tuple[Any, ...]
    columns: tuple[Column, ...]


@dataclass(slots=True, kw_only=True)
class Scope:
    """One statement, its text and its names, in a warehouse. nbytes: scanned, as planned so far."""

    warehouse: Warehouse
    defaults: Defaults
    sql: str
    reads: dict[TableName, None] = field(default_factory=dict)
    nbytes: int = 0

    def at(self, node: exp.Expr) -> tuple[int, int] | None:
        """Where a node begins in the text."""
        return at(node, self.sql)

    def analyse(self, query: exp.Expr) -> Analysis:
        """Resolve, number and type a query, in place. Raises LocalError for unknown tables."""
        expand(query, self.warehouse, self.defaults, self.sql)
        names = resolve(query, self.defaults, self.sql)
        schemas = {name: self.warehouse.all_columns(name) for name in names}
        for name in names:
            if self.warehouse.provided(name) is not None:
                raise unsupported(f"queries of {name} other than SELECT *")
        name_outputs(query)
        number(query)
        analysis = analyse(query, schemas, self.sql)
        for name in names:
            if name not in self.reads:
                self.reads[name] = None
                self.nbytes += self._scanned(name, analysis)
        return analysis

    def query(self, tree: exp.Expr) -> Query:
        """Translate a query and learn its columns, without running it."""
        tree = tree.copy()
        analysis = self.analyse(tree)
        text = to_duckdb(tree, analysis)
        names, types, columns = self.bind(text, analysis)
        return Query(sql=text, names=names, types=types, columns=columns)

    def bind(
        self, text: str, analysis: Analysis = UNKNOWN
    ) -> tuple[tuple[str, ...], tuple[Any, ...], tuple[Column, ...]]:
        """Names, DuckDB types and BigQuery columns of a DuckDB query."""
        try:
            with self.warehouse.cursor() as cursor:
                relation = cursor.sql(text)
                columns = result_columns(relation)
                return tuple(relation.columns), tuple(relation.types), columns
        except LocalError:
            if analysis.fault is not None:
                raise analysis.fault from None
            raise

    def expressions(
        self, texts: Sequence[exp.Expr], tables: Iterable[exp.Expr], where: exp.Expr | None
    ) -> tuple[list[str], str | None, Analysis]:
        """Translate the expressions and the condition of a DML statement over its tables.

        The parts must be of a resolved, numbered tree. Judges them as a SELECT would be.
        """
        select = exp.Select(
            expressions=[exp.alias_(e.copy(), f"c{i}") for i, e in enumerate(texts)]
        )
        if not texts:
            select.set("expressions", [exp.alias_(exp.Literal.number(1), "c0")])
        for index, table in enumerate(tables):
            if index == 0:
                select.set("from_", exp.From(this=table.copy()))
            else:
                select.append("joins", exp.Join(this=table.copy(), kind="CROSS"))
        if where is not None:
            select.set("where", exp.Where(this=where.copy()))
        names = dict.fromkeys(resolve(select, self.defaults, self.sql))
        analysis = analyse(select, {name: self.warehouse.columns(name) for name in names}, self.sql)
        for name in names:
            if name not in self.reads:
                self.reads[name] = None
                self.nbytes += self._scanned(name, analysis)
        condition = None if where is None else to_duckdb(where, analysis)
        return [to_duckdb(text, analysis) for text in texts], condition, analysis

    def _scanned(self, name: TableName, analysis: Analysis) -> int:
        """Bytes of the columns that a query reads of a table; of all when that is unknown."""
        sizes = self.warehouse.sizes(name)
        return sum(
            size
            for column, size in sizes.items()
            if column and (analysis.columns is None or column in analysis.columns)
        )
