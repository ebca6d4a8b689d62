"""JSON string escaping of a whole Arrow column.

A scan of the column's bytes finds which characters need it; most columns need none and come
back as they are. Only quote, backslash and U+0000 to U+001F are escaped (RFC 8259, section 7).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_QUOTE, _BACKSLASH, _FIRST_PRINTABLE = 0x22, 0x5C, 0x20
_SHORT = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
_ESCAPES = {_BACKSLASH: b"\\\\", _QUOTE: b'\\"'} | {
    code: _SHORT.get(code, f"\\u{code:04x}").encode() for code in range(_FIRST_PRINTABLE)
}
_LONGER = np.zeros(256, dtype=np.int64)  # by how many bytes
for _code, _escape in _ESCAPES.items():
    _LONGER[_code] = len(_escape) - 1


def escape(text: pa.StringArray) -> pa.StringArray:
    """The text with all that JSON demands escaped; without quotes around it. Nulls stay null."""
    data = text_bytes(text)
    if not len(data):
        return text
    plain = data.tobytes()
    if b'"' not in plain and b"\\" not in plain and data.min() >= _FIRST_PRINTABLE:
        return text
    special = data < _FIRST_PRINTABLE
    special |= data == _BACKSLASH
    special |= data == _QUOTE
    places = np.flatnonzero(special)
    codes = data[places]
    escaped = plain
    # The backslash first, the highest of them: the others bring backslashes of their own.
    for code in reversed(np.flatnonzero(np.bincount(codes)).tolist()):
        escaped = escaped.replace(bytes((code,)), _ESCAPES[code])
    # Every value starts later by all that was added before it.
    starts = text_offsets(text)
    starts = starts - starts[0]
    added = np.zeros(len(places) + 1, dtype=np.int64)
    np.cumsum(_LONGER[codes], out=added[1:])
    return with_texts(text, starts + added[np.searchsorted(places, starts)], escaped)


def text_offsets(text: pa.Array) -> npt.NDArray[np.int32]:
    """Where each value starts, and where the last one ends; of an array that has values."""
    return np.frombuffer(text.buffers()[1], dtype=np.int32)[
        text.offset : text.offset + len(text) + 1
    ]


def text_bytes(text: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of all values end to end, as a view; null slots may add bytes of their own."""
    data = text.buffers()[2]
    if data is None or not len(text):
        return np.empty(0, dtype=np.uint8)
    starts = text_offsets(text)
    return np.frombuffer(data, dtype=np.uint8)[starts[0] : starts[-1]]


def with_texts(
    like: pa.Array,
    offsets: npt.NDArray[np.integer],
    data: bytes | npt.NDArray[np.uint8] | pa.Buffer,
) -> pa.StringArray:
    """A string column of `data`, cut at `offsets`, null where `like` is."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise pa.ArrowCapacityError("a column of more than 2 GiB of text; cut the batch")
    validity, skipped = cut_validity(like)
    starts = np.zeros(skipped + len(offsets), dtype=np.int32)
    starts[skipped:] = offsets
    buffers = [validity, pa.py_buffer(starts), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(like), buffers, offset=skipped)


def cut_validity(column: pa.Array) -> tuple[pa.Buffer | None, int]:
    """The validity bitmap less the whole bytes before the column, and the bits before it still."""
    validity = column.buffers()[0]
    if validity is None:
        return None, 0
    return validity.slice(column.offset // 8), column.offset % 8
