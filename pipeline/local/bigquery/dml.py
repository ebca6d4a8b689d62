"""INSERT, UPDATE, DELETE, MERGE and TRUNCATE: their plans.

BigQuery assigns by its own coercions (coerce.py) and insists on WHERE. MERGE's assignments are
left to DuckDB's casts.
"""

# ruff: noqa: S608 - names are quoted, and DuckDB takes no names as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlglot import exp

from pipeline.local.bigquery.analysis import UNKNOWN, analyse, number
from pipeline.local.bigquery.coerce import Unassignable, assigned
from pipeline.local.bigquery.errors import invalid_query, unsupported
from pipeline.local.bigquery.plan import Plan, Scope
from pipeline.local.bigquery.rewrite import name_outputs, table_sql, to_duckdb
from pipeline.local.bigquery.sql import TableName, before, name_of, resolve
from pipeline.local.bigquery.types import Column, quoted


def plan_insert(tree: exp.Expr, scope: Scope) -> Plan:
    """INSERT INTO t [(columns)] VALUES ... | query."""
    resolve(tree, scope.defaults, scope.sql)
    target = name_of(tree.this)
    columns = _target_columns(target, scope)
    listed = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
    known = scope.warehouse.all_columns(target)
    chosen = [_column(known, item, target, scope) for item in listed] or list(columns)
    source = tree.expression
    if isinstance(source, exp.Values):
        text, width = _values(source, chosen, scope)
    elif isinstance(source, exp.Query):
        query = scope.query(source)
        text, width = query.sql, len(query.names)
    else:
        raise unsupported("this form of INSERT")
    if width != len(chosen):
        raise invalid_query(
            f"Inserted row has wrong column count; Has {width}, expected {len(chosen)}",
            scope.at(source),
        )
    places = [f"c{index}" for index in range(width)]
    inner = f"({text}) AS retl_source({', '.join(places)})"
    _, types, _ = scope.bind(f"SELECT * FROM {inner}")
    values = _assigned(places, types, chosen, scope, source)
    names = ", ".join(quoted(column.name) for column in chosen)
    statement = f"INSERT INTO {table_sql(target)} ({names}) SELECT {', '.join(values)} FROM {inner}"
    return _plan("INSERT", statement, target, scope)


def plan_update(tree: exp.Expr, scope: Scope) -> Plan:
    """UPDATE t SET column = expression, ... [FROM ...] WHERE ...; WHERE is a must."""
    resolve(tree, scope.defaults, scope.sql)
    number(tree)
    target = name_of(tree.this)
    columns = _target_columns(target, scope)
    where = tree.args.get("where")
    if where is None:
        raise invalid_query(
            "UPDATE must have a WHERE clause", before("UPDATE", tree.this, scope.sql)
        )
    source = tree.args.get("from_")
    tables = [tree.this, *([source.this] if source else [])]
    if source and source.this.args.get("joins"):
        raise unsupported("UPDATE ... FROM with joins")
    values = [item.expression for item in tree.expressions]
    texts, condition, analysis = scope.expressions(values, tables, where.this)
    from_ = ", ".join(to_duckdb(table, analysis) for table in tables)
    bound = ", ".join(f"{text} AS c{index}" for index, text in enumerate(texts))
    _, types, _ = scope.bind(f"SELECT {bound} FROM {from_} WHERE {condition}", analysis)
    settings = []
    for item, text, dtype in zip(tree.expressions, texts, types, strict=True):
        column = _set_column(columns, item.this, tree.this, target, scope)
        try:
            settings.append(f"{quoted(column.name)} = {assigned(text, dtype, column)}")
        except Unassignable as fault:
            raise invalid_query(
                f"Value of type {fault.source} cannot be assigned to {column.name}, "
                f"which has type {fault.target}",
                scope.at(item.expression),
            ) from fault
    other = f" FROM {to_duckdb(source.this, analysis)}" if source else ""
    statement = (
        f"UPDATE {to_duckdb(tree.this, analysis)} SET {', '.join(settings)}{other} "
        f"WHERE {condition}"
    )
    return _plan("UPDATE", statement, target, scope)


def plan_delete(tree: exp.Expr, scope: Scope) -> Plan:
    """DELETE [FROM] t WHERE ...; WHERE is a must."""
    if not tree.this and len(tree.args.get("tables") or ()) == 1:  # written without FROM
        tree.set("this", tree.args["tables"][0])
        tree.set("tables", None)
    resolve(tree, scope.defaults, scope.sql)
    number(tree)
    target = name_of(tree.this)
    _target_columns(target, scope)
    where = tree.args.get("where")
    if where is None:
        raise invalid_query(
            "DELETE must have a WHERE clause", before("DELETE", tree.this, scope.sql)
        )
    _, condition, analysis = scope.expressions([], [tree.this], where.this)
    table = to_duckdb(tree.this, analysis)
    scope.bind(f"SELECT 1 AS c0 FROM {table} WHERE {condition}", analysis)
    return _plan("DELETE", f"DELETE FROM {table} WHERE {condition}", target, scope)


def plan_merge(tree: exp.Expr, scope: Scope) -> Plan:
    """MERGE INTO t USING s ON ... WHEN ..."""
    names = resolve(tree, scope.defaults, scope.sql)
    name_outputs(tree)
    number(tree)
    target = name_of(tree.this)
    for name in names:
        _target_columns(name, scope)
        scope.reads[name] = None
        sizes = scope.warehouse.sizes(name)
        scope.nbytes += sum(sizes.values()) - sizes[""]
    return _plan("MERGE", to_duckdb(tree, UNKNOWN), target, scope)


def plan_truncate(tree: exp.Expr, scope: Scope) -> Plan:
    """TRUNCATE TABLE t."""
    resolve(tree, scope.defaults, scope.sql)
    target = name_of(tree.expressions[0])
    _target_columns(target, scope)
    return _plan("TRUNCATE_TABLE", f"DELETE FROM {table_sql(target)}", target, scope)


def _plan(kind: str, statement: str, target: TableName, scope: Scope) -> Plan:
    return Plan(
        kind=kind,
        statements=(statement,),
        target=target,
        reads=tuple(scope.reads),
        nbytes=scope.nbytes,
    )


def _target_columns(target: TableName, scope: Scope) -> tuple[Column, ...]:
    """The schema of a table that may be changed."""
    columns = scope.warehouse.columns(target)
    if scope.warehouse.provided(target) is not None:
        raise unsupported(f"changing {target}")
    return columns


def _column(columns: tuple[Column, ...], item: exp.Expr, target: TableName, scope: Scope) -> Column:
    for column in columns:
        if column.name.lower() == item.name.lower():
            return column
    raise invalid_query(f"Column {item.name} is not present in table {target}", scope.at(item))


def _set_column(
    columns: tuple[Column, ...],
    item: exp.Expr,
    table: exp.Expr,
    target: TableName,
    scope: Scope,
) -> Column:
    """The column on the left of an assignment."""
    qualifier = item.args.get("table")
    if not isinstance(item, exp.Column) or (
        qualifier is not None and qualifier.name.lower() != table.alias_or_name.lower()
    ):
        raise unsupported("UPDATE of a field inside a STRUCT; set the whole column")
    return _column(columns, item, target, scope)


def _assigned(
    texts: Sequence[str],
    types: Sequence[Any],
    columns: Sequence[Column],
    scope: Scope,
    source: exp.Expr,
) -> list[str]:
    """Expressions as values of the columns. Raises LocalError in BigQuery's words."""
    values = []
    for index, (text, dtype, column) in enumerate(zip(texts, types, columns, strict=True)):
        try:
            values.append(assigned(text, dtype, column))
        except Unassignable as fault:
            what = "Value" if isinstance(source, exp.Values) else f"Query column {index + 1}"
            raise invalid_query(
                f"{what} has type {fault.source} which cannot be inserted into column "
                f"{column.name}, which has type {fault.target}",
                scope.at(source),
            ) from fault
    return values


def _values(source: exp.Values, columns: Sequence[Column], scope: Scope) -> tuple[str, int]:
    """The rows of VALUES as DuckDB SQL, and how many columns they have."""
    rows = [row.expressions if isinstance(row, exp.Tuple) else [row] for row in source.expressions]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise invalid_query("Inserted rows have different column counts", scope.at(source))
    number(source)
    # Typed as one SELECT, so that casts and functions are translated as in any query.
    items = [
        exp.alias_(value.copy(), f"c{index}")
        for index, value in enumerate(value for row in rows for value in row)
    ]
    analysis = analyse(exp.Select(expressions=items), {}, scope.sql)
    texts = [[to_duckdb(value, analysis) for value in row] for row in rows]
    if len(rows) > 1 and width == len(columns) and _has_tagged(columns):
        # Rows may mix a number with a BIGNUMERIC, which DuckDB would not combine.
        typed = [scope.bind(_select(row), analysis)[1] for row in texts]
        texts = [
            _assigned(row, types, columns, scope, source)
            for row, types in zip(texts, typed, strict=True)
        ]
    return "VALUES " + ", ".join(f"({', '.join(row)})" for row in texts), width


def _select(texts: Sequence[str]) -> str:
    return "SELECT " + ", ".join(f"{text} AS c{index}" for index, text in enumerate(texts))


def _has_tagged(columns: Sequence[Column]) -> bool:
    """Whether any column has, somewhere in it, a type that DuckDB does not have."""
    return any(column.kind in ("BIGNUMERIC", "GEOGRAPHY", "RANGE", "STRUCT") for column in columns)
