"""Query variables: `{{last_sync_time}}` and `{{last_sync_timestamp}}`.

A variable is a bare name between two pairs of braces; all other braces (JSON, regular
expressions, `{{customer.name}}`) are the query's own and stay as they are. Also knows the form
that works for the two type errors that comparing with a variable runs into. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from pipeline.errors import ConfigError

VARIABLES: Mapping[str, str] = {
    "last_sync_time": "Unix seconds (INT64) at which the last completed run's query started",
    "last_sync_timestamp": "the same time as a TIMESTAMP",
}
"""The known variables and what they stand for."""

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}", re.ASCII)

# Two wordings of one error: on one line, and with a line per signature.
_NO_SIGNATURE = re.compile(
    r"No matching signature for (?:operator|function) (\S+)"
    r"\s+(?:for argument types|Argument types): ([A-Z0-9_]+(?:, [A-Z0-9_]+)*)"
)
_COMPARISONS = ("=", "!=", "<>", "<", "<=", ">", ">=")
_TO_UNIX = ("UNIX_SECONDS", "UNIX_MILLIS", "UNIX_MICROS")


def check(query: str) -> list[str]:
    """Names of the unknown variables, each once, in order of appearance."""
    names = dict.fromkeys(match[1] for match in _VARIABLE.finditer(query))
    return [name for name in names if name not in VARIABLES]


def render(query: str, *, last_sync_time: int, lookback: int = 0) -> str:
    """The query with its variables replaced.

    last_sync_time: Unix seconds, 0 for everything. lookback: seconds that the query looks
    further back; the result never goes below 0. Raises ConfigError for an unknown variable.
    """
    unknown = check(query)
    if unknown:
        raise ConfigError("\n".join(_unknown(name) for name in unknown))
    start = max(0, int(last_sync_time) - int(lookback))
    texts = {
        "last_sync_time": str(start),
        "last_sync_timestamp": f"TIMESTAMP_SECONDS({start})",
    }
    return _VARIABLE.sub(lambda match: texts[match[1]], query)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), VARIABLES, n=1)
    meant = f" Did you mean {{{{{near[0]}}}}}?" if near else ""
    known = " and ".join(f"{{{{{one}}}}}" for one in VARIABLES)
    return f"{{{{{name}}}}} is not a variable of queries.{meant} There are {known}."


def hint(message: str) -> str | None:
    """The form that works, for BigQuery's complaint about types around a variable.

    None for every other message.
    """
    match = _NO_SIGNATURE.search(message)
    if match is None:
        return None
    name, types = match[1], match[2].split(", ")
    if name in _TO_UNIX:
        if types[0] not in {"DATETIME", "DATE"}:
            return None
        return f"{name} takes a TIMESTAMP: write `{name}(TIMESTAMP(column))`."
    times = [kind for kind in types if kind in {"TIMESTAMP", "DATETIME", "DATE"}]
    comparison = name in _COMPARISONS or name == "BETWEEN"
    if not comparison or not times or "INT64" not in types:
        return None
    operator = name if name in _COMPARISONS else ">="
    column = "column" if times[0] == "TIMESTAMP" else "TIMESTAMP(column)"
    text = (
        f"{{{{last_sync_time}}}} is an INT64: write `UNIX_SECONDS({column}) {operator} "
        f"{{{{last_sync_time}}}}` or `{column} {operator} {{{{last_sync_timestamp}}}}`."
    )
    if times[0] == "TIMESTAMP":
        text += (
            f" For a column of Unix seconds, write `column {operator} {{{{last_sync_time}}}}`."
            if types[0] == "INT64"
            else ""
        )
    return text
