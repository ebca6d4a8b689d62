"""CREATE and DROP of tables, views and datasets: their plans.

Partitioning, clustering and OPTIONS are accepted and have no effect here, but for partitions by the
time of ingestion, which have their pseudo columns (pseudo.py).
"""

# ruff: noqa: S608 - names are quoted, and DuckDB takes no names as parameters

from __future__ import annotations

from sqlglot import exp

from pipeline.local.bigquery.analysis import UNKNOWN
from pipeline.local.bigquery.coerce import Unassignable, assigned, canonical
from pipeline.local.bigquery.errors import already_exists, invalid_query, not_found, unsupported
from pipeline.local.bigquery.plan import Plan, Scope
from pipeline.local.bigquery.rewrite import table_sql, to_duckdb
from pipeline.local.bigquery.sql import (
    TableName,
    column_of,
    name_of,
    resolve,
    schema_name,
    statement_type,
)
from pipeline.local.bigquery.tables import PARTITION_TIME, definitions
from pipeline.local.bigquery.types import Column, duckdb_type, quoted


def plan_create(tree: exp.Expr, scope: Scope) -> Plan:  # noqa: C901 - a table of cases
    """CREATE SCHEMA | VIEW | TABLE [AS query]."""
    kind = statement_type(tree)
    if kind == "CREATE_SCHEMA":
        return _create_schema(tree, scope)
    if tree.args.get("clone") or _has(tree, exp.LikeProperty):
        raise unsupported("CREATE TABLE ... LIKE, COPY or CLONE")
    if _has(tree, exp.TemporaryProperty):
        raise unsupported("temporary tables")
    if _has(tree, exp.MaterializedProperty):
        raise unsupported("materialized views")
    target = _target(tree, scope)
    scope.warehouse.require_dataset(target.project, target.dataset)
    exists, replaces = scope.warehouse.exists(target), bool(tree.args.get("replace"))
    if exists and tree.args.get("exists"):
        return Plan(kind=kind, target=target)
    if exists and not replaces:
        raise already_exists(f"Table {target.project}:{target.dataset}.{target.table}")
    if kind == "CREATE_VIEW":
        return _create_view(tree, target, scope)
    verb = "CREATE OR REPLACE TABLE" if replaces else "CREATE TABLE"
    if kind == "CREATE_TABLE":
        columns = _columns(tree, scope)
        listed = definitions(columns, partitioned=_by_ingestion(tree))
        statement = f"{verb} {table_sql(target)} ({listed})"
        return Plan(kind=kind, statements=(statement, *_defaults(tree, target)), target=target)
    if _by_ingestion(tree):
        raise unsupported("a query in CREATE TABLE ... PARTITION BY _PARTITIONDATE")
    query = scope.query(tree.expression)
    text = query.sql
    if isinstance(tree.this, exp.Schema):
        text = _fitted(query.sql, query.types, _columns(tree, scope), scope, tree)
    else:
        stored = canonical(query.types, query.names)
        if stored:
            text = f"SELECT {', '.join(stored)} FROM ({query.sql}) AS retl_source"
    return Plan(
        kind=kind,
        statements=(f"{verb} {table_sql(target)} AS {text}",),
        target=target,
        reads=tuple(scope.reads),
        nbytes=scope.nbytes,
    )


def plan_drop(tree: exp.Expr, scope: Scope) -> Plan:
    """DROP TABLE | VIEW | SCHEMA [IF EXISTS]."""
    kind = statement_type(tree)
    if kind == "DROP_SCHEMA":
        project, dataset = _dataset(_dropped(tree), scope)
        if not scope.warehouse.has_dataset(project, dataset):
            if tree.args.get("exists"):
                return Plan(kind=kind)
            raise not_found(project, dataset)
        if scope.warehouse.tables(project, dataset) and not tree.args.get("cascade"):
            raise invalid_query(f"Dataset {project}:{dataset} is still in use")
        schema = quoted(schema_name(project, dataset))
        return Plan(kind=kind, statements=(f"DROP SCHEMA {schema} CASCADE",))
    resolve(tree, scope.defaults, scope.sql)
    target = name_of(_dropped(tree))
    if not scope.warehouse.exists(target):
        if tree.args.get("exists"):
            return Plan(kind=kind, target=target)
        raise not_found(target.project, target.dataset, target.table)
    if scope.warehouse.provided(target) is not None:
        raise unsupported(f"dropping {target}")
    actual = scope.warehouse.info(target).kind
    if actual != kind.removeprefix("DROP_"):
        raise invalid_query(f"{target} is a {actual.lower()}: use DROP {actual}")
    return Plan(kind=kind, statements=(f"DROP {actual} {table_sql(target)}",), target=target)


def _dropped(tree: exp.Expr) -> exp.Expr:
    """What a DROP names."""
    tables = tree.args.get("tables") or [tree.this]
    if len(tables) != 1 or tables[0] is None:
        raise unsupported("DROP of several names")
    found: exp.Expr = tables[0]
    return found


def _has(tree: exp.Expr, cls: type[exp.Expr]) -> bool:
    properties = tree.args.get("properties")
    return properties is not None and any(isinstance(p, cls) for p in properties.expressions)


def _by_ingestion(tree: exp.Expr) -> bool:
    """Whether PARTITION BY names a pseudo column."""
    found = tree.find(exp.PartitionedByProperty)
    names = {each.name.upper() for each in found.find_all(exp.Identifier)} if found else set()
    return bool(names & {PARTITION_TIME, "_PARTITIONDATE"})


def _target(tree: exp.Expr, scope: Scope) -> TableName:
    """The name that a CREATE makes; the query behind AS is resolved later, on its own."""
    head = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    resolve(head, scope.defaults, scope.sql)
    return name_of(head)


def _create_schema(tree: exp.Expr, scope: Scope) -> Plan:
    project, dataset = _dataset(tree.this, scope)
    if scope.warehouse.has_dataset(project, dataset):
        if tree.args.get("exists"):
            return Plan(kind="CREATE_SCHEMA")
        raise already_exists(f"Dataset {project}:{dataset}")
    schema = quoted(schema_name(project, dataset))
    return Plan(kind="CREATE_SCHEMA", statements=(f"CREATE SCHEMA IF NOT EXISTS {schema}",))


def _dataset(table: exp.Expr, scope: Scope) -> tuple[str, str]:
    """The (project, dataset) of a CREATE or DROP SCHEMA, also when quoted as one name."""
    parts = [
        piece
        for part in (table.args.get("catalog"), table.args.get("db"))
        if part
        for piece in part.name.split(".")
    ]
    if len(parts) == 1:
        return scope.defaults.project, parts[0]
    if len(parts) != 2:
        raise invalid_query(f"Invalid dataset name: {'.'.join(parts)}")
    return parts[0], parts[1]


def _create_view(tree: exp.Expr, target: TableName, scope: Scope) -> Plan:
    if isinstance(tree.this, exp.Schema):
        raise unsupported("a column list in CREATE VIEW")
    query = scope.query(tree.expression)
    statement = f"CREATE OR REPLACE VIEW {table_sql(target)} AS {query.sql}"
    return Plan(kind="CREATE_VIEW", statements=(statement,), target=target)


def _columns(tree: exp.Expr, scope: Scope) -> tuple[Column, ...]:
    """The column list of a CREATE TABLE."""
    columns = []
    definitions_ = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
    for item in definitions_:
        if not isinstance(item, exp.ColumnDef):
            continue  # PRIMARY KEY ... NOT ENFORCED and the like
        if item.args.get("kind") is None:
            raise unsupported("a column without a type")
        kinds = [constraint.args.get("kind") for constraint in item.args.get("constraints") or ()]
        required = any(isinstance(kind, exp.NotNullColumnConstraint) for kind in kinds)
        columns.append(column_of(item.name, item.args["kind"], required=required))
    if not columns:
        raise invalid_query("A table must have at least one column", scope.at(tree))
    return tuple(columns)


def _defaults(tree: exp.Expr, target: TableName) -> list[str]:
    """DEFAULT expressions of a column list."""
    statements = []
    for item in tree.this.expressions:
        for constraint in item.args.get("constraints") or ():
            kind = constraint.args.get("kind")
            if isinstance(kind, exp.DefaultColumnConstraint):
                value = to_duckdb(kind.this, UNKNOWN)
                statements.append(
                    f"ALTER TABLE {table_sql(target)} ALTER COLUMN {quoted(item.name)} "
                    f"SET DEFAULT {value}"
                )
    return statements


def _fitted(
    text: str, types: tuple[object, ...], columns: tuple[Column, ...], scope: Scope, tree: exp.Expr
) -> str:
    """A query's columns as those of a CREATE TABLE (columns) AS query."""
    if len(types) != len(columns):
        raise invalid_query(
            f"The number of columns in the column definition list ({len(columns)}) does not match "
            f"the number of columns produced by the query ({len(types)})",
            scope.at(tree),
        )
    places = [f"c{index}" for index in range(len(columns))]
    try:
        values = [
            f"CAST({assigned(place, dtype, column)} AS {duckdb_type(column)}) "
            f"AS {quoted(column.name)}"
            for place, dtype, column in zip(places, types, columns, strict=True)
        ]
    except Unassignable as fault:
        raise invalid_query(
            f"A query column of type {fault.source} cannot become {fault.target}", scope.at(tree)
        ) from fault
    return f"SELECT {', '.join(values)} FROM ({text}) AS retl_source({', '.join(places)})"
