"""Places in a call's payload, by name, and the constants that a sync puts there. Pure, no Arrow.

A place is dotted (`context.device.id`). Its first part matches the call's fields in any case; what
is no field of the call goes into traits or properties. `pipeline.config` checks constants with
this before anything runs, `layout.py` compiles them.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.encode.calls import CALLS, OBJECT_TYPE_FIELD, OBJECT_TYPE_TRAIT, Kind
from pipeline.model import Call

Path = tuple[str, ...]

# How YAML 1.2 writes the numbers that JSON has not; `retl.yml` is read with them as text.
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NO_JSON = (
    "This is no JSON value.",
    "Use text, finite numbers, true, false, null, lists and mappings.",
)


@dataclass(frozen=True, slots=True)
class Constant:
    """One value that every payload gets.

    given: its key in the configuration. text: its JSON.
    """

    given: str
    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a constant can't be sent. keys: from its key in `constants` down to the value."""

    keys: Path
    what: str
    remedy: str


class Taken:
    """Who has which place, by the one rule of collisions.

    A place is given once, and where a value is given nothing else is given inside it. A whole
    object (traits) gives members like any other column: only its members can clash.
    """

    __slots__ = ("_inside", "_owners")

    def __init__(self) -> None:
        self._owners: dict[Path, str] = {}
        self._inside: dict[Path, str] = {}

    def claim(self, path: Path, owner: str) -> tuple[Path, str] | None:
        """Give `path` to `owner`; or say which place another wants too, and who that is."""
        above = [path[:length] for length in range(2, len(path))]
        for place in (*above, path):
            if place in self._owners:
                return place, self._owners[place]
        if len(path) > 1 and path in self._inside:
            return path, self._inside[path]
        self._owners[path] = owner
        for place in above:
            self._inside.setdefault(place, owner)
        return None


@dataclass(slots=True)
class Constants:
    """All constants of a sync that can be sent, and what is wrong with the others."""

    values: list[Constant] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)


def locate(call: Call, place: str) -> Path | None:
    """Where in the payload a place is; None where the call has no room for it.

    One part: a top-level field or a whole object. More: a member of an object.
    """
    shape = CALLS[call]
    head, *rest = place.split(".")
    name = next((name for name in shape.fields if name.lower() == head.lower()), head)
    kind = shape.fields.get(name)
    if kind is Kind.OBJECT:
        return (name, *rest)
    if kind and not rest:
        return (name,)
    if shape.rest is None:
        return None
    rest = rest if name.lower() == shape.rest else [head, *rest]
    return aliased(call, (shape.rest, *rest))


def aliased(call: Call, path: Path) -> Path:
    """The place that a path stands for: the trait of a group's object type is its field."""
    if call is Call.GROUP and path == ("traits", OBJECT_TYPE_TRAIT):
        return (OBJECT_TYPE_FIELD,)
    return path


def read_constants(call: Call, given: Mapping[str, object]) -> Constants:
    """A sync's `constants`, laid out.

    Of a key, dots separate the parts of its place; the keys of a nested mapping are names as they
    stand (`integrations: {Customer.io: true}`).
    """
    found, taken = Constants(), Taken()
    for key, value in given.items():
        whole = locate(call, key)
        if whole is None:
            what = f"{call} calls have no place for {key}."
            found.flaws.append(Flaw((key,), what, "Remove it."))
            continue
        is_field = _kind(call, whole) is not Kind.OBJECT
        here: Path = (key,)
        for path, keys, leaf in [(whole, here, value)] if is_field else _leaves(whole, here, value):
            place = aliased(call, path)
            other = taken.claim(place, key)
            if not all(path) or not _is_text("".join(path)):
                flaw = Flaw(keys, "This is no place.", "Write `name` or `object.name`.")
            elif other is not None:
                what = f"{'.'.join(other[0])} is given twice, here and by the constant {other[1]}."
                flaw = Flaw(keys, what, "Remove one of them.")
            elif isinstance(text := _text(call, place, leaf), str):
                found.values.append(Constant(key, place, text))
                continue
            else:
                flaw = Flaw(keys, *text)
            found.flaws.append(flaw)
    return found


def _text(call: Call, path: Path, value: object) -> str | tuple[str, str]:
    """The JSON of a value at its place, or what is wrong with it and the remedy."""
    kind = _kind(call, path)
    if kind is not Kind.OBJECT:
        return _field(path[0], kind, value)
    if len(path) == 1 and value != {}:  # what is in a mapping has a place of its own
        return f"{path[0]} is an object.", "Give it a mapping."
    return _json(value)


def _kind(call: Call, path: Path) -> Kind:
    """What stands at a place: a top-level string, or an object or something in one."""
    return CALLS[call].fields.get(path[0], Kind.OBJECT)


def _leaves(path: Path, keys: Path, value: object) -> Iterator[tuple[Path, Path, object]]:
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            yield from _leaves((*path, key), (*keys, key), inner)
    else:
        yield path, keys, value


def _json(value: object) -> str | tuple[str, str]:
    """The JSON of a value, or what is wrong with it."""
    if not _finite(value):
        return "JSON has no infinities and no NaN.", "Give a number, or null."
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return _NO_JSON
    return text if _is_text(text) else _NO_JSON


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, str):
        return not _NO_NUMBER.fullmatch(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return not isinstance(value, Sequence) or all(map(_finite, value))


def _field(name: str, kind: Kind, value: object) -> str | tuple[str, str]:
    """The JSON of a top-level string."""
    if name == "messageId":
        return "All rows would get the same messageId.", "Remove it; each row gets one of its own."
    if kind is Kind.TIME:
        return _time(name, value)
    if value is None or value == "":
        return f"{name} is empty.", "Give it a value."
    if isinstance(value, bool) or not isinstance(value, str | int):
        return f"{name} is text.", "Put the value in quotes."
    return _json(str(value))


def _time(name: str, value: object) -> str | tuple[str, str]:
    wrong = (f"{name} is a time.", "Write it as `2026-12-01T06:00:00Z`, or in Unix seconds.")
    try:
        if isinstance(value, str):
            time = dt.datetime.fromisoformat(value)
            time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
        elif isinstance(value, int) and not isinstance(value, bool):
            time = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=value)
        else:
            return wrong
    except (ValueError, OverflowError):
        return wrong
    return json.dumps(time.isoformat().replace("+00:00", "Z"))


def _is_text(text: str) -> bool:
    """Whether it has a UTF-8 form, which lone surrogates have not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
