"""Query parameters: the typed way to put a value into a query, as `@name`. Pure.

A parameter travels beside the SQL, so nothing in it can be taken for SQL. The type of a text, whole
number, number, truth value or list of these is plain; all others are named. Messages never show a
value.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar

_T = TypeVar("_T")

_INFERRED: Mapping[type, str] = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING"}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = r"[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_DATETIME = re.compile(_DATE.pattern + _TIME, re.ASCII)
_TIMESTAMP = re.compile(_DATE.pattern + _TIME + r"([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
# https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types
_NUMERIC_DIGITS, _NUMERIC_SCALE = 29, 9


class BadParameter(ValueError):
    """A value that can't be had as a parameter. The message says what would do, not the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """`@name` in a query. kind: BigQuery's type, of the elements if it is `repeated` (an ARRAY).

    value: None, or of the Python type that Google's client takes for the kind.
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
        if any(each is None or isinstance(each, list) for each in given):
            raise BadParameter("An ARRAY holds no nulls and no lists: remove them.")
        kind = kind or _common(given)
        return Parameter(
            name=name, kind=kind, value=tuple(_value(each, kind) for each in given), repeated=True
        )
    kind = kind or _inferred(given)
    return Parameter(name=name, kind=kind, value=None if given is None else _value(given, kind))


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


def _string(given: object) -> str | None:
    return given if isinstance(given, str) else None


def _int64(given: object) -> int | None:
    if isinstance(given, str):
        given = int(given) if _WHOLE.fullmatch(given) else None
    if not isinstance(given, int) or isinstance(given, bool):
        return None
    return given if -(2**63) <= given < 2**63 else None


def _float64(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bool(given: object) -> bool | None:
    return {"true": True, "false": False}.get(str(given).lower())


def _date(given: object) -> date | None:
    return _parsed(given, _DATE, date.fromisoformat)


def _datetime(given: object) -> datetime | None:
    return _parsed(given, _DATETIME, datetime.fromisoformat)


def _timestamp(given: object) -> datetime | None:
    return _parsed(given, _TIMESTAMP, datetime.fromisoformat)


def _numeric(given: object) -> Decimal | None:
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    number = _parsed(text, _DECIMAL, Decimal)
    if number is None:
        return None
    whole, _, fraction = f"{number:f}".lstrip("-").partition(".")
    fits = len(whole.lstrip("0")) <= _NUMERIC_DIGITS and len(fraction) <= _NUMERIC_SCALE
    return number if fits else None


def _bytes(given: object) -> bytes | None:
    try:
        return base64.b64decode(given, validate=True) if isinstance(given, str) else None
    except (binascii.Error, ValueError):
        return None


def _parsed(given: object, form: re.Pattern[str], parse: Callable[[str], _T]) -> _T | None:
    """A text of that form, parsed; None for all else."""
    if not isinstance(given, str) or not form.fullmatch(given):
        return None
    try:
        return parse(given.upper())
    except ValueError:  # a thirteenth month
        return None


_MAKERS: Mapping[str, tuple[Callable[[object], object], str]] = {
    "STRING": (_string, "text, in quotes"),
    "INT64": (_int64, "a whole number of at most 64 bits"),
    "FLOAT64": (_float64, "a number"),
    "BOOL": (_bool, "true or false"),
    "DATE": (_date, "`2026-12-31`"),
    "DATETIME": (_datetime, "`2026-12-31T23:59:59`, without a time zone"),
    "TIMESTAMP": (_timestamp, "`2026-12-31T23:59:59Z`, with `Z` or an offset such as `+01:00`"),
    "NUMERIC": (_numeric, 'digits in quotes ("12.50"), at most 29 before the point and 9 after it'),
    "BYTES": (_bytes, "base64 text"),
}
KINDS = tuple(_MAKERS)
"""The types that a parameter may have."""
