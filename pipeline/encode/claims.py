"""What a column's text claims to be and only its values can prove: JSON, a number, a time.

One vectorized look answers while all is well. A value that fails becomes null and its row is
refused, so that the payload stays JSON and no neighbour notices.
"""

from __future__ import annotations

from enum import Enum
from secrets import token_hex
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import text_bytes, text_offsets
from pipeline.encode.scalars import json_text
from pipeline.encode.validity import Validity
from pipeline.model import Reason

_NULL = pa.scalar(None, pa.string())
# RFC 8259, section 6. RE2's `$` is the end of the text only.
_NUMBER = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"
# Begins an escape of half a surrogate pair. Half a pair alone is JSON by its grammar and no text by
# Unicode: orjson and many others refuse it. A backslash before may make it something else.
_HALF = r"\\u[dD]"
_HALVES = (b"\\ud", b"\\uD")
# Unknown to whoever writes the rows, so that no value can fake it.
_MARKER = token_hex(16)
_BEFORE, _AFTER, _LAST = f'"{_MARKER}",', ",", f'"{_MARKER}"]'.encode()


class Claim(Enum):
    """What a text has to prove."""

    JSON = "json"  # any JSON value
    PAIRS = "pairs"  # JSON that the source vouches for; its escapes have no half of a pair
    NUMBER = "number"  # a JSON number that a double can hold
    SECONDS = "seconds"  # a time made of Unix seconds; empty where the number was no such thing


def proven(claim: Claim, text: pa.StringArray, validity: Validity) -> pa.StringArray:
    """The text, null where the claim does not hold; these rows are refused."""
    if claim is Claim.JSON:
        _, rows = _parsed(text, null="null")
        return _less_bad_json(text, rows, validity)
    if claim is Claim.PAIRS:
        return _less_half_pairs(text, validity)
    bad = _not_number(text) if claim is Claim.NUMBER else pc.equal(pc.binary_length(text), 0)
    if pc.any(bad, min_count=0).as_py():
        validity.refuse(bad, Reason.INVALID_NUMBER)
        text = pc.if_else(bad.fill_null(False), _NULL, text)  # noqa: FBT003 - a value, not a flag
    return text


def _not_number(text: pa.StringArray) -> pa.BooleanArray:
    right = pc.match_substring_regex(text, _NUMBER)
    # What no double can hold (1e999) is no number to most parsers, which then refuse the payload.
    fits = pc.is_finite(pc.cast(pc.if_else(right, text, _NULL), pa.float64()))
    return pc.invert(pc.and_(right, fits.fill_null(False)))  # noqa: FBT003 - a value, not a flag


def proven_objects(
    text: pa.StringArray, validity: Validity
) -> tuple[pa.StringArray, list[dict[str, Any]]]:
    """As `proven`, of text that begins with a brace; and what it says, `{}` for a null."""
    objects, bad = _parsed(text, null="{}")
    return _less_bad_json(text, bad, validity), objects


def _less_bad_json(text: pa.StringArray, bad: list[int], validity: Validity) -> pa.StringArray:
    if bad:
        wrong = np.zeros(len(text), dtype=np.bool_)
        wrong[bad] = True
        validity.refuse(pa.array(wrong), Reason.INVALID_JSON)
        text = pc.if_else(pa.array(wrong), _NULL, text)
    # Only now: a line break inside of a string is no JSON, elsewhere it is white space.
    return json_text(text)


def _less_half_pairs(text: pa.StringArray, validity: Validity) -> pa.StringArray:
    """Looks at rows with an escape of half a pair alone: no row's fate hangs on its neighbours."""
    data = text_bytes(text).tobytes()
    # A single byte is found many times faster than several, and most JSON has no escape at all.
    if b"\\" not in data or not any(half in data for half in _HALVES):
        return text
    escaped = pc.match_substring_regex(text, _HALF).fill_null(False)  # noqa: FBT003 - a value, not a flag
    rows = np.flatnonzero(escaped.to_numpy(zero_copy_only=False))
    _, bad = _parsed(text.take(pa.array(rows)), null="null")
    return _less_bad_json(text, rows[bad].tolist(), validity)


def _parsed(text: pa.StringArray, *, null: str) -> tuple[list[Any], list[int]]:
    """All values, and the rows that are not JSON, whose value is `null` as for nulls.

    One parse of the whole column answers when all is well. If not, each half is parsed, and so
    on down to the rows at fault: some of them cost as many parses each as n has binary digits.
    """
    items = pc.binary_join_element_wise(
        _BEFORE, text, _AFTER, "", null_handling="replace", null_replacement=null
    )
    whole, starts = text_bytes(items).tobytes(), text_offsets(items).tolist()
    bad: list[int] = []

    def parse(first: int, stop: int) -> list[Any]:
        values = _values(whole[starts[first] : starts[stop]], stop - first)
        if values is not None:
            return values
        if stop - first == 1:
            bad.append(first)
            return [orjson.loads(null)]
        middle = (first + stop) // 2
        return parse(first, middle) + parse(middle, stop)

    return (parse(0, len(text)) if len(text) else []), bad


def _values(items: bytes, rows: int) -> list[Any] | None:
    """The values of so many rows, None if one of them is not JSON.

    Each stands between two markers. As many markers as there are rows were put there and no text
    can add one: if all of them are found in their places, then between any two is one whole value.
    """
    try:
        found = orjson.loads(b"".join((b"[", items, _LAST)))
    except orjson.JSONDecodeError:
        return None
    alone = len(found) == 2 * rows + 1 and found[::2] == [_MARKER] * (rows + 1)
    return found[1::2] if alone else None
