"""Query parameters: the typed way to put a value into a query, as `@name`. Pure.

A parameter travels beside the SQL, so nothing in it can be taken for SQL. The type of a text, whole
number, number, truth value or list of these is plain; all others are named. A STRUCT's fields are
parameters themselves. Messages never show a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.source.parameter_values import SCALARS

_INFERRED: Mapping[type, str] = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING"}
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
STRUCT, RANGE = "STRUCT", "RANGE<"
"""A kind, and how the three kinds of ranges begin."""


class BadParameter(ValueError):
    """A value that can't be had as a parameter. The message says what would do, not the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """`@name` in a query. kind: BigQuery's type, of the elements if it is `repeated` (an ARRAY).

    value: None, or of the Python type that Google's client takes for the kind. Of a STRUCT its
        fields, as a tuple of Parameters; of a RANGE its start and its end, None for unbounded; of
        an ARRAY a tuple of these.
    """

    name: str
    kind: str
    value: object
    repeated: bool = False


def parameter(name: str, given: object, kind: str | None = None) -> Parameter:
    """The parameter for a value as a configuration has it. kind: None: the value's own type.

    Raises BadParameter.
    """
    if isinstance(given, list):
        return _array(name, given, kind)
    kind = kind or _inferred(given)
    if given is None and kind in SCALARS:
        return Parameter(name=name, kind=kind, value=None)
    return Parameter(name=name, kind=kind, value=_value(given, kind))


def _array(name: str, given: Sequence[object], kind: str | None) -> Parameter:
    if any(each is None or isinstance(each, list) for each in given):
        raise BadParameter("An ARRAY holds no nulls and no lists: remove them.")
    kind = kind or _common(given)
    if kind.startswith(RANGE):
        raise BadParameter("A RANGE can't be in an ARRAY here: write two ARRAYs, for its ends.")
    values = tuple(_value(each, kind) for each in given)
    if kind == STRUCT and len({_shape(each) for each in values}) != 1:
        raise BadParameter(
            "An ARRAY of STRUCTs holds at least one, and all have the same fields of the same "
            "types: write `{type: TYPE, value: ...}` where they differ."
        )
    return Parameter(name=name, kind=kind, value=values, repeated=True)


def _shape(struct: object) -> tuple[object, ...]:
    """Names and types of a STRUCT's fields, in their order, to any depth."""
    shape: list[object] = []
    for each in struct if isinstance(struct, tuple) else ():
        inner = each.value if each.kind == STRUCT else None
        one = inner[0] if inner and each.repeated else inner
        shape.append((each.name, each.kind, each.repeated, _shape(one)))
    return tuple(shape)


def _common(given: Sequence[object]) -> str:
    kinds = {_inferred(each) for each in given}
    if kinds == {"INT64", "FLOAT64"}:
        return "FLOAT64"
    if len(kinds) != 1:
        raise BadParameter(
            "The type of this list is not plain: write `{type: TYPE, value: [...]}`."
        )
    return kinds.pop()


def _inferred(given: object) -> str:
    kind = _INFERRED.get(type(given))
    if kind is None:
        raise BadParameter("The type of this value is not plain: write `{type: TYPE, value: ...}`.")
    return kind


def _value(given: object, kind: str) -> object:
    made = _MAKERS[kind][0](given)
    if made is None:
        raise BadParameter(f"This is no {kind}: write {_MAKERS[kind][1]}.")
    return made


def _struct(given: object) -> tuple[Parameter, ...] | None:
    if not isinstance(given, Mapping) or not given:
        return None
    names = [str(name) for name in given]
    if not all(map(_FIELD.fullmatch, names)) or len({n.lower() for n in names}) < len(names):
        return None
    return tuple(_field(name, each) for name, each in zip(names, given.values(), strict=True))


def _field(name: str, given: object) -> Parameter:
    if not isinstance(given, Mapping):
        return parameter(name, given)
    kind = given.get("type")
    if given.keys() != {"type", "value"} or not isinstance(kind, str) or kind not in _MAKERS:
        raise BadParameter(
            "A STRUCT's field is a plain value or typed: write `{type: TYPE, value: ...}`, the "
            f"type one of {', '.join(_MAKERS)}."
        )
    if kind.startswith(RANGE):
        raise BadParameter("A RANGE can't be in a STRUCT here: write two fields, for its ends.")
    return parameter(name, given["value"], kind)


def _range(given: object, kind: str) -> tuple[object, object] | None:
    """Both ends, each of that kind."""
    if not isinstance(given, Mapping) or given.keys() != {"start", "end"}:
        return None
    start, end = (None if given[at] is None else _value(given[at], kind) for at in _ENDS)
    ordered = start is None or end is None or start < end  # type: ignore[operator]  # two dates, or two datetimes
    return (start, end) if ordered else None


_ENDS = ("start", "end")
_BOUNDS = ", the start before the end, and null for no bound"
_MAKERS: Mapping[str, tuple[Callable[[object], object], str]] = {
    **SCALARS,
    STRUCT: (_struct, "its fields, `{a: 1, b: {type: DATE, value: 2026-12-31}}`"),
    "RANGE<DATE>": (
        lambda given: _range(given, "DATE"),
        f"`{{start: 2026-01-01, end: 2027-01-01}}`{_BOUNDS}",
    ),
    "RANGE<DATETIME>": (
        lambda given: _range(given, "DATETIME"),
        f"`{{start: 2026-01-01T00:00:00, end: 2026-01-02T00:00:00}}`{_BOUNDS}",
    ),
    "RANGE<TIMESTAMP>": (
        lambda given: _range(given, "TIMESTAMP"),
        f"`{{start: 2026-01-01T00:00:00Z, end: 2026-01-02T00:00:00Z}}`{_BOUNDS}",
    ),
}
KINDS = tuple(_MAKERS)
"""The types that a parameter may have."""
