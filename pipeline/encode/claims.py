"""What a column's text claims to be and only its values can prove: JSON, a number, a time.

One vectorized look answers while all is well. A value that fails becomes null and its row is
refused, so that the payload stays JSON and no neighbour notices.
"""

from __future__ import annotations

from enum import Enum
from secrets import token_hex

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.scalars import json_text
from pipeline.encode.validity import Validity
from pipeline.model import Reason

_NULL = pa.scalar(None, pa.string())
# RFC 8259, section 6. RE2's `$` is the end of the text only.
_NUMBER = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"
# Unknown to whoever writes the rows, so that no value can fake it.
_MARKER = token_hex(8)


class Claim(Enum):
    """What a text has to prove."""

    JSON = "json"  # any JSON value
    NUMBER = "number"  # a JSON number that a double can hold
    SECONDS = "seconds"  # a time made of Unix seconds; empty where the number was no such thing


def proven(claim: Claim, text: pa.StringArray, validity: Validity) -> pa.StringArray:
    """The text, null where the claim does not hold; these rows are refused."""
    if claim is Claim.JSON:
        bad, reason = _not_json(text), Reason.INVALID_JSON
    elif claim is Claim.NUMBER:
        bad, reason = _not_number(text), Reason.INVALID_NUMBER
    else:
        bad, reason = pc.equal(pc.binary_length(text), 0), Reason.INVALID_NUMBER
    if bad is not None and pc.any(bad, min_count=0).as_py():
        validity.refuse(bad, reason)
        text = pc.if_else(bad.fill_null(False), _NULL, text)  # noqa: FBT003 - a value, not a flag
    # Only now: a line break inside of a string is no JSON, elsewhere it is white space.
    return json_text(text) if claim is Claim.JSON else text


def _not_number(text: pa.StringArray) -> pa.BooleanArray:
    right = pc.match_substring_regex(text, _NUMBER)
    # What no double can hold (1e999) is no number to most parsers, which then refuse the payload.
    fits = pc.is_finite(pc.cast(pc.if_else(right, text, _NULL), pa.float64()))
    return pc.invert(pc.and_(right, fits.fill_null(False)))  # noqa: FBT003 - a value, not a flag


def _not_json(text: pa.StringArray) -> pa.BooleanArray | None:
    """Where the text is not JSON; None when all of it is.

    One parse of the whole column answers when all is well. Each value stands beside a marker in
    an array of its own, so that no combination of broken values can pass for whole ones.
    """
    items = pc.binary_join_element_wise(f'["{_MARKER}",', text.fill_null("null"), "]", "")
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(items)], items), ",")[0]
    try:
        parsed = orjson.loads(b"[" + joined.as_buffer().to_pybytes() + b"]")
    except orjson.JSONDecodeError:
        return pa.array([not _is_json(value) for value in text.to_pylist()], pa.bool_())
    if len(parsed) == len(text) and all(len(one) == 2 and one[0] == _MARKER for one in parsed):
        return None
    return pa.array([not _is_json(value) for value in text.to_pylist()], pa.bool_())


def _is_json(value: str | None) -> bool:
    try:
        return value is None or orjson.loads(value) is not ...
    except orjson.JSONDecodeError:
        return False
