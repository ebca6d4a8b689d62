"""Which rows of a batch are invalid, and why. Costs nothing while every row is valid.

Of several reasons the first in the order of `Reason` counts, whichever is found first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.escape import text_offsets
from pipeline.model import Reason

_REASONS = tuple(Reason)


class Validity:
    """The reasons found so far of `rows` rows."""

    __slots__ = ("_rows", "reasons")

    def __init__(self, rows: int) -> None:
        self._rows = rows
        # Per row: 0 for valid, else 1 + the reason's place in the enum; None: all valid.
        self.reasons: npt.NDArray[np.uint8] | None = None

    def refuse(self, mask: pa.BooleanArray, reason: Reason) -> None:
        """Mark the rows where the mask is true."""
        if pc.any(mask, min_count=0).as_py():
            self._mark(mask.fill_null(False).to_numpy(zero_copy_only=False), reason)  # noqa: FBT003 - a value, not a flag

    def check_ids(self, text: pa.StringArray, most: int) -> None:
        """Refuse ids of more than `most` bytes. text: escaped, without quotes."""
        if _any_longer(text, most):
            sizes = pc.binary_length(_unescaped(text))
            self.refuse(pc.greater(sizes, most), Reason.ID_TOO_LONG)

    def check_message_ids(self, text: pa.StringArray, most: int) -> None:
        """Refuse messageIds of more than `most` characters. text: escaped, without quotes."""
        if _any_longer(text, most):
            lengths = pc.utf8_length(_unescaped(text))
            self.refuse(pc.greater(lengths, most), Reason.MESSAGE_ID_TOO_LONG)

    def check_sizes(self, text: pa.StringArray, most: int) -> None:
        """Refuse values of more than `most` bytes."""
        sizes = np.diff(text_offsets(text))
        if len(text) and sizes.max() > most:
            self._mark(sizes > most, Reason.PAYLOAD_TOO_LARGE)

    def reason(self, row: int) -> Reason:
        """Why a row is invalid; only of one that is."""
        assert self.reasons is not None  # noqa: S101 - the caller has just seen it
        return _REASONS[int(self.reasons[row]) - 1]

    def _mark(self, mask: npt.NDArray[np.bool_], reason: Reason) -> None:
        if self.reasons is None:
            self.reasons = np.zeros(self._rows, dtype=np.uint8)
        code = 1 + _REASONS.index(reason)
        self.reasons[mask & ((self.reasons == 0) | (self.reasons > code))] = code


def _any_longer(text: pa.StringArray, most: int) -> bool:
    """Whether a value has more than `most` bytes, escapes included."""
    return bool(len(text) and np.diff(text_offsets(text)).max() > most)


def _unescaped(text: pa.StringArray) -> pa.StringArray:
    """As long as what it means: an escape is one quote, backslash or control character."""
    return pc.replace_substring_regex(text, r"\\(?:u00[0-9a-f]{2}|.)", "_")
