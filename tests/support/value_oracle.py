"""What a value's JSON must be, slowly and obviously, and how a payload is compared with it.

Nothing of `pipeline.encode` and nothing of pyarrow is used here. What is expected is a list of
tokens to be met one after the other: text, byte for byte, and doubles, of which the value and the
length of the shortest text are prescribed. So the order of the keys, white space, escapes and
every digit are part of the comparison.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
from decimal import Decimal
from typing import Any, TypeAlias

import xxhash
from arrow_strategies import Kind

Tokens: TypeAlias = list[str | float]
EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a DATETIME has no zone
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")

# ------------------------------------------------------------------------------- values


def scalar(kind: Kind, value: Any, times: str) -> tuple[Tokens, bool] | None:  # noqa: C901 - a table
    """The text of a value, and whether it goes inside quotes; None where it is sent as null."""
    if value is None:
        return None
    match kind.sql:
        case "STRING" | "GEOGRAPHY":
            return [escaped(value)], True
        case "JSON":  # on one line
            return [one_line(value)], False
        case "INT64":
            return [str(value)], False
        case "BOOL":
            return ["true" if value else "false"], False
        case "FLOAT64":
            return ([value], False) if math.isfinite(value) else None
        case "NUMERIC" | "BIGNUMERIC":
            return [digits(value)], False
        case "BYTES":
            return [base64.b64encode(value).decode()], True
        case "DATE" | "TIME":
            text = value.isoformat() if kind.sql == "DATE" else value.isoformat("microseconds")
            return [text], True
        case "DATETIME" | "TIMESTAMP":
            if times == "iso8601":
                return [value.isoformat("T", "microseconds") + "Z"], True
            unit = dt.timedelta(milliseconds=1) if times == "unix_ms" else dt.timedelta(seconds=1)
            return [str((value - EPOCH) // unit)], False
        case "INTERVAL":
            return [interval(*value)], True
    raise AssertionError(kind)


def escaped(text: str) -> str:
    """As it stands between the quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def digits(value: Decimal) -> str:
    """All digits, no exponent, no trailing zeros."""
    sign, numbers, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, numbers)).rjust(1 - exponent, "0")
    whole, fraction = text[:exponent], text[exponent:].rstrip("0")
    minus = "-" if sign and any(numbers) else ""
    return minus + whole.lstrip("0").rjust(1, "0") + ("." + fraction if fraction else "")


def interval(months: int, days: int, nanos: int) -> str:
    """`[-]Y-M [-]D [-]H:M:S[.F]`."""
    seconds, fraction = divmod(abs(nanos), 10**9)
    return (
        f"{'-' * (months < 0)}{abs(months) // 12}-{abs(months) % 12} {days} "
        f"{'-' * (nanos < 0)}{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}"
        + f".{fraction:09}".rstrip("0").rstrip(".")
    )


def whole(kind: Kind, value: Any, times: str) -> Tokens | None:
    """A value as JSON; None where it is null."""
    if value is None:
        return None
    if kind.sql == "STRUCT":
        members = [
            [key(name), *(whole(child, value[name], times) or ["null"])]
            for name, child in kind.children
        ]
        return ["{", *commas(members), "}"]
    if kind.sql == "ARRAY":
        child = kind.children[0][1]
        return ["[", *commas([whole(child, item, times) or ["null"] for item in value]), "]"]
    found = scalar(kind, value, times)
    if found is None:
        return None
    text, quoted = found
    return ['"', *text, '"'] if quoted else text


def key(name: str) -> str:
    """Before a member's value."""
    return json.dumps(name, ensure_ascii=False) + ":"


def commas(parts: list[Tokens]) -> Tokens:
    """The parts with commas between them."""
    return [token for at, part in enumerate(parts) for token in ([","] if at else []) + part]


def formed(kind: Kind, value: Any, form: str) -> tuple[Tokens | None, str | None]:
    """A value with an `as` of its own, and why its row is refused, if it is."""
    if value is None:
        return None, None
    if form == "json":
        return ([one_line(value)], None) if is_json(value) else (None, "invalid_json")
    if form == "number":
        if kind.sql == "STRING":
            return ([value], None) if is_number(value) else (None, "invalid_number")
        return (["01"[value]], None) if kind.sql == "BOOL" else (whole(kind, value, "unix"), None)
    if form == "string":
        if kind.sql == "JSON":
            return ['"', escaped(value), '"'], None
        found = scalar(kind, value, "iso8601")
        return (None if found is None else ['"', *found[0], '"']), None
    return in_time(kind, value, form)


def in_time(kind: Kind, value: Any, form: str) -> tuple[Tokens | None, str | None]:
    """`as: unix`, `unix_ms` and `iso8601`."""
    if kind.sql == "INT64":
        if form == "unix":
            return [str(value)], None
        text = iso_of_seconds(value)
        return (None, "invalid_number") if text is None else (['"', text, '"'], None)
    if kind.sql == "DATE":
        days = (value - EPOCH.date()).days
        if form == "iso8601":
            return [f'"{value.isoformat()}T00:00:00Z"'], None
        return [str(days * 86_400 * (1_000 if form == "unix_ms" else 1))], None
    return whole(kind, value, form), None


def iso_of_seconds(value: int) -> str | None:
    """Of Unix seconds; None outside of the years 1 to 9999."""
    try:
        return (EPOCH + dt.timedelta(seconds=value)).isoformat() + "Z"
    except OverflowError:
        return None


def is_number(text: str) -> bool:
    """A JSON number that a double can hold."""
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def one_line(text: str) -> str:
    """JSON without raw line breaks, which are only white space in it."""
    return text.replace("\n", " ").replace("\r", " ")


def is_json(text: str) -> bool:
    """By RFC 8259, but for lone surrogates, which have no UTF-8, and numbers beyond a double."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


# ------------------------------------------------------------------------------- comparing


def message_id(prefix: str, *, sync: str, start: int, sequence: int, event: bool) -> str:
    """By the recipe of pipeline/encode/message_id.py; `prefix` ends before the comma."""
    scope = sync if event else f"{sync}\n{start}\n{sequence}"
    return xxhash.xxh3_128_hexdigest(prefix.encode(), xxhash.xxh3_64_intdigest(scope.encode()))


def match(tokens: Tokens, text: str, at: int = 0) -> int:
    """Where the text ends that the tokens describe. Raises AssertionError where it differs."""
    for token in tokens:
        if isinstance(token, str):
            assert text.startswith(token, at), f"{token!r} is expected at {text[at : at + 80]!r}"
            at += len(token)
        else:
            number = NUMBER.match(text, at)
            assert number, f"{token!r} is expected at {text[at : at + 80]!r}"
            same_double(number.group(), token)
            at = number.end()
    return at


def same_double(text: str, value: float) -> None:
    """The very same double, in as few digits as can be."""
    read = float(text)
    assert read == value, (text, value)
    assert math.copysign(1, read) == math.copysign(1, value), (text, value)
    assert _significant(text) == _significant(repr(value)), (text, value)


def _significant(number: str) -> int:
    return len(Decimal(number).normalize().as_tuple().digits)


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object_pairs_hook."""
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), names
    return dict(pairs)
