"""What no key can tell by itself: syncs name things that exist and have the query they need.

Looks at the plain mappings of the file, valid or not, so that these faults appear together with
all others. Names keys and known names, never values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pipeline.config.faults import Path, Problem, choose, listed, nearest
from pipeline.encode.places import read_constants
from pipeline.model import Call
from pipeline.source import template

_NOTHING: Mapping[Path, str] = {}

# What says what is read, and what belongs to one way of reading only.
_READ = ("query", "query_file", "table")
_OF_A_TABLE = ("row_restriction", "selected_fields", "snapshot_time")
_OF_A_QUERY = ("parameters", "variables")


def check(data: Mapping[str, object], filled: Mapping[Path, str] = _NOTHING) -> list[Problem]:
    """The faults between sources, destinations and syncs; of malformed parts, none.

    filled: the text that was written where a value came, in part or whole, from the
        environment: only words of this text may appear in a message.
    """
    sources = _mapping(data.get("sources"))
    destinations = list(_mapping(data.get("destinations")))
    problems: list[Problem] = []
    for name, sync in _mapping(data.get("syncs")).items():
        keys = _mapping(sync)
        path: Path = ("syncs", name)
        source = keys.get("source")
        if isinstance(source, str) and source not in sources:
            here = (*path, "source")
            problems.append(_unknown("source", here, source, list(sources), filled))
        wanted = keys.get("destinations")
        for index, destination in enumerate(wanted if isinstance(wanted, list) else ()):
            if isinstance(destination, str) and destination not in destinations:
                here = (*path, "destinations", index)
                problems.append(_unknown("destination", here, destination, destinations, filled))
        kind = _mapping(sources.get(source)).get("type") if isinstance(source, str) else None
        problems += _query(path, keys, kind)
        problems += _constants(path, keys)
        own = list(_mapping(keys.get("variables")))
        for key in ("query", "row_restriction"):
            text, here = keys.get(key), (*path, key)
            if isinstance(text, str):
                problems += variables(here, text, filled.get(here, text), own)
    return problems


def variables(path: Path, query: str, written: str, own: Collection[str] = ()) -> list[Problem]:
    """Unknown variables in a query. written: what of it stands in the file. own: the sync's."""
    known = sorted({*template.VARIABLES, *own})
    problems: list[Problem] = []
    for name in template.check(query, own):
        if name in template.check(written, own):
            near = nearest(name, known)
            start = f"Did you mean `{{{{{near}}}}}`? " if near else ""
            what = f"`{{{{{name}}}}}` is not a variable of queries."
        else:
            start, what = "", "An inserted value holds an unknown `{{variable}}`."
        remedy = f"{start}Use {listed(f'{{{{{one}}}}}' for one in known)}."
        problems.append(Problem(path, what, remedy))
    return problems


def _unknown(
    kind: str, path: Path, name: str, known: Sequence[str], filled: Mapping[Path, str]
) -> Problem:
    shown = "" if path in filled else f" called `{name}`"
    remedy = choose(name, known) if known else f"Declare it under `{kind}s`."
    return Problem(path, f"There is no {kind}{shown}.", remedy)


def _query(path: Path, keys: Mapping[str, object], kind: object) -> list[Problem]:
    """The rules of what is read, for a kind of source."""
    given = [key for key in _READ if keys.get(key) is not None]
    if kind == "file":
        found = [*given, *(key for key in (*_OF_A_TABLE, *_OF_A_QUERY) if keys.get(key))]
        remedy = "Remove it, or use a `bigquery` source."
        return [Problem((*path, key), f"A file source takes no `{key}`.", remedy) for key in found]
    if len(given) > 1:
        what = f"`{given[0]}` and `{given[1]}` are both given."
        return [Problem((*path, given[1]), what, "Keep one of them.")]
    if not given and kind == "bigquery":
        what = "`query` is missing."
        remedy = "Add `query`, or `query_file` with its path, or `table`."
        return [Problem((*path, "query"), what, remedy)]
    query = keys.get("query")
    if isinstance(query, str) and not query.strip():
        return [Problem((*path, "query"), "The query is empty.", "Write a SELECT.")]
    if given == ["table"]:
        remedy = "Put the value into `row_restriction`, or use `query`."
        odd = [key for key in ("parameters",) if keys.get(key)]
        return [Problem((*path, key), f"A `table` takes no `{key}`.", remedy) for key in odd]
    remedy = "Use `table`, or say it in the query."
    odd = [key for key in _OF_A_TABLE if keys.get(key)]
    return [Problem((*path, key), f"A query takes no `{key}`.", remedy) for key in odd]


def _constants(path: Path, keys: Mapping[str, object]) -> list[Problem]:
    """Constants that no call could carry, or not this one."""
    call = keys.get("call")
    if call not in list(Call):
        return []
    found = read_constants(Call(str(call)), _mapping(keys.get("constants")))
    return [
        Problem((*path, "constants", *flaw.keys), flaw.what, flaw.remedy) for flaw in found.flaws
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
