"""A script in BigQuery's SQL -> statements, each with its type and the tables it names.

Only syntax is judged here. `resolve` writes the full name (project, dataset, table) into every
table reference, so that no later step needs the defaults of a job.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from pipeline.local.bigquery.errors import LocalError, invalid_query, syntax_error, unsupported
from pipeline.local.bigquery.types import Column

# sqlglot also says through logging what it raises; a LocalError is enough.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table's full name."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a job fills in for names that are not full. dataset: as (project, dataset)."""

    project: str
    dataset: tuple[str, str] | None = None


_DROPPED_OR_CREATED = {"TABLE", "VIEW", "SCHEMA"}
_SIMPLE_TYPES: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Query, "SELECT"),
    (exp.Insert, "INSERT"),
    (exp.Update, "UPDATE"),
    (exp.Delete, "DELETE"),
    (exp.Merge, "MERGE"),
    (exp.TruncateTable, "TRUNCATE_TABLE"),
)


def parse(sql: str) -> list[exp.Expr]:
    """The statements of a script. Raises LocalError with BigQuery's position."""
    try:
        found = sqlglot.parse(sql, read="bigquery", error_level=ErrorLevel.IMMEDIATE)
    except SqlglotError as error:
        raise syntax_error(sql, error) from error
    statements = [statement for statement in found if statement is not None]
    statements = [statement for statement in statements if not isinstance(statement, exp.Semicolon)]
    if not statements:
        raise invalid_query("Syntax error: Unexpected end of statement", (1, 1))
    for statement in statements:
        # sqlglot reads a select list that is missing as an empty one.
        for select in statement.find_all(exp.Select):
            if not select.expressions and not select.args.get("kind"):
                raise invalid_query(
                    "Syntax error: SELECT list must not be empty", before("FROM", select, sql)
                )
    return statements


def statement_type(statement: exp.Expr) -> str:
    """BigQuery's statementType. Raises LocalError for what can't run here."""
    for cls, name in _SIMPLE_TYPES:
        if isinstance(statement, cls):
            return name
    if isinstance(statement, (exp.Create, exp.Drop)):
        kind = str(statement.args.get("kind") or "").upper()
        verb = "CREATE" if isinstance(statement, exp.Create) else "DROP"
        if kind in _DROPPED_OR_CREATED:
            with_query = verb == "CREATE" and kind == "TABLE" and statement.expression
            return f"{verb}_{kind}" + ("_AS_SELECT" if with_query else "")
        raise unsupported(f"{verb} {kind}".strip())
    what = str(statement.this) if isinstance(statement, exp.Command) else statement.key.upper()
    raise unsupported(f"the statement {what.upper()}")


def script_type(statements: list[exp.Expr]) -> str:
    """The statementType of a whole script."""
    return statement_type(statements[0]) if len(statements) == 1 else "SCRIPT"


def resolve(statement: exp.Expr, defaults: Defaults, sql: str) -> tuple[TableName, ...]:
    """Write full names into the table references; the names, each once, in order.

    Raises LocalError for a table without a dataset.
    """
    names: dict[TableName, None] = {}
    for table in _table_references(statement):
        names[_full_name(table, defaults, sql)] = None
    return tuple(names)


def named_tables(
    statement: exp.Expr, defaults: Defaults, sql: str
) -> list[tuple[exp.Table, TableName]]:
    """Every reference to a table with its full name, which is not written into it.

    Raises LocalError for a table without a dataset.
    """
    return [
        (table, _full_name(table.copy(), defaults, sql))
        for table in list(_table_references(statement))
    ]


def schema_name(project: str, dataset: str) -> str:
    """The DuckDB schema that holds a dataset."""
    return f"{project}.{dataset}"


def name_of(table: exp.Expr | None) -> TableName:
    """The name of a resolved table reference."""
    if isinstance(table, exp.Schema):
        table = table.this
    if not isinstance(table, exp.Table):
        raise unsupported("a statement without a table name")
    return TableName(table.catalog, table.db, table.name)


def at(node: exp.Expr, sql: str) -> tuple[int, int] | None:
    """Where a node begins, as (line, column) from 1; None when it came from no text."""
    starts = [part.meta["start"] for part in node.walk() if part.meta and "start" in part.meta]
    if not starts:
        return None
    before = sql[: min(starts)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def before(keyword: str, node: exp.Expr, sql: str) -> tuple[int, int] | None:
    """Where the last `keyword` stands at or before a node, as (line, column) from 1."""
    begin = at(node, sql)
    if begin is None:
        return None
    lines = sql.splitlines()[: begin[0]]
    lines[-1] = lines[-1][: begin[1] - 1]
    for number in range(len(lines), 0, -1):
        found = lines[number - 1].upper().rfind(keyword)
        if found >= 0:
            return number, found + 1
    return begin


def _table_references(statement: exp.Expr) -> Iterator[exp.Table]:
    """Every reference to a table; not to a CTE, a function or a schema."""
    is_schema = isinstance(statement, (exp.Create, exp.Drop)) and (
        str(statement.args.get("kind")).upper() == "SCHEMA"
    )
    for table in statement.find_all(exp.Table):
        if is_schema or not isinstance(table.this, exp.Identifier):
            continue
        if not table.db and _is_cte(table):
            continue
        yield table


def _is_cte(table: exp.Table) -> bool:
    """Whether an enclosing WITH defines the name."""
    node: exp.Expr | None = table
    while node is not None:
        with_ = node.args.get("with_")
        if with_ and any(cte.alias.lower() == table.name.lower() for cte in with_.expressions):
            return True
        node = node.parent
    return False


def _full_name(table: exp.Table, defaults: Defaults, sql: str) -> TableName:
    parts = [part.name for part in table.parts]
    if any(part.upper().startswith("INFORMATION_SCHEMA") for part in parts):
        raise unsupported("INFORMATION_SCHEMA")
    if len(parts) == 1:
        if defaults.dataset is None:
            raise LocalError(
                "invalid",
                f'Table "{parts[0]}" must be qualified with a dataset (e.g. dataset.table).',
            )
        parts = [*defaults.dataset, parts[0]]
    elif len(parts) == 2:
        parts = [defaults.project, *parts]
    elif len(parts) > 3:
        raise invalid_query(f"Invalid table name: `{'.'.join(parts)}`", at(table, sql))
    name = TableName(*parts)
    if not table.alias and not isinstance(table.parent, (exp.Drop, exp.Schema, exp.Create)):
        # Without this, a column could not be qualified by the table's short name any more.
        table.set("alias", exp.TableAlias(this=exp.to_identifier(name.table, quoted=True)))
    identifier = table.this
    identifier.set("this", name.table)
    identifier.set("quoted", True)  # noqa: FBT003 - sqlglot's signature
    table.set("db", exp.to_identifier(name.dataset, quoted=True))
    table.set("catalog", exp.to_identifier(name.project, quoted=True))
    return name


def column_of(name: str, dtype: exp.DataType, *, required: bool = False) -> Column:
    """The Column of a type in a CREATE TABLE."""
    if dtype.this == exp.DType.ARRAY:
        element = column_of(name, dtype.expressions[0])
        return Column(name=name, kind=element.kind, repeated=True, fields=element.fields)
    if dtype.this == exp.DType.RANGE:
        fields: tuple[Column, ...] = (column_of("", dtype.expressions[0]),)
        return Column(name=name, kind="RANGE", required=required, fields=fields)
    if dtype.this == exp.DType.STRUCT:
        fields = tuple(column_of(field.name, field.args["kind"]) for field in dtype.expressions)
        return Column(name=name, kind="STRUCT", required=required, fields=fields)
    kind = _KINDS.get(dtype.this)
    if kind is None:
        raise invalid_query(f"Type not found: {dtype.sql('bigquery')}")
    return Column(name=name, kind=kind, required=required)


_KINDS = {
    exp.DType.BIGINT: "INT64",
    exp.DType.INT: "INT64",
    exp.DType.SMALLINT: "INT64",
    exp.DType.TINYINT: "INT64",
    exp.DType.DOUBLE: "FLOAT64",
    exp.DType.FLOAT: "FLOAT64",
    exp.DType.DECIMAL: "NUMERIC",
    exp.DType.BIGDECIMAL: "BIGNUMERIC",
    exp.DType.BOOLEAN: "BOOL",
    exp.DType.TEXT: "STRING",
    exp.DType.VARCHAR: "STRING",
    exp.DType.BINARY: "BYTES",
    exp.DType.VARBINARY: "BYTES",
    exp.DType.DATE: "DATE",
    exp.DType.TIME: "TIME",
    exp.DType.TIMESTAMP: "DATETIME",
    exp.DType.DATETIME: "DATETIME",
    exp.DType.TIMESTAMPTZ: "TIMESTAMP",
    exp.DType.JSON: "JSON",
    exp.DType.GEOGRAPHY: "GEOGRAPHY",
    exp.DType.INTERVAL: "INTERVAL",
}


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A call of one of DuckDB's functions, or of our macros."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def as_type(node: exp.Expr, dtype: str) -> exp.Expr:
    """A cast to one of DuckDB's types."""
    return exp.Cast(this=node, to=exp.DataType.build(dtype, dialect="duckdb"))
