"""What no key can tell by itself: syncs name things that exist and have the query they need.

Looks at the plain mappings of the file, valid or not, so that these faults appear together with
all others. Names keys and known names, never values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.faults import Path, Problem, choose, listed, nearest
from pipeline.encode.places import read_constants
from pipeline.model import Call
from pipeline.source import template

_NOTHING: Mapping[Path, str] = {}


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
        query = keys.get("query")
        if isinstance(query, str):
            problems += variables((*path, "query"), query, filled.get((*path, "query"), query))
    return problems


def variables(path: Path, query: str, written: str) -> list[Problem]:
    """Unknown variables in a query. written: what of it stands in the file."""
    known = sorted(template.VARIABLES)
    problems: list[Problem] = []
    for name in template.check(query):
        if name in template.check(written):
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
    """The rules of `query` and `query_file` for a kind of source."""
    given = [key for key in ("query", "query_file") if keys.get(key) is not None]
    if kind == "file":
        remedy = "Remove it, or use a `bigquery` source."
        return [Problem((*path, key), f"A file source takes no `{key}`.", remedy) for key in given]
    if len(given) > 1:
        what = "`query` and `query_file` are both given."
        return [Problem((*path, "query_file"), what, "Keep one of them.")]
    if not given and kind == "bigquery":
        what = "`query` is missing."
        return [Problem((*path, "query"), what, "Add `query`, or `query_file` with its path.")]
    query = keys.get("query")
    if isinstance(query, str) and not query.strip():
        return [Problem((*path, "query"), "The query is empty.", "Write a SELECT.")]
    return []


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
