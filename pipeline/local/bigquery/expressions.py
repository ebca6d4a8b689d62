"""What stands, in DuckDB, for one node of a BigQuery tree: casts, functions, literals, JSON.

sqlglot's generator does the bulk. Here is what it gets wrong or can't know: types that DuckDB does
not have (types.py), exactness of numbers and times, and functions whose result would have another
type than BigQuery's. Macros (macros.py) do at run time what a tree can't say.
"""

from __future__ import annotations

import re

from sqlglot import exp

from pipeline.local.bigquery.analysis import Analysis
from pipeline.local.bigquery.errors import LocalError, invalid_query, unsupported
from pipeline.local.bigquery.sql import column_of, schema_name
from pipeline.local.bigquery.types import Column, duckdb_type

_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.IntDiv, exp.Neg)
_NUMERICAL = (*_ARITHMETIC, exp.Abs, exp.Round, exp.Sum, exp.Avg, exp.Floor, exp.Ceil)
_COMPARED = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
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


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _as(node: exp.Expr, dtype: str) -> exp.Expr:
    return exp.Cast(this=node, to=exp.DataType.build(dtype, dialect="duckdb"))


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
    if isinstance(node, exp.Literal):
        return _literal(node, analysis)
    if isinstance(node, exp.ByteString):
        # The tokenizer made characters of \xHH; a literal with others is text in UTF-8.
        narrow = all(ord(character) < 256 for character in node.name)
        data = node.name.encode("latin-1" if narrow else "utf-8")
        return _call("from_hex", exp.Literal.string(data.hex()))
    if isinstance(node, exp.Interval):
        return _interval(node)
    if isinstance(node, exp.Cast):
        return _cast(node, analysis)
    if isinstance(node, exp.Div):
        node = _division(node, analysis)
    if isinstance(node, (*_NUMERICAL, *_COMPARED)):
        return _bignumeric_operation(node, analysis)
    if isinstance(node, _MIXING):
        _align(node, analysis)
        return node
    if isinstance(node, (exp.Parameter, exp.SessionParameter)):
        raise unsupported("query parameters and system variables")
    return _function(node, analysis)


def _literal(node: exp.Literal, analysis: Analysis) -> exp.Expr:
    """Numbers with BigQuery's types: whole ones 64 bits wide, others binary floating point."""
    parent = node.parent
    if node.is_string or isinstance(parent, (exp.Cast, exp.DataTypeParam)):
        return node
    if node.is_int:
        return _as(node, "BIGINT") if isinstance(parent, _ARITHMETIC) else node
    if isinstance(parent, exp.Binary):
        other = parent.expression if parent.this is node else parent.this
        if analysis.type_of(other) in ("NUMERIC", "BIGNUMERIC"):
            return node  # BigQuery coerces the literal to its neighbour's type
    return _as(node, "DOUBLE")


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
        value = _call("retl_bignumeric_text" if text else "retl_numeric", value)
        node.set("this", value)
    if dtype.this == exp.DType.BIGDECIMAL:
        if source == "BIGNUMERIC":
            return value
        return _call("retl_safe_bignumeric" if safe else "retl_bignumeric", value)
    if dtype.this == exp.DType.GEOGRAPHY:
        return _call("retl_geography", value)
    if dtype.this == exp.DType.RANGE:
        element = column_of("", dtype.expressions[0]).kind
        return _call(f"retl_range_{element.lower()}", value)
    if dtype.this == exp.DType.INTERVAL and isinstance(value, exp.Literal):
        return _interval_literal(value.name)
    if dtype.this in (exp.DType.TEXT, exp.DType.VARCHAR) and source in _TEXT_MACROS:
        return _call(_TEXT_MACROS[source], value)
    if dtype.this == exp.DType.BIGINT and source == "FLOAT64":
        node.set("this", exp.Round(this=value))  # half away from zero, not to even
    if dtype.this in (exp.DType.BINARY, exp.DType.VARBINARY) and source == "STRING":
        return _call("encode", value)
    if dtype.this not in (exp.DType.JSON, exp.DType.INTERVAL):
        canonical = duckdb_type(column_of("", dtype))
        node.set("to", exp.DataType.build(canonical, dialect="duckdb", udt=True))
    return node


def _bignumeric_operation(node: exp.Expr, analysis: Analysis) -> exp.Expr:
    """Comparisons of BIGNUMERIC exactly; arithmetic at NUMERIC's precision."""
    operands = [key for key in ("this", "expression") if isinstance(node.args.get(key), exp.Expr)]
    big = [analysis.type_of(node.args[key]) == "BIGNUMERIC" for key in operands]
    if not any(big):
        return node
    if isinstance(node, _COMPARED):
        for key, is_big in zip(operands, big, strict=True):
            if not is_big:
                node.set(key, _call("retl_bignumeric", node.args[key]))
        return node
    for key, is_big in zip(operands, big, strict=True):
        if is_big:
            node.set(key, _call("retl_numeric", node.args[key]))
    return _call("retl_bignumeric", node)


def _division(node: exp.Expr, analysis: Analysis) -> exp.Expr:
    """Division that refuses zero, and stays NUMERIC where BigQuery's does."""
    kinds = {analysis.type_of(node.this), analysis.type_of(node.expression)}
    sides = [
        _call("retl_numeric", side) if analysis.type_of(side) == "BIGNUMERIC" else side
        for side in (node.this, node.expression)
    ]
    divided = _call("retl_divide", *sides)
    if "BIGNUMERIC" in kinds and "FLOAT64" not in kinds:
        return _call("retl_bignumeric", _as(divided, "DECIMAL(38, 9)"))
    if "NUMERIC" in kinds and "FLOAT64" not in kinds:
        return _as(divided, "DECIMAL(38, 9)")
    return divided


def _align(node: exp.Expr, analysis: Analysis) -> None:
    """Make the numbers beside a BIGNUMERIC, in places that need one type, BIGNUMERIC too."""
    if isinstance(node, exp.Case):
        values = [branch.args.get("true") for branch in node.args["ifs"]]
        values.append(node.args.get("default"))
    elif isinstance(node, exp.If):
        values = [node.args.get("true"), node.args.get("false")]
    else:
        values = [node.this, *node.expressions]
        values += [node.args.get(key) for key in ("expression", "low", "high")]
    kinds = [analysis.type_of(value) for value in values]
    if "BIGNUMERIC" not in kinds:
        return
    for value, kind in zip(values, kinds, strict=True):
        if value is not None and kind in ("INT64", "NUMERIC", "FLOAT64"):
            value.replace(_call("retl_bignumeric", value.copy()))


def _function(node: exp.Expr, analysis: Analysis) -> exp.Expr:  # noqa: C901, PLR0912 - cases
    """Functions whose translation would have another type or value."""
    if isinstance(node, (exp.UnixSeconds, exp.UnixMillis, exp.UnixMicros)):
        micros = _call("epoch_us", _as(node.this, "TIMESTAMPTZ"))
        unit = {exp.UnixSeconds: 1_000_000, exp.UnixMillis: 1_000}.get(type(node))
        return _call("retl_floor", micros, exp.Literal.number(unit)) if unit else micros
    if isinstance(node, (exp.DateAdd, exp.DateSub, exp.DateTrunc)):
        return _as(node, "DATE") if analysis.type_of(node.this) == "DATE" else node
    if isinstance(node, (exp.UnixToTime, exp.StrToTime)):
        return _as(node, "TIMESTAMPTZ") if _says(node, "TIMESTAMP") else node
    if isinstance(node, exp.Extract) and node.this.name.upper() == "DAYOFWEEK":
        # DuckDB's Sunday is 0, BigQuery's 1.
        return exp.Paren(this=exp.Add(this=node, expression=exp.Literal.number(1)))
    if isinstance(node, exp.SafeFunc):
        raise unsupported("the SAFE. prefix of functions")
    if isinstance(node, exp.CurrentDatetime):
        return _as(exp.CurrentTimestamp(), "TIMESTAMP")
    if isinstance(node, exp.JSONFormat):
        if _says(node, "TO_JSON_STRING"):
            return _as(_call("to_json", _json_value(node.this, analysis)), "VARCHAR")
        return _call("to_json", _json_value(node.this, analysis))
    if isinstance(node, exp.JSONKeyValue):
        node.set("expression", _json_value(node.expression, analysis))
        return node
    if isinstance(node, exp.Format):
        return _call("printf", node.this, *node.expressions)
    if isinstance(node, exp.Anonymous):
        name = node.name.upper()
        if name in _RENAMED:
            return _call(_RENAMED[name], *node.expressions)
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
        return _call(_JSON_MACROS[kind], node) if kind in _JSON_MACROS else node
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
        return _call("list_transform", value, function)
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
    return _call(macro, value) if macro else value


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
    return _as(exp.Literal.string(parts), "INTERVAL")
