"""A resolved BigQuery statement -> the SQL that DuckDB runs.

Walks a tree from its leaves up; what stands for each node is decided in expressions.py.
"""

from __future__ import annotations

from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from pipeline.local.bigquery.analysis import Analysis
from pipeline.local.bigquery.errors import from_sqlglot
from pipeline.local.bigquery.expressions import replacement_of
from pipeline.local.bigquery.sql import TableName, schema_name


def table_sql(name: TableName) -> str:
    """A table's name in DuckDB, quoted."""
    table = exp.table_(name.table, db=schema_name(name.project, name.dataset), quoted=True)
    return str(table.sql("duckdb"))


def name_outputs(statement: exp.Expr) -> None:
    """Give unnamed columns the names that BigQuery gives them: f0_, f1_, ..."""
    for select in list(statement.find_all(exp.Select)):
        unnamed = 0
        named = []
        for item in select.expressions:
            if isinstance(item, (exp.Alias, exp.Column, exp.Star, exp.Dot)) or item.is_star:
                named.append(item)
            else:
                named.append(exp.alias_(item, f"f{unnamed}_", quoted=True, copy=False))
                unnamed += 1
        select.set("expressions", named)


def to_duckdb(tree: exp.Expr, analysis: Analysis) -> str:
    """DuckDB's SQL of a resolved query or expression. The tree is not changed.

    Raises LocalError for what has no counterpart.
    """
    root = tree.copy()
    for node in reversed(list(root.bfs())):  # children before parents, each once
        parent, key, index = node.parent, node.arg_key, node.index
        replacement = replacement_of(node, analysis)
        if replacement is node:
            continue
        analysis.inherit(replacement, node)
        if parent is None or key is None:
            root = replacement
        else:
            parent.set(key, replacement, index)
    try:
        return str(root.sql("duckdb", unsupported_level=ErrorLevel.RAISE))
    except SqlglotError as error:
        raise from_sqlglot(error) from error
