"""Names and types of a statement as BigQuery sees them, and its refusals in BigQuery's words.

sqlglot qualifies and annotates a copy of the tree. DuckDB, which runs the statement, is laxer
(it compares a TIMESTAMP with what it can cast) or words its refusals otherwise, so what users meet
most is judged here. What sqlglot can't type is left to DuckDB: nothing is refused on a guess. Knows
table schemas, no data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

from pipeline.local.bigquery.errors import LocalError, from_sqlglot, invalid_query
from pipeline.local.bigquery.sql import TableName, at
from pipeline.local.bigquery.types import Column, sql_type

_NODE = "retl_node"

_COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
}
_NUMBERS = {"INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC"}
_TIMES = {"TIMESTAMP", "DATETIME", "DATE", "TIME"}
_JUDGED = _NUMBERS | _TIMES | {"BOOL", "STRING"}
_UNIX: Mapping[type[exp.Expr], str] = {
    exp.UnixSeconds: "UNIX_SECONDS",
    exp.UnixMillis: "UNIX_MILLIS",
    exp.UnixMicros: "UNIX_MICROS",
}
# sqlglot's own names of some types, where they are not BigQuery's.
_TYPE_NAMES = {"INT": "INT64", "DATETIME": "DATETIME", "TIMESTAMPTZ": "TIMESTAMP"}
# Whose type sqlglot is sure of when it says DATETIME; it says so of some TIMESTAMP functions too.
_SURE_OF_DATETIME = (
    exp.Column,
    exp.Cast,
    exp.Datetime,
    exp.DatetimeAdd,
    exp.DatetimeSub,
    exp.DatetimeTrunc,
    exp.CurrentDatetime,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What is known of a query.

    types: node number -> BigQuery's type name, of the nodes that could be typed.
    shapes: node number -> the whole type, of STRUCTs and ARRAYs.
    columns: the names of all columns that the query reads, in lower case; None when unknown.
    fault: why the query could not be qualified. DuckDB may still accept it.
    """

    types: Mapping[int, str]
    columns: frozenset[str] | None
    fault: LocalError | None
    shapes: Mapping[int, exp.DataType] = field(default_factory=dict)

    def shape_of(self, node: exp.Expr) -> exp.DataType | None:
        """The whole type of a STRUCT or an ARRAY of the numbered tree."""
        return self.shapes.get(node.meta.get(_NODE, -1))

    def type_of(self, node: exp.Expr | None) -> str:
        """BigQuery's type name of a node of the numbered tree; "" when unknown."""
        return self.types.get(node.meta.get(_NODE, -1), "") if node is not None else ""

    @staticmethod
    def inherit(replacement: exp.Expr, node: exp.Expr) -> None:
        """Give what replaces a node the node's type."""
        if _NODE in node.meta:
            replacement.meta[_NODE] = node.meta[_NODE]


UNKNOWN = Analysis(types={}, columns=None, fault=None)


def number(statement: exp.Expr) -> None:
    """Give every node a number that survives copying, so that types find their way back."""
    for index, node in enumerate(statement.walk()):
        node.meta[_NODE] = index


def analyse(query: exp.Expr, schemas: Mapping[TableName, Sequence[Column]], sql: str) -> Analysis:
    """Qualify, type and judge a numbered, resolved query.

    Raises LocalError for what BigQuery's type checker refuses.
    """
    schema: dict[str, Any] = {}
    for table, columns in schemas.items():
        tables = schema.setdefault(table.project, {}).setdefault(table.dataset, {})
        tables[table.table] = {column.name: sql_type(column) for column in columns}
    try:
        tree = qualify(query.copy(), schema=schema, dialect="bigquery", quote_identifiers=False)
        tree = annotate_types(tree, schema=schema, dialect="bigquery")
    except SqlglotError as error:
        return Analysis(types={}, columns=None, fault=_unresolved(error, query, sql))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        # A shape of query that sqlglot's optimizer trips over; DuckDB judges it alone.
        return UNKNOWN
    types: dict[int, str] = {}
    shapes: dict[int, exp.DataType] = {}
    for node in tree.walk():
        index = node.meta.get(_NODE)
        name = bigquery_type(node)
        if index is not None and name:
            types[index] = name
            if name in ("STRUCT", "ARRAY") and node.type is not None:
                shapes[index] = node.type
        _check(node, sql)
    read = frozenset(column.name.lower() for column in tree.find_all(exp.Column))
    return Analysis(types=types, columns=read, fault=None, shapes=shapes)


def bigquery_type(node: exp.Expr) -> str:
    """BigQuery's name of an annotated node's type, without parameters; "" when unknown."""
    dtype = node.type
    if dtype is None or dtype.is_type(exp.DType.UNKNOWN, exp.DType.NULL):
        return ""
    name = re.split(r"[<(]", dtype.sql("bigquery"))[0].strip().upper()
    return _TYPE_NAMES.get(name, name)


def _check(node: exp.Expr, sql: str) -> None:
    """Refuse a node as BigQuery's type checker does."""
    symbol = _COMPARISONS.get(type(node))
    if symbol:
        sides = (node.this, node.expression)
        if _incomparable(*sides):
            kinds = [bigquery_type(side) for side in sides]
            raise invalid_query(_no_operator(symbol, "T1", kinds), at(node, sql))
    if isinstance(node, exp.Between):
        bounds = (node.args["low"], node.args["high"])
        if any(_incomparable(node.this, bound) for bound in bounds):
            kinds = [bigquery_type(side) for side in (node.this, *bounds)]
            raise invalid_query(_no_operator("BETWEEN", "T1", kinds), at(node, sql))
    if isinstance(node, (exp.DPipe, exp.Concat)):
        _check_texts(node, sql)
    function = _UNIX.get(type(node))
    if function:
        kind = _known(node.this)
        if kind and kind != "TIMESTAMP" and not _is_text_literal(node.this):
            raise invalid_query(
                f"No matching signature for function {function}\n"
                f"  Argument types: {kind}\n"
                f"  Signature: {function}(TIMESTAMP)\n"
                f"    Argument 1: Unable to coerce type {kind} to expected type TIMESTAMP",
                at(node, sql),
            )


def _check_texts(node: exp.Expr, sql: str) -> None:
    """Refuse what BigQuery does not turn into text by itself."""
    joined = isinstance(node, exp.DPipe)
    operands = [node.this, node.expression] if joined else node.expressions
    kinds = [bigquery_type(operand) for operand in operands]
    if all(kinds) and any(_known(operand) not in ("", "STRING") for operand in operands):
        what = "operator ||" if joined else "function CONCAT"
        raise invalid_query(
            f"No matching signature for {what} for argument types: {', '.join(kinds)}",
            at(node, sql),
        )


def _no_operator(symbol: str, parameter: str, kinds: Sequence[str]) -> str:
    joined = ", ".join(kinds)
    signature = f"T1 {symbol} T1" if len(kinds) == 2 else f"(T1) {symbol} (T1) AND (T1)"
    return (
        f"No matching signature for operator {symbol} for argument types: {joined}\n"
        f"  Signature: {signature}\n"
        f"    Unable to find common supertype for templated argument <{parameter}>\n"
        f"      Input types for <{parameter}>: {{{', '.join(sorted(set(kinds)))}}}"
    )


def _known(node: exp.Expr) -> str:
    """The type's name when it is judged here and certain."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Null):  # typed as INT64, and yet it coerces to everything
        return ""
    name = bigquery_type(node)
    if name == "DATETIME" and not isinstance(node, _SURE_OF_DATETIME):
        return ""
    return name if name in _JUDGED else ""


def _is_text_literal(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _incomparable(first: exp.Expr, second: exp.Expr) -> bool:
    """Whether BigQuery finds no common supertype of two operands."""
    one, other = _known(first), _known(second)
    if not one or not other or one == other:
        return False
    kinds = {one, other}
    return not (
        kinds <= _NUMBERS
        or kinds == {"DATE", "DATETIME"}  # a DATE coerces to a DATETIME
        or (_is_text_literal(first) and other in _TIMES)
        or (_is_text_literal(second) and one in _TIMES)
    )


_COLUMN_FAULT = re.compile(
    r"(?:Column '(?P<name>[^']+)' could not be resolved(?: for table: '(?P<table>[^']+)')?"
    r"|Unknown column: (?P<unknown>\w+))"
)


def _unresolved(error: SqlglotError, query: exp.Expr, sql: str) -> LocalError:
    """A name that sqlglot could not resolve, in BigQuery's words where it is that."""
    fault = _COLUMN_FAULT.search(str(error))
    if not fault:
        return from_sqlglot(error)
    name = (fault["name"] or fault["unknown"]).split(".")[-1]
    tables = {table.alias_or_name.lower() for table in query.find_all(exp.Table, exp.Unnest)}
    tables |= {item.alias.lower() for item in query.find_all(exp.CTE, exp.Subquery)}
    for column in query.find_all(exp.Column):
        if column.name.lower() != name.lower():
            continue
        if not column.table:
            return invalid_query(f"Unrecognized name: {name}", at(column, sql))
        if fault["unknown"] and column.table.lower() in tables:
            place = at(column.this, sql)
            return invalid_query(f"Name {name} not found inside {column.table}", place)
        if column.table.lower() not in tables:
            return invalid_query(f"Unrecognized name: {column.table}", at(column, sql))
    return invalid_query(f"Unrecognized name: {name}")
