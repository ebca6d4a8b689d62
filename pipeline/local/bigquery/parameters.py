"""Query parameters: `@name` in a statement becomes a value of its declared type.

Values are put into the tree, never into text, and always under a CAST, so that the analysis sees
their types as BigQuery does. Named parameters of scalar types, STRUCTs, RANGEs, and ARRAYs of
the first two.
Source: QueryParameter in the BigQuery v2 REST reference. Knows no HTTP.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp

from pipeline.local.bigquery.errors import LocalError, invalid_query, unsupported
from pipeline.local.bigquery.sql import at

_INT64 = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_SCALARS = frozenset(
    {
        *("STRING", "INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "BOOL", "BYTES", "JSON"),
        *("DATE", "TIME", "DATETIME", "TIMESTAMP", "INTERVAL"),
    }
)
_OTHER_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def read(configuration: Mapping[str, Any]) -> Mapping[str, exp.Expr]:
    """The parameters of a query's configuration: lower-case name -> its value.

    Raises LocalError for what is malformed or can't be had here.
    """
    given: Sequence[Mapping[str, Any]] = configuration.get("queryParameters") or ()
    if given and str(configuration.get("parameterMode") or "NAMED").upper() != "NAMED":
        raise unsupported("positional query parameters")
    found: dict[str, exp.Expr] = {}
    for each in given:
        name = str(each.get("name") or "")
        if not name:
            raise unsupported("positional query parameters")
        if name.lower() in found:
            raise LocalError("invalid", f"Duplicate parameter name: {name}")
        found[name.lower()] = _value(name, each.get("parameterType"), each.get("parameterValue"))
    return found


def bind(statement: exp.Expr, values: Mapping[str, exp.Expr], sql: str) -> exp.Expr:
    """The statement with its parameters replaced. Raises LocalError for one that is not given."""

    def replaced(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Placeholder):
            raise invalid_query("Positional parameters are not supported", at(node, sql))
        if not isinstance(node, exp.Parameter):
            return node
        value = values.get(node.name.lower())
        if value is None:
            raise invalid_query(f"Query parameter '{node.name}' not found", at(node, sql))
        if isinstance(node.parent, exp.Unnest) and not node.parent.args.get("offset"):
            # As sqlglot's parser does for arrays of which it knows that they hold STRUCTs.
            node.parent.set("explode_array", _holds_structs(value))
        return value.copy()

    return statement.transform(replaced)


def _holds_structs(value: exp.Expr) -> bool:
    """Whether UNNEST makes columns of the fields of its elements."""
    element = value.to.expressions if isinstance(value, exp.Cast) else ()
    return any(each.is_type(exp.DType.STRUCT) for each in element)


def _value(name: str, dtype: Any, value: Any) -> exp.Expr:
    kind, value = _kind(dtype), value or {}
    if kind == "STRUCT":
        return _struct(name, dtype, value)
    if kind == "RANGE":
        element = _kind(dtype.get("rangeElementType"))
        ends = value.get("rangeValue") or {}
        start, end = ((ends.get(at) or {}).get("value") or "UNBOUNDED" for at in ("start", "end"))
        return _cast(exp.Literal.string(f"[{start}, {end})"), f"RANGE<{element}>")
    if kind != "ARRAY":
        return _scalar(name, kind, value.get("value"))
    element = _named(dtype.get("arrayType"))
    values = [_value(name, dtype.get("arrayType"), each) for each in value.get("arrayValues") or ()]
    return _cast(exp.Array(expressions=values), f"ARRAY<{element}>")


def _struct(name: str, dtype: Any, value: Any) -> exp.Expr:
    given = value.get("structValues") or {}
    fields = [
        exp.PropertyEQ(
            this=exp.to_identifier(field["name"]),
            expression=_value(name, field["type"], given.get(field["name"])),
        )
        for field in dtype.get("structTypes") or ()
    ]
    return exp.Struct(expressions=fields)


def _named(dtype: Any) -> str:
    """The type of an ARRAY's elements, as SQL names it."""
    kind = _kind(dtype)
    if kind in {"ARRAY", "RANGE"}:
        raise unsupported(f"query parameters of type ARRAY<{kind}>")
    if kind != "STRUCT":
        return kind
    fields = ((field["name"], field["type"]) for field in dtype.get("structTypes") or ())
    return f"STRUCT<{', '.join(f'{name} {_named(each)}' for name, each in fields)}>"


def _cast(value: exp.Expr, kind: str) -> exp.Expr:
    return exp.Cast(this=value, to=exp.DataType.build(kind, dialect="bigquery"))


def _kind(dtype: Any) -> str:
    kind = str((dtype or {}).get("type") or "").upper()
    kind = _OTHER_NAMES.get(kind, kind)
    if kind not in _SCALARS and kind not in {"ARRAY", "STRUCT", "RANGE"}:
        raise unsupported(f"query parameters of type {kind or 'unknown'}")
    return kind


def _scalar(name: str, kind: str, value: object) -> exp.Expr:
    to = exp.DataType.build(kind, dialect="bigquery")
    if value is None:
        return exp.Cast(this=exp.Null(), to=to)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not _fits(kind, text):
        raise LocalError("invalid", f"Invalid value for parameter {name}: not of type {kind}")
    if kind == "BYTES":
        return exp.FromBase64(this=exp.Literal.string(text))
    if kind == "JSON":
        return exp.ParseJSON(this=exp.Literal.string(text))
    return exp.Cast(this=exp.Literal.string(text), to=to)


def _fits(kind: str, text: str) -> bool:
    """Whether the text is plainly of the kind, of those that a cast would take more for."""
    if kind == "INT64":
        return _INT64.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63
    if kind == "BOOL":
        return text.lower() in {"true", "false"}
    if kind == "BYTES":
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return False
    return True
