"""One statement: prepared (names, types, what it would scan), then run.

`prepare` touches no row and raises all that BigQuery refuses before running; a dry run is that and
no more. `run` changes tables, or stores a query's result in the table that the job names.
"""

# ruff: noqa: S608 - names are quoted, and DuckDB takes no names as parameters

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from pipeline.local.bigquery.coerce import canonical
from pipeline.local.bigquery.ddl import plan_create, plan_drop
from pipeline.local.bigquery.dml import (
    plan_delete,
    plan_insert,
    plan_merge,
    plan_truncate,
    plan_update,
)
from pipeline.local.bigquery.errors import already_exists
from pipeline.local.bigquery.plan import Plan, Scope
from pipeline.local.bigquery.rewrite import table_sql
from pipeline.local.bigquery.sql import Defaults, TableName, resolve, statement_type
from pipeline.local.bigquery.warehouse import Warehouse

_PLANNERS: tuple[tuple[type[exp.Expr], Callable[[exp.Expr, Scope], Plan]], ...] = (
    (exp.Insert, plan_insert),
    (exp.Update, plan_update),
    (exp.Delete, plan_delete),
    (exp.Merge, plan_merge),
    (exp.TruncateTable, plan_truncate),
    (exp.Create, plan_create),
    (exp.Drop, plan_drop),
)


def prepare(warehouse: Warehouse, tree: exp.Expr, defaults: Defaults, sql: str) -> Plan:
    """The plan of one statement of the script `sql`. Raises LocalError."""
    kind = statement_type(tree)
    scope = Scope(warehouse=warehouse, defaults=defaults, sql=sql)
    tree = tree.copy()
    for cls, planner in _PLANNERS:
        if isinstance(tree, cls):
            return planner(tree, scope)
    whole = _whole_provided(tree, scope)
    if whole is not None:
        provided = warehouse.provided(whole)
        nbytes = provided.nbytes if provided else 0
        columns = warehouse.columns(whole)
        return Plan(kind=kind, columns=columns, reads=(whole,), nbytes=nbytes, provided=whole)
    query = scope.query(tree)
    return Plan(
        kind=kind,
        statements=(query.sql,),
        columns=query.columns,
        reads=tuple(scope.reads),
        nbytes=scope.nbytes,
    )


def run(warehouse: Warehouse, plan: Plan, cursor: Any) -> int:
    """Run a plan that changes tables; how many rows it changed. Raises LocalError.

    cursor: of the warehouse; interrupting it stops the statement.
    """
    rows = 0
    with warehouse.writing():
        for statement in plan.statements:
            answer = cursor.execute(statement).fetchone()
            if plan.kind in ("INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE_TABLE"):
                rows = int(answer[0]) if answer else 0
        if plan.target is not None and plan.statements:
            warehouse.changed(plan.target, created=plan.kind.startswith("CREATE"))
    return rows


def store(
    warehouse: Warehouse, plan: Plan, target: TableName, cursor: Any, disposition: str
) -> None:
    """Run a SELECT and keep its rows, in its order, in `target`. Raises LocalError.

    disposition: WRITE_EMPTY, WRITE_TRUNCATE or WRITE_APPEND, for a table that exists.
    """
    query = plan.statements[0]
    exists = warehouse.exists(target)
    if exists and disposition == "WRITE_EMPTY" and warehouse.info(target).rows:
        raise already_exists(f"Table {target.project}:{target.dataset}.{target.table}")
    if exists and disposition != "WRITE_TRUNCATE":
        with warehouse.writing():
            cursor.execute(f"INSERT INTO {table_sql(target)} BY NAME {query}")
    else:
        relation = cursor.sql(query)
        stored = canonical(relation.types, relation.columns)
        text = f"SELECT {', '.join(stored)} FROM ({query}) AS retl_source" if stored else query
        cursor.execute(f"CREATE OR REPLACE TABLE {table_sql(target)} AS {text}")
    warehouse.changed(target, created=not exists)


def _whole_provided(tree: exp.Expr, scope: Scope) -> TableName | None:
    """The table from outside DuckDB that the query selects whole, if it is one."""
    if not isinstance(tree, exp.Select) or set(tree.args) - {"expressions", "from_", "kind"} - {
        key for key, value in tree.args.items() if not value
    }:
        return None
    from_ = tree.args.get("from_")
    if len(tree.expressions) != 1 or type(tree.expressions[0]) is not exp.Star or from_ is None:
        return None
    if any(tree.expressions[0].args.values()) or not isinstance(from_.this, exp.Table):
        return None
    names = resolve(tree.copy(), scope.defaults, scope.sql)
    if len(names) != 1 or scope.warehouse.provided(names[0]) is None:
        return None
    scope.warehouse.columns(names[0])
    return names[0]
