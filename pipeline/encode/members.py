"""JSON objects without some of their members, by name, over a whole column.

Where a JSON `traits` column stands beside columns of their own, these win, and the object's
member of the same name must not be sent a second time. One regular expression finds the rows
that may have such a member. Their bytes are then cut into members where commas stand outside all
strings and brackets, without a loop over rows. What stays is the very text that came in.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import text_bytes

_NULL = pa.scalar(None, pa.string())
# RE2 bounds the size of what it compiles; beyond this, every row is looked at closely.
_MOST_IN_PATTERN = 2_000
_BACKSLASH = ord("\\")
# What a byte means to the structure, and what that does to the depth.
_QUOTE, _OPEN, _CLOSE, _COMMA = 1, 2, 3, 4
_MARKS = np.zeros(256, dtype=np.uint8)
_MARKS[list(b'"[{]},')] = (_QUOTE, _OPEN, _OPEN, _CLOSE, _CLOSE, _COMMA)
_STEPS = np.array([0, 0, 1, -1, 0], dtype=np.int8)


def without_members(inside: pa.StringArray, names: Collection[str]) -> pa.StringArray:
    """`inside` without the members called `names`; null where nothing is left.

    inside: what stands between the braces of valid JSON objects, null where that is nothing.
    """
    suspects = _suspects(inside, names)
    if not pc.any(suspects, min_count=0).as_py():
        return inside
    suspects = suspects.fill_null(False)  # noqa: FBT003 - a value, not a flag
    return pc.replace_with_mask(inside, suspects, _filtered(inside.filter(suspects), names))


def _suspects(inside: pa.StringArray, names: Collection[str]) -> pa.BooleanArray:
    """Rows where a name, or an escape that may hide one, occurs at any depth."""
    plain = [re.escape(name) for name in names if not re.search(r'[\x00-\x1f"\\]', name)]
    if sum(map(len, plain)) > _MOST_IN_PATTERN:
        return inside.is_valid()
    keys = f'"(?:{"|".join(plain)})"[ \\t\\n\\r]*:|' if plain else ""
    return pc.match_substring_regex(inside, keys + r"\\")


def _filtered(inside: pa.StringArray, names: Collection[str]) -> pa.StringArray:
    """As `without_members`, of rows that are all there and not empty."""
    data = text_bytes(inside)
    rows = np.frombuffer(inside.buffers()[1], dtype=np.int32)[
        inside.offset : inside.offset + len(inside) + 1
    ].astype(np.int64)
    rows = rows - rows[0]
    quotes, commas = _structure(data)
    starts = np.sort(np.concatenate((rows[:-1], commas + 1)))
    ends = np.sort(np.concatenate((commas, rows[1:])))
    key = np.searchsorted(quotes, starts)
    keep = ~_named(_between(data, quotes[key] + 1, quotes[key + 1]), names)
    members = _between(data, starts, ends).filter(pa.array(keep))
    counts = np.bincount(
        np.searchsorted(rows, starts[keep], side="right") - 1, minlength=len(inside)
    )
    lists = pa.ListArray.from_arrays(
        pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32)), members
    )
    return pc.if_else(pa.array(counts > 0), pc.binary_join(lists, ","), _NULL)


def _structure(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where strings begin and end, in turn; and the commas outside all strings and brackets."""
    places = np.flatnonzero(_MARKS[data] != 0)
    if (data == _BACKSLASH).any():
        places = _without_escaped(data, places)
    marks = _MARKS[data[places]]
    quotes = marks == _QUOTE
    outside = ~np.logical_xor.accumulate(quotes)
    depth = np.cumsum(_STEPS[marks] * outside, dtype=np.int32)
    return places[quotes], places[(marks == _COMMA) & outside & (depth == 0)]


def _without_escaped(
    data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The marks but for quotes after an odd number of backslashes, which belong to a string."""
    others = np.flatnonzero(data != _BACKSLASH)
    # The last byte before each mark that is no backslash; a mark is never the first of its kind.
    index = np.searchsorted(others, places) - 1
    last = np.where(index >= 0, others[index], -1)
    kept: npt.NDArray[np.int64] = places[(places - last) % 2 == 1]
    return kept


def _named(keys: pa.StringArray, names: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which keys, as they stand between their quotes, are among `names`."""
    found = pc.is_in(keys, value_set=pa.array(list(names), pa.string()))
    escaped = pc.match_substring(keys, "\\")
    if pc.any(escaped, min_count=0).as_py():
        hidden = [
            key for key in pc.unique(keys.filter(escaped)).to_pylist() if _plain(key) in names
        ]
        found = pc.or_(
            pc.and_not(found, escaped), pc.is_in(keys, value_set=pa.array(hidden, pa.string()))
        )
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _plain(key: str) -> str:
    return str(orjson.loads(f'"{key}"'))


def _between(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> pa.StringArray:
    """The texts data[starts[i]:ends[i]], which follow each other; without a copy of the data."""
    cuts = np.empty(2 * len(starts) + 1, dtype=np.int32)
    cuts[0:-1:2], cuts[1::2] = starts, ends
    cuts[-1] = cuts[-2]
    both = pa.StringArray.from_buffers(len(cuts) - 1, pa.py_buffer(cuts), pa.py_buffer(data))
    return both.take(pa.array(np.arange(0, len(cuts) - 1, 2)))
