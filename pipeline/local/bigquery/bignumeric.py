"""BIGNUMERIC, which DuckDB does not have: what becomes of its literals, operations and neighbours.

A value is a struct of two halves (types.py). Comparisons are exact, arithmetic is NUMERIC's.
"""

from __future__ import annotations

import re
from decimal import Decimal

from sqlglot import exp

from pipeline.local.bigquery.analysis import Analysis
from pipeline.local.bigquery.sql import as_type, call

COMPARED = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
"""Nodes that compare two values."""
# Exponents that a BIGNUMERIC may have, not such as would fill the memory.
_WITH_EXPONENT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d{1,2}\s*", re.ASCII | re.IGNORECASE)


def without_exponent(value: exp.Expr) -> exp.Expr:
    """A literal's digits in full: the macro reads an exponent by way of a FLOAT64."""
    if not (isinstance(value, exp.Literal) and _WITH_EXPONENT.fullmatch(value.name)):
        return value
    return exp.Literal.string(f"{Decimal(value.name):f}")


def bignumeric_operation(node: exp.Expr, analysis: Analysis) -> exp.Expr:
    """Comparisons of BIGNUMERIC exactly; arithmetic at NUMERIC's precision."""
    operands = [key for key in ("this", "expression") if isinstance(node.args.get(key), exp.Expr)]
    big = [analysis.type_of(node.args[key]) == "BIGNUMERIC" for key in operands]
    if not any(big):
        return node
    if isinstance(node, COMPARED):
        for key, is_big in zip(operands, big, strict=True):
            if not is_big:
                node.set(key, call("retl_bignumeric", node.args[key]))
        return node
    for key, is_big in zip(operands, big, strict=True):
        if is_big:
            node.set(key, call("retl_numeric", node.args[key]))
    return call("retl_bignumeric", node)


def division(node: exp.Expr, analysis: Analysis) -> exp.Expr:
    """Division that refuses zero, and stays NUMERIC where BigQuery's does."""
    kinds = {analysis.type_of(node.this), analysis.type_of(node.expression)}
    sides = [
        call("retl_numeric", side) if analysis.type_of(side) == "BIGNUMERIC" else side
        for side in (node.this, node.expression)
    ]
    divided = call("retl_divide", *sides)
    if "BIGNUMERIC" in kinds and "FLOAT64" not in kinds:
        return call("retl_bignumeric", as_type(divided, "DECIMAL(38, 9)"))
    if "NUMERIC" in kinds and "FLOAT64" not in kinds:
        return as_type(divided, "DECIMAL(38, 9)")
    return divided


def align(node: exp.Expr, analysis: Analysis) -> None:
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
            value.replace(call("retl_bignumeric", value.copy()))
