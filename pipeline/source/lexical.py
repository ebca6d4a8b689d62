"""The tokens of GoogleSQL, for the little that has to be known of a query's text.

Strings, quoted names and comments are each one token, so that nothing inside of them counts. Pure
text: no SQL parser. What is no valid SQL gets arbitrary tokens, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# A backslash keeps the next character from ending a string, in raw strings too. Lexical rules:
# https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical
_TOKENS = re.compile(
    r"""
      (?P<comment> --[^\r\n]* | \#[^\r\n]* | /\*.*?(?:\*/|\Z) )
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


_OF_KIND: Mapping[str, Callable[[str], str]] = {"word": str.upper, "string": lambda _: "''"}


def tokens(sql: str) -> list[str]:
    """Words in upper case, and marks; a string, like any value, is a mark of its own: `''`."""
    return [_OF_KIND.get(match.lastgroup or "", str)(match[0]) for match in _meaning(sql)]


def as_subquery(sql: str) -> str:
    """The query in brackets, for the FROM of another: without the semicolons that end it.

    Comments after its last word go too, so that none can swallow what comes next.
    """
    end = 0
    for match in _meaning(sql):
        if match[0] != ";":
            end = match.end()
    return f"({sql[:end]})"


def _meaning(sql: str) -> Iterator[re.Match[str]]:
    """All tokens but comments."""
    return (match for match in _TOKENS.finditer(sql) if match.lastgroup != "comment")
