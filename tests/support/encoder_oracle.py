"""What a row's payload must be, slowly and obviously: one row at a time, by the documents.

The tables of docs/architecture.md are written down again here; values are value_oracle.py's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from arrow_strategies import Column, Kind
from value_oracle import (
    Tokens,
    commas,
    escaped,
    formed,
    is_json,
    iso_of_seconds,
    key,
    one_line,
    scalar,
    whole,
)

_WHO = ["userId", "anonymousId"]
FIELDS: Mapping[str, list[str]] = {
    "identify": _WHO,
    "track": [*_WHO, "groupId", "event"],
    "group": ["groupId", *_WHO, "objectTypeId"],
    "page": [*_WHO, "name"],
    "screen": [*_WHO, "name"],
    "alias": ["previousId", "userId"],
}
TIMES_ON_TOP = ["timestamp", "originalTimestamp"]
OBJECTS = ["context", "integrations"]
REST = {"identify": "traits", "group": "traits", "track": "properties", "page": "properties",
        "screen": "properties", "alias": None}  # fmt: skip
EVENTS = {"track", "page", "screen"}
MISSING = {
    "identify": [(_WHO, "missing_id")],
    "track": [([*_WHO, "groupId"], "missing_id"), (["event"], "missing_event")],
    "group": [(["groupId"], "missing_group_id")],
    "page": [(_WHO, "missing_id")],
    "screen": [(_WHO, "missing_id")],
    "alias": [(["previousId"], "missing_previous_id"), (["userId"], "missing_id")],
}
LIMITED_IDS = ["userId", "anonymousId", "groupId", "previousId"]
# Of several reasons the first counts.
REASONS = [
    "missing_id",
    "empty_id",
    "id_too_long",
    "missing_event",
    "missing_group_id",
    "missing_previous_id",
    "invalid_json",
    "invalid_number",
]


@dataclass(frozen=True)
class Case:
    """Columns, and what the configuration makes of them.

    renames: column -> place, or None to drop it. forms: column -> its `as`.
    json: names of STRINGs that hold JSON. id_bytes: the longest id.
    """

    call: str
    columns: tuple[Column, ...]
    rows: int
    renames: Mapping[str, str | None] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    json: frozenset[str] = frozenset()
    times: str = "unix"
    omit: bool = False
    id_bytes: int | None = None

    @property
    def event(self) -> bool:
        """Whether each row is an event of its own."""
        return self.call in EVENTS


class Row:
    """What becomes of one row.

    top: the text of each string field that is there, empty text too. objects: their members, in
    order, as tokens, None for null, or an object. spreads: the objects that JSON columns give.
    """

    def __init__(self, case: Case, row: int) -> None:
        self.case = case
        self.top: dict[str, Tokens] = {}
        self.objects: dict[str, Any] = {}
        self.spreads: dict[str, str] = {}
        self.reasons: set[str] = set()
        for given, value in case.constants.items():
            for path, leaf in leaves(place(case, given), value):
                self.constant(path, leaf)
        placed = [(place(case, c.name), c, c.values[row]) for c in case.columns]
        # A STRUCT that gives its members comes before the columns.
        for where, column, value in sorted(placed, key=lambda each: not is_spread(*each[:2])):
            if where and len(where) == 1 and where[0] not in [*OBJECTS, REST[case.call]]:
                self.field(where[0], column.kind, value)
            elif where and len(where) == 1:
                self.spread(where[0], column, value)
            elif where:
                self.member(where, column, value)
        self.check_ids()
        if case.call == "group":
            kind = self.top.setdefault("objectTypeId", ["1"])
            if kind == [""]:
                kind = self.top["objectTypeId"] = ["1"]
            self.objects.setdefault("traits", {})["object_type_id"] = ['"', *kind, '"']

    @property
    def reason(self) -> str | None:
        """Why it is refused."""
        return min(self.reasons, key=REASONS.index, default=None)

    def constant(self, path: tuple[str, ...], value: Any) -> None:
        """The same in every row."""
        if len(path) == 1:
            self.top[path[0]] = [escaped(str(value))]
        else:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            self.put(path, None if text == "null" else [text])

    def put(self, path: tuple[str, ...], tokens: Tokens | None) -> None:
        """A member."""
        branch = self.objects
        for step in path[:-1]:
            branch = branch.setdefault(step, {})
        branch[path[-1]] = tokens

    def field(self, name: str, kind: Kind, value: Any) -> None:
        """A top-level string."""
        if name in TIMES_ON_TOP and kind.sql == "INT64" and value is not None:
            text = iso_of_seconds(value)
            if text is None:
                self.reasons.add("invalid_number")
            else:
                self.top[name] = [text]
        elif kind.sql == "JSON" and value is not None:  # an id that is JSON is text all the same
            self.top[name] = [escaped(value)]
        else:
            found = scalar(kind, value, "iso8601")
            if found is not None:
                self.top[name] = found[0]
        longest = self.case.id_bytes
        if longest is not None and name in LIMITED_IDS and name in self.top:
            plain = value if isinstance(value, str) else "".join(map(str, self.top[name]))
            if len(plain.encode()) > longest:
                self.reasons.add("id_too_long")

    def member(self, path: tuple[str, ...], column: Column, value: Any) -> None:
        """A column inside an object."""
        form = "json" if column.name in self.case.json else self.case.forms.get(column.name)
        if form is None:
            self.put(path, whole(column.kind, value, self.case.times))
            return
        tokens, reason = formed(column.kind, value, form)
        self.put(path, tokens)
        if reason:
            self.reasons.add(reason)

    def spread(self, name: str, column: Column, value: Any) -> None:
        """A column that is the whole object. Where it is null, there is no trace of its members."""
        branch = self.objects.setdefault(name, {})
        if column.kind.sql == "STRUCT":
            for child, kind in column.kind.children:
                branch[child] = (
                    ABSENT if value is None else whole(kind, value[child], self.case.times)
                )
            return
        text = "null" if value is None else one_line(value).strip()
        if value is not None and (not is_json(value) or (text[0] != "{" and text != "null")):
            self.reasons.add("invalid_json")
        elif text != "null":
            self.spreads[name] = text

    def check_ids(self) -> None:
        """What is missing or empty. Empty text is taken out of `top`."""
        empty = {name for name, text in self.top.items() if text == [""]}
        for name in empty - {"objectTypeId", *TIMES_ON_TOP}:
            del self.top[name]
        for names, reason in MISSING[self.case.call]:
            if any(name in self.top for name in names):
                continue
            email = self.objects.get("traits", {}).get("email")
            if self.case.call == "identify" and "userId" in empty and email not in NO_EMAIL:
                self.top["userId"] = [""]  # the one that an e-mail may stand for
            elif reason == "missing_id" and empty.intersection(names):
                self.reasons.add("empty_id")
            else:
                self.reasons.add(reason)

    def tokens(self) -> Tokens:
        """The payload as far as its messageId: the fields, then the objects, in their order."""
        out: Tokens = ['{"type":"' + self.case.call + '"']
        for name in [*FIELDS[self.case.call], *TIMES_ON_TOP]:
            if name in self.top:
                out += [f',"{name}":"', *self.top[name], '"']
        for name in [*OBJECTS, REST[self.case.call]]:
            if name in self.objects:
                omit = self.case.omit or name in OBJECTS
                given = self.spreads.get(name, "{}")
                out += [f',"{name}":', *tree(self.objects[name], given, omit=omit)]
        return out


ABSENT: Tokens = []
NO_EMAIL = (None, ABSENT, ['"', "", '"'])


def place(case: Case, name: str) -> tuple[str, ...] | None:
    """Where a column or a constant goes; None: nowhere."""
    target = case.renames.get(name, name)
    if target is None:
        return None
    head, *path = target.split(".")
    rest = REST[case.call]
    tops = [*FIELDS[case.call], *TIMES_ON_TOP, "messageId"]
    found: tuple[str, ...] = (rest or "", head, *path)
    for known in [*tops, *OBJECTS, *([rest] if rest else [])]:
        if head.lower() == known.lower() and (known not in tops or not path):
            found = (known, *path)
            break
    if case.call == "group" and found == ("traits", "object_type_id"):
        return ("objectTypeId",)
    return found


def is_spread(where: tuple[str, ...] | None, column: Column) -> bool:
    """Whether a STRUCT gives its fields to an object."""
    return column.kind.sql == "STRUCT" and where is not None and len(where) == 1


def leaves(path: tuple[str, ...] | None, value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values in a constant's mappings, with their places."""
    assert path is not None
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves((*path, name), inner)
    else:
        yield path, value


def spread_members(text: str, branch: Mapping[str, Any]) -> list[Tokens]:
    """What an object gives: its text as it is, or anew without what stands there already."""
    members = json.loads(text)
    if members.keys().isdisjoint(branch):
        inside = text[1:-1].strip()
        return [[inside]] if inside else []
    return [
        [key(name), json.dumps(value, ensure_ascii=False, separators=(",", ":"))]
        for name, value in members.items()
        if name not in branch
    ]


def tree(branch: Mapping[str, Any], given: str, *, omit: bool) -> Tokens:
    """An object: what a JSON column gives, without what stands here; then members and objects."""
    members = spread_members(given, branch)
    for name, inner in branch.items():
        tokens = tree(inner, "{}", omit=omit) if isinstance(inner, dict) else inner
        if tokens is not ABSENT and not (omit and tokens is None):
            members.append([key(name), *(tokens or ["null"])])
    return ["{", *commas(members), "}"]
