"""Values of query parameters, by BigQuery's type: of the scalar types, one by one. Pure.

A maker gives the Python value that Google's client takes for the type, or None for what does not
fit: strictly, so that nothing becomes another value than the one that was written.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import TypeVar

import orjson

_T = TypeVar("_T")

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?", re.ASCII)
_DATETIME = re.compile(f"{_DATE.pattern}[Tt ]{_TIME.pattern}", re.ASCII)
_TIMESTAMP = re.compile(_DATETIME.pattern + r"([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
# https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#canonical_format_5
_INTERVAL = re.compile(
    r"[+-]?[0-9]{1,5}-[0-9]{1,2} [+-]?[0-9]{1,7} "
    r"[+-]?[0-9]{1,8}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]{1,6})?",
    re.ASCII,
)
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
# https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types
_NUMERIC_DIGITS, _NUMERIC_SCALE = 29, 9
_BIGNUMERIC_DIGITS, _BIGNUMERIC_SCALE = 38, 38


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
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        return None  # float() takes 1_000, and digits of any script
    try:
        number = float(given)
    except OverflowError:
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


def _time(given: object) -> time | None:
    return _parsed(given, _TIME, time.fromisoformat)


def _numeric(given: object) -> Decimal | None:
    return _decimal(given, _NUMERIC_DIGITS, _NUMERIC_SCALE)


def _bignumeric(given: object) -> Decimal | None:
    return _decimal(given, _BIGNUMERIC_DIGITS, _BIGNUMERIC_SCALE)


def _decimal(given: object, digits: int, scale: int) -> Decimal | None:
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    number = _parsed(text, _DECIMAL, Decimal)
    if number is None:
        return None
    whole, _, fraction = f"{number:f}".lstrip("-").partition(".")
    return number if len(whole.lstrip("0")) <= digits and len(fraction) <= scale else None


def _interval(given: object) -> str | None:
    return _parsed(given, _INTERVAL, str)


def _json(given: object) -> object:
    """What the JSON says, of text; all else as it is."""
    if not isinstance(given, str):
        return given
    try:
        orjson.loads(given)  # which is stricter, but makes floats of numbers above 64 bits
        return json.loads(given, parse_float=_exactly)
    except (ValueError, RecursionError):
        return None


def _exactly(text: str) -> float:
    """A JSON number that a double holds; BigQuery would refuse others, or round them."""
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError
    return number


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


SCALARS: Mapping[str, tuple[Callable[[object], object], str]] = {
    "STRING": (_string, "text, in quotes"),
    "INT64": (_int64, "a whole number of at most 64 bits"),
    "FLOAT64": (_float64, "a number"),
    "BOOL": (_bool, "true or false"),
    "DATE": (_date, "`2026-12-31`"),
    "DATETIME": (_datetime, "`2026-12-31T23:59:59`, without a time zone"),
    "TIMESTAMP": (_timestamp, "`2026-12-31T23:59:59Z`, with `Z` or an offset such as `+01:00`"),
    "NUMERIC": (_numeric, 'digits in quotes ("12.50"), at most 29 before the point and 9 after it'),
    "BIGNUMERIC": (
        _bignumeric,
        'digits in quotes ("12.50"), at most 38 before the point and 38 after it',
    ),
    "BYTES": (_bytes, "base64 text"),
    "TIME": (_time, "`23:59:59`, in quotes"),
    "INTERVAL": (_interval, '"Y-M D H:M:S" in quotes, such as "1-2 3 4:5:6"'),
    "JSON": (
        _json,
        "JSON text in quotes (numbers that a double holds, and not `null` alone), or a mapping",
    ),
}
"""Type -> the maker of its values, and how to write one."""
