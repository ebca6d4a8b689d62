"""Whether a query asks for an order: ORDER BY at its top level, in GoogleSQL.

Only one read stream keeps an order, so the answer decides how many streams a read gets. Strings,
quoted names, comments and what stands in brackets (subqueries, OVER, ARRAY_AGG) don't count. Pure
text: no SQL parser. A statement that is no valid SQL gets an arbitrary answer, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

# A backslash keeps the next character from ending a string, in raw strings too. Lexical rules:
# https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical
_TOKENS = re.compile(
    r"""
      (?P<comment> --[^\n]* | \#[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string>
          \"{3} (?: \\. | . )*? (?: \"{3} | \Z )
        | '{3} (?: \\. | . )*? (?: '{3} | \Z )
        | \" (?: \\. | [^"\\] )* \"?
        | ' (?: \\. | [^'\\] )* '?
        | ` (?: \\. | [^`\\] )* `?
      )
    | (?P<word> \w+ )
    | (?P<mark> [^\s] )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"


def is_ordered(sql: str) -> bool:
    """Whether the rows of this query's result come in an order that the query asks for."""
    tokens = _tokens(sql)
    while tokens and tokens[-1] == ";":
        tokens.pop()
    while tokens:
        top, start = _top(tokens)
        if ("ORDER", "BY") in pairwise(top):
            return True
        # The query itself in brackets, alone or after WITH: `(SELECT ...)`, `WITH a AS (...) (...)`
        if top != ["(", ")"] and not (top[:1] == ["WITH"] and top[-3:] == [")", "(", ")"]):
            return False
        tokens = tokens[start + 1 : -1]
    return False


def _tokens(sql: str) -> list[str]:
    """Words in upper case, and marks; a string, like any value, is a mark of its own."""
    found = []
    for match in _TOKENS.finditer(sql):
        if match.lastgroup == "word":
            found.append(match[0].upper())
        elif match.lastgroup == "string":
            found.append("''")
        elif match.lastgroup == "mark":
            found.append(match[0])
    return found


def _top(tokens: Sequence[str]) -> tuple[list[str], int]:
    """What is outside of brackets, a group being its two brackets; where the last group begins."""
    top: list[str] = []
    depth, start = 0, 0
    for index, token in enumerate(tokens):
        if token in _CLOSING:
            depth = max(0, depth - 1)
        if depth == 0:
            top.append(token)
            start = index if token in _OPENING else start
        if token in _OPENING:
            depth += 1
    return top, start
