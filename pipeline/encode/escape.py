"""JSON string escaping of a whole Arrow column.

A scan of the column's bytes finds which characters need it; most columns need none and come
back as they are. Only quote, backslash and U+0000 to U+001F are escaped (RFC 8259, section 7).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_QUOTE, _BACKSLASH, _FIRST_PRINTABLE = 0x22, 0x5C, 0x20
_SHORT = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}


def escape(text: pa.StringArray) -> pa.StringArray:
    """The text with all that JSON demands escaped; without quotes around it. Nulls stay null."""
    data = text_bytes(text)
    if not len(data):
        return text
    # The backslash first: the other replacements bring backslashes of their own.
    if (data == _BACKSLASH).any():
        text = pc.replace_substring(text, "\\", "\\\\")
    if (data == _QUOTE).any():
        text = pc.replace_substring(text, '"', '\\"')
    if data.min() < _FIRST_PRINTABLE:
        for code in np.unique(data[data < _FIRST_PRINTABLE]).tolist():
            text = pc.replace_substring(text, chr(code), _SHORT.get(code, f"\\u{code:04x}"))
    return text


def text_bytes(text: pa.StringArray) -> npt.NDArray[np.uint8]:
    """The UTF-8 of all values end to end, as a view; null slots may add bytes of their own."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return np.empty(0, dtype=np.uint8)
    starts = np.frombuffer(offsets, dtype=np.int32)
    first, last = starts[text.offset], starts[text.offset + len(text)]
    return np.frombuffer(data, dtype=np.uint8)[first:last]
