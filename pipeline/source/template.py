"""Query variables: `{{last_sync_time}}`, `{{last_sync_timestamp}}`, and a sync's own.

A variable is a bare name between two pairs of braces; all other braces (JSON, regular
expressions, `{{customer.name}}`) are the query's own and stay as they are. A sync's own variables
are put in as text, for what can be no parameter (part of a table's name), and so hold only what
can't end a name or begin a comment. Also knows the form that works for the two type errors that
comparing with a variable runs into. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from pipeline.errors import ConfigError

VARIABLES: Mapping[str, str] = {
    "last_sync_time": "Unix seconds (INT64) at which the last completed run's query started",
    "last_sync_timestamp": "the same time as a TIMESTAMP",
}
"""The known variables and what they stand for."""

UNSAFE = (
    "A variable holds only letters, digits, `_`, `-` and `.`, and no `--`. For all other values "
    "use `parameters`: `@name` in the query."
)
"""What to say of text that is not `is_safe`."""

_NONE: Mapping[str, str] = {}
_SAFE = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}", re.ASCII)

# Two wordings of one error: on one line, and with a line per signature.
_NO_SIGNATURE = re.compile(
    r"No matching signature for (?:operator|function) (\S+)"
    r"\s+(?:for argument types|Argument types): ([A-Z0-9_]+(?:, [A-Z0-9_]+)*)"
)
_COMPARISONS = ("=", "!=", "<>", "<", "<=", ">", ">=")
_TO_UNIX = ("UNIX_SECONDS", "UNIX_MILLIS", "UNIX_MICROS")


def check(query: str, own: Iterable[str] = ()) -> list[str]:
    """Names of the unknown variables, each once, in order of appearance. own: the sync's."""
    names = dict.fromkeys(match[1] for match in _VARIABLE.finditer(query))
    known = {*VARIABLES, *own}
    return [name for name in names if name not in known]


def is_safe(text: str) -> bool:
    """Whether a sync's own variable may have this text: it can't end a name, or be a comment."""
    return _SAFE.fullmatch(text) is not None and "--" not in text


def render(
    query: str,
    *,
    last_sync_time: int,
    lookback: int = 0,
    variables: Mapping[str, str] = _NONE,
) -> str:
    """The query with its variables replaced.

    last_sync_time: Unix seconds, 0 for everything. lookback: seconds that the query looks
    further back; the result never goes below 0. variables: the sync's own; each `is_safe`.
    Raises ConfigError for an unknown variable, and for text that is not safe.
    """
    unsafe = [name for name, text in variables.items() if not is_safe(text)]
    unknown = [_unknown(name, variables) for name in check(query, variables)]
    if unknown or unsafe:
        raise ConfigError("\n".join([*unknown, *(f"{{{{{n}}}}}: {UNSAFE}" for n in unsafe)]))
    start = max(0, int(last_sync_time) - int(lookback))
    texts = {
        **variables,
        "last_sync_time": str(start),
        "last_sync_timestamp": f"TIMESTAMP_SECONDS({start})",
    }
    return _VARIABLE.sub(lambda match: texts[match[1]], query)


def _unknown(name: str, own: Iterable[str]) -> str:
    names = [*VARIABLES, *own]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    meant = f" Did you mean {{{{{near[0]}}}}}?" if near else ""
    braced = [f"{{{{{one}}}}}" for one in names]
    known = f"{', '.join(braced[:-1])} and {braced[-1]}"
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
