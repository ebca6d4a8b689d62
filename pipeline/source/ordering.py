"""Whether a query asks for an order: ORDER BY at its top level, or what stands for it in pipes.

Only one read stream keeps an order, so the answer decides how many streams a read gets. Strings,
quoted names, comments and what stands in brackets (subqueries, OVER, ARRAY_AGG) don't count. A
statement that is no valid SQL gets an arbitrary answer, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pipeline.source.lexical import tokens

_OPENING, _CLOSING = "([{", ")]}"
# In pipe syntax the columns of AGGREGATE and of its GROUP BY may each bring a direction:
# https://cloud.google.com/bigquery/docs/reference/standard-sql/pipe-syntax#aggregate_pipe_operator
_DIRECTIONS = frozenset({"ASC", "DESC"})
_NAMED_BY = frozenset({".", "@"})


def is_ordered(sql: str) -> bool:
    """Whether the rows of this query's result come in an order that the query asks for."""
    left = tokens(sql)
    while left and left[-1] == ";":
        left.pop()
    while left:
        top, start = _top(left)
        if any(_says_order(*pair) for pair in pairwise(top)):
            return True
        # The query itself in brackets, alone or after WITH: `(SELECT ...)`, `WITH a AS (...) (...)`
        if top != ["(", ")"] and not (top[:1] == ["WITH"] and top[-3:] == [")", "(", ")"]):
            return False
        left = left[start + 1 : -1]
    return False


def _says_order(before: str, word: str) -> bool:
    """Whether a word at the top level orders the rows: ORDER BY, or `|> AGGREGATE ... DESC`.

    ASC and DESC are reserved: elsewhere they are only members (`t.desc`) and parameters (`@desc`).
    """
    if word in _DIRECTIONS:
        return before not in _NAMED_BY
    return (before, word) == ("ORDER", "BY")


def _top(left: Sequence[str]) -> tuple[list[str], int]:
    """What is outside of brackets, a group being its two brackets; where the last group begins."""
    top: list[str] = []
    depth, start = 0, 0
    for index, token in enumerate(left):
        if token in _CLOSING:
            depth = max(0, depth - 1)
        if depth == 0:
            top.append(token)
            start = index if token in _OPENING else start
        if token in _OPENING:
            depth += 1
    return top, start
