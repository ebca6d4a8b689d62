"""Wildcard tables and pseudo columns: _TABLE_SUFFIX, _PARTITIONTIME, _PARTITIONDATE.

A reference to one becomes a subquery that has the pseudo columns as columns of its own, and every
`*` beside it leaves them out, as BigQuery does. A wildcard table has the columns of the newest of
the tables that it names; what an older one lacks is NULL there. Works on a query before it is
resolved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlglot import exp

from pipeline.local.bigquery.errors import invalid_query
from pipeline.local.bigquery.sql import Defaults, TableName, at, named_tables
from pipeline.local.bigquery.tables import PARTITION_TIME
from pipeline.local.bigquery.types import Column, sql_type
from pipeline.local.bigquery.warehouse import Warehouse

_SUFFIX, _DATE = "_TABLE_SUFFIX", "_PARTITIONDATE"


def expand(query: exp.Expr, warehouse: Warehouse, defaults: Defaults, sql: str) -> None:
    """Write out the references to tables with pseudo columns, in place. Raises LocalError."""
    for table, name in named_tables(query, defaults, sql):
        if name.table.endswith("*"):
            names = _matching(warehouse, name, table, sql)
        elif warehouse.is_partitioned(name):
            names = [name]
        else:
            continue
        _replace(table, name, _union(warehouse, names, name, _read(query)))


def _matching(warehouse: Warehouse, name: TableName, table: exp.Table, sql: str) -> list[TableName]:
    """The tables that a wildcard names, the newest last."""
    warehouse.require_dataset(name.project, name.dataset)
    prefix = name.table.removesuffix("*")
    found = [
        each
        for each in warehouse.tables(name.project, name.dataset)
        if each.table.startswith(prefix) and warehouse.provided(each) is None
    ]
    if not found:
        raise invalid_query(f"{name} does not match any table.", at(table, sql))
    return sorted(found, key=lambda each: warehouse.info(each).created)


def _read(query: exp.Expr) -> frozenset[str] | None:
    """Lower-case names of all columns that the query reads; None when a `*` may read any."""
    if query.find(exp.Star):
        return None
    return frozenset(column.name.lower() for column in query.find_all(exp.Column))


def _union(
    warehouse: Warehouse, names: Sequence[TableName], wild: TableName, read: frozenset[str] | None
) -> exp.Query:
    columns = [
        column
        for column in warehouse.columns(names[-1])
        if read is None or column.name.lower() in read
    ]
    partitioned = all(warehouse.is_partitioned(name) for name in names)
    union: exp.Query | None = None
    for name in names:
        part = _part(warehouse, name, columns, partitioned=partitioned)
        if wild.table.endswith("*"):
            suffix = name.table[len(wild.table) - 1 :]
            part = part.select(exp.alias_(exp.Literal.string(suffix), _SUFFIX), copy=False)
        union = part if union is None else union.union(part, distinct=False, copy=False)
    if union is None:
        raise AssertionError("a wildcard names one table at least")
    return union


def _part(
    warehouse: Warehouse, name: TableName, columns: Iterable[Column], *, partitioned: bool
) -> exp.Select:
    """One table with the wanted columns, and the pseudo columns of its partitions."""
    own = {column.name.lower() for column in warehouse.columns(name)}
    part = exp.select(*(_column(column, own) for column in columns))
    if partitioned:
        time = exp.column(PARTITION_TIME)
        date = exp.Cast(this=time.copy(), to=exp.DataType.build("DATE", dialect="bigquery"))
        part = part.select(time, exp.alias_(date, _DATE), copy=False)
    source = exp.table_(name.table, db=name.dataset, catalog=name.project, quoted=True)
    return part.from_(source, copy=False)


def _column(column: Column, own: set[str]) -> exp.Expr:
    if column.name.lower() in own:
        return exp.column(column.name, quoted=True)
    to = exp.DataType.build(sql_type(column), dialect="bigquery")
    return exp.alias_(exp.Cast(this=exp.Null(), to=to), column.name, quoted=True)


def _replace(table: exp.Table, name: TableName, union: exp.Query) -> None:
    alias = table.alias or name.table
    pseudo = [each for each in (_SUFFIX, PARTITION_TIME, _DATE) if each in union.named_selects]
    select = table.find_ancestor(exp.Select)
    for item in select.expressions if select is not None else ():
        star = item if isinstance(item, exp.Star) else item.this
        of = item.table if isinstance(item, exp.Column) else ""
        if isinstance(star, exp.Star) and of.lower() in ("", alias.lower()):
            left_out = star.args.get("except_") or []
            known = {each.name.lower() for each in left_out}
            more = [exp.column(each) for each in pseudo if each.lower() not in known]
            star.set("except_", [*left_out, *more])
    subquery = exp.Subquery(
        this=union, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
    )
    table.replace(subquery)
