"""What stands, in DuckDB, for one node of a BigQuery tree: casts, functions, literals, JSON.

sqlglot's generator does the bulk. Here is what it gets wrong or can't know: types that DuckDB does
not have (types.py), exactness of numbers and times, and functions whose result would have another
type than BigQuery's. Macros (macros.py) do at run time what a tree can't say.
"""

from __future__ import annotations

import re

from sqlglot import exp

from pipeline.local.bigquery.analysis import Analysis
from pipeline.local.bigquery.bignumeric import (
    COMPARED,
    align,
    bignumeric_operation,
    division,
    without_exponent,
)
from pipeline.local.bigquery.errors import LocalError, invalid_query, unsupported
from pipeline.local.bigquery.sql import as_type, call, column_of, schema_name
from pipeline.local.bigquery.types import Column, duckdb_type

_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.IntDiv, exp.Neg)
_NUMERICAL = (*_ARITHMETIC, exp.Abs, exp.Round, exp.Sum, exp.Avg, exp.Floor, exp.Ceil)
_MIXING = (exp.Coalesce, exp.Greatest, exp.Least, exp.In, exp.Between, exp.Nullif, exp.If, exp.Case)
_RENAMED = {
    "ST_GEOGPOINT": "retl_point",
    "ST_GEOGFROMTEXT": "retl_geography",
    "ST_GEOGFROM": "retl_geography",
    "ST_ASTEXT": "retl_geography_text",
    "RANGE": "retl_range_of",
    "RANGE_START": "retl_range_start",
    "RANGE_END": "retl_range_end",
    "FORMAT": "printf",
}


def replacement_of(node: exp.Expr, analysis: Analysis) -> exp.Expr:  # noqa: C901 - a table of cases
    """What stands for a node; its children are done, its parent is as it was."""
    if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier) and node.db:
        if node.args.get("version") or node.args.get("when"):
            raise unsupported("FOR SYSTEM_TIME AS OF")
        schema = schema_name(node.catalog, node.db)
        node.set("db", exp.to_identifier(schema, quoted=True))
        node.set("catalog", None)
        return node
    if isinstance(node, exp.Column) and node.args.get("db"):
        node.set("db", None)  # dataset.table.column: the table's alias is its short name
        node.set("catalog", None)
        return node
    if isinstance(node, exp.Unnest) and node.args.get("offset"):
        return _with_offset(node)
    if isinstance(node, exp.Literal):
        return _literal(node, analysis)
    if isinstance(node, exp.ByteString):
        # The tokenizer made characters of \xHH; a literal with others is text in UTF-8.
        narrow = all(ord(character) < 256 for character in node.name)
        data = node.name.encode("latin-1" if narrow else "utf-8")
        return call("from_hex", exp.Literal.string(data.hex()))
    if isinstance(node, exp.Interval):
        return _interval(node)
    if isinstance(node, exp.Cast):
        return _cast(node, analysis)
    if isinstance(node, exp.Div):
        node = division(node, analysis)
    if isinstance(node, (*_NUMERICAL, *COMPARED)):
        return bignumeric_operation(node, analysis)
    if isinstance(node, _MIXING):
        align(node, analysis)
        return node
    if isinstance(node, (exp.Parameter, exp.SessionParameter)):
        raise unsupported("query parameters and system variables")
    return _function(node, analysis)


def _with_offset(node: exp.Unnest) -> exp.Expr:
    """UNNEST(...) WITH OFFSET counts from 0, DuckDB's WITH ORDINALITY from 1."""
    alias = node.args.get("alias")
    if alias is None or not alias.columns:
        node.set("alias", exp.TableAlias(columns=[exp.to_identifier("retl_element")]))
    offset = node.args["offset"]
    counted = exp.Sub(this=exp.column(offset.copy()), expression=exp.Literal.number(1))
    names = [exp.column(each.copy()) for each in node.args["alias"].columns]
    return exp.select(*names, exp.alias_(counted, offset.copy())).from_(node).subquery()


def _literal(node: exp.Literal, analysis: Analysis) -> exp.Expr:
    """Numbers with BigQuery's types: whole ones 64 bits wide, others binary floating point."""
    parent = node.parent
    if node.is_string or isinstance(parent, (exp.Cast, exp.DataTypeParam)):
        return node
    if node.is_int:
        return as_type(node, "BIGINT") if isinstance(parent, _ARITHMETIC) else node
    if isinstance(parent, exp.Binary):
        other = parent.expression if parent.this is node else parent.this
        if analysis.type_of(other) in ("NUMERIC", "BIGNUMERIC"):
            return node  # BigQuery coerces the literal to its neighbour's type
    return as_type(node, "DOUBLE")


_TEXT_MACROS = {
    "BYTES": "decode",
    "FLOAT64": "retl_float_text",
    "NUMERIC": "retl_numeric_text",
}


def _cast(node: exp.Cast, analysis: Analysis) -> exp.Expr:  # noqa: C901 - cases
    """CAST and SAFE_CAST to and from the types that DuckDB does not have."""
    dtype: exp.DataType = node.to
    safe = isinstance(node, exp.TryCast)
    source = analysis.type_of(node.this)
    value: exp.Expr = node.this
    if source == "BIGNUMERIC" and dtype.this != exp.DType.BIGDECIMAL:
        text = dtype.this in (exp.DType.TEXT, exp.DType.VARCHAR)
        value = call("retl_bignumeric_text" if text else "retl_numeric", value)
        node.set("this", value)
    if dtype.this == exp.DType.BIGDECIMAL:
        if source == "BIGNUMERIC":
            return value
        value = without_exponent(value)
        return call("retl_safe_bignumeric" if safe else "retl_bignumeric", value)
    if dtype.this == exp.DType.GEOGRAPHY:
        return call("retl_geography", value)
    if dtype.this == exp.DType.RANGE:
        element = column_of("", dtype.expressions[0]).kind
        return call(f"retl_range_{element.lower()}", value)
    if dtype.this == exp.DType.INTERVAL and isinstance(value, exp.Literal):
        return _interval_literal(value.name)
    if dtype.this in (exp.DType.TEXT, exp.DType.VARCHAR) and source in _TEXT_MACROS:
        return call(_TEXT_MACROS[source], value)
    if dtype.this == exp.DType.BIGINT and source == "FLOAT64":
        node.set("this", exp.Round(this=value))  # half away from zero, not to even
    if dtype.this in (exp.DType.BINARY, exp.DType.VARBINARY) and source == "STRING":
        return call("encode", value)
    if dtype.this not in (exp.DType.JSON, exp.DType.INTERVAL):
        canonical = duckdb_type(column_of("", dtype))
        node.set("to", exp.DataType.build(canonical, dialect="duckdb", udt=True))
    return node


def _function(node: exp.Expr, analysis: Analysis) -> exp.Expr:  # noqa: C901, PLR0912 - cases
    """Functions whose translation would have another type or value."""
    if isinstance(node, (exp.UnixSeconds, exp.UnixMillis, exp.UnixMicros)):
        micros = call("epoch_us", as_type(node.this, "TIMESTAMPTZ"))
        unit = {exp.UnixSeconds: 1_000_000, exp.UnixMillis: 1_000}.get(type(node))
        return call("retl_floor", micros, exp.Literal.number(unit)) if unit else micros
    if isinstance(node, (exp.DateAdd, exp.DateSub, exp.DateTrunc)):
        return as_type(node, "DATE") if analysis.type_of(node.this) == "DATE" else node
    if isinstance(node, (exp.UnixToTime, exp.StrToTime)):
        return as_type(node, "TIMESTAMPTZ") if _says(node, "TIMESTAMP") else node
    if isinstance(node, exp.Extract) and node.this.name.upper() == "DAYOFWEEK":
        # DuckDB's Sunday is 0, BigQuery's 1.
        return exp.Paren(this=exp.Add(this=node, expression=exp.Literal.number(1)))
    if isinstance(node, exp.SafeFunc):
        raise unsupported("the SAFE. prefix of functions")
    if isinstance(node, exp.CurrentDatetime):
        return as_type(exp.CurrentTimestamp(), "TIMESTAMP")
    if isinstance(node, exp.JSONFormat):
        if _says(node, "TO_JSON_STRING"):
            return as_type(call("to_json", _json_value(node.this, analysis)), "VARCHAR")
        return call("to_json", _json_value(node.this, analysis))
    if isinstance(node, exp.JSONKeyValue):
        node.set("expression", _json_value(node.expression, analysis))
        return node
    if isinstance(node, exp.Format):
        return call("printf", node.this, *node.expressions)
    if isinstance(node, exp.Anonymous):
        name = node.name.upper()
        if name in _RENAMED:
            return call(_RENAMED[name], *node.expressions)
        if name.startswith("ST_"):
            raise unsupported(f"the function {name}")
    return node


def _says(node: exp.Expr, text: str) -> bool:
    """Whether the function was written with a name that has `text` in it."""
    return text in str(node.meta.get("bigquery_name", "")).upper()


_JSON_MACROS = {
    "DATETIME": "retl_json_datetime",
    "TIMESTAMP": "retl_json_timestamp",
    "NUMERIC": "retl_json_numeric",
    "BIGNUMERIC": "retl_json_bignumeric",
    "GEOGRAPHY": "retl_geography_text",
}


def _json_value(node: exp.Expr, analysis: Analysis) -> exp.Expr:
    """A value inside JSON, where BigQuery writes times in ISO 8601, at any depth."""
    shape = analysis.shape_of(node)
    if shape is None:
        kind = analysis.type_of(node)
        return call(_JSON_MACROS[kind], node) if kind in _JSON_MACROS else node
    try:
        return _json_shaped(node, column_of("", shape), 0)
    except (LocalError, KeyError, AttributeError):
        return node  # a type that sqlglot knows in part only


def _json_shaped(value: exp.Expr, column: Column, depth: int) -> exp.Expr:
    """The value with what JSON writes otherwise replaced; itself when there is nothing."""
    if column.repeated:
        item = f"retl_x{depth}"
        body = _json_shaped(exp.column(item), column.element, depth + 1)
        if isinstance(body, exp.Column):
            return value
        function = exp.Lambda(this=body, expressions=[exp.to_identifier(item)])
        return call("list_transform", value, function)
    if column.kind == "STRUCT":
        parts = []
        for field in column.fields:
            part = exp.Dot(this=exp.Paren(this=value.copy()), expression=_name(field.name))
            shaped = _json_shaped(part, field, depth)
            parts.append(exp.PropertyEQ(this=_name(field.name), expression=shaped))
        filled = exp.Struct(expressions=parts)
        empty = exp.Is(this=value.copy(), expression=exp.Null())
        return exp.Case(ifs=[exp.If(this=empty, true=exp.Null())], default=filled)
    macro = _JSON_MACROS.get(column.kind)
    return call(macro, value) if macro else value


def _name(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


_CANONICAL_INTERVAL = re.compile(
    r"^(?:(?P<sign>[-+]?)(?P<years>\d+)-(?P<months>\d+))?\s*"
    r"(?:(?P<days>[-+]?\d+)(?=\s|$))?\s*(?P<time>[-+]?\d+:\d+(?::\d+(?:\.\d+)?)?)?$"
)


def _interval(node: exp.Interval) -> exp.Expr:
    """INTERVAL 'Y-M D H:M:S' X TO Y; with a single unit, sqlglot's translation is right."""
    if isinstance(node.unit, exp.IntervalSpan) and isinstance(node.this, exp.Literal):
        return _interval_literal(node.this.name)
    return node


def _interval_literal(text: str) -> exp.Expr:
    found = _CANONICAL_INTERVAL.match(text.strip())
    if not found:
        raise invalid_query(f"Invalid INTERVAL value '{text}'")
    months = 12 * int(found["years"] or 0) + int(found["months"] or 0)
    months = -months if found["sign"] == "-" else months
    parts = f"{months} months {int(found['days'] or 0)} days {found['time'] or '00:00:00'}"
    return as_type(exp.Literal.string(parts), "INTERVAL")
